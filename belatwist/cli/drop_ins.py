"""Finds the drop-ins of the service's unit that the enabled sources want."""

from pathlib import Path
from typing import NamedTuple

UNIT = "metrics-collector.service"

LOCAL = f"/etc/systemd/system/{UNIT}.d"
"""Where an operator puts a drop-in."""

UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""The folders that systemd reads, by precedence: of files with one name the first counts."""

EXAMPLES = ("/usr/share/belatwist/drop-ins", "/usr/local/share/belatwist/drop-ins")
"""Where the package and ``make install`` put the drop-ins of this project. None of them is active
there."""


class DropIn(NamedTuple):
    """A drop-in that a source wants.

    :ivar found: the file that systemd reads; ``None`` where there is none.
    :ivar example: the file to copy; ``None`` where none is installed.
    """

    found: str | None
    example: str | None


def find(name: str, root: Path) -> DropIn:
    """Look for a drop-in of the unit.

    :param root: the folder that stands for ``/``.
    """
    return DropIn(
        _first([f"{folder}/{UNIT}.d/{name}" for folder in UNIT_FOLDERS], root),
        _first([f"{folder}/{name}" for folder in EXAMPLES], root),
    )


def _first(paths: list[str], root: Path) -> str | None:
    """Return the first path that exists; ``None`` when that file is empty.

    systemd does not read further files of that name: an empty file, or a link to ``/dev/null``,
    switches a drop-in off.
    """
    for path in paths:
        try:
            size = (root / path[1:]).stat().st_size
        except OSError:
            continue
        return path if size else None
    return None
