"""The wheels that ``packaging/lock/`` names, in a folder that stands for an index."""

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LOCK = CHECKOUT / "packaging" / "lock"


def download(target: Path) -> None:
    """Fetch what building and running the agent under the distribution's Python needs."""
    for name in ("build", "agent"):
        subprocess.run(
            [
                *(CHECKOUT / ".venv/bin/pip", "--python", "/usr/bin/python3", "--quiet"),
                *("download", "--dest", target, "--require-hashes", "--only-binary=:all:"),
                *("--requirement", LOCK / f"{name}.txt"),
            ],
            check=True,
        )
