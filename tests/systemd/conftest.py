"""Fixtures of the tests under a real systemd: the package, and what it takes to boot a machine."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.systemd import machine

CHECKOUT = Path(__file__).parents[2]


def skip(reason: str) -> None:
    """Skip, or fail where these tests are required."""
    if os.environ.get("BELA_REQUIRE_ROOT_TESTS") == "1":
        pytest.fail(f"BELA_REQUIRE_ROOT_TESTS=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def bootable() -> None:
    """Skip where no machine can be booted."""
    reason = machine.unavailable()
    if reason is not None:
        skip(reason)


@pytest.fixture(scope="session")
def package(bootable: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the Debian package, with the one command for it."""
    folder = tmp_path_factory.mktemp("package")
    done = subprocess.run(
        ["make", "--no-print-directory", "deb", f"DIST={folder}"],
        cwd=CHECKOUT,
        env={**os.environ, "DPKG_DEB_COMPRESSOR_TYPE": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (built,) = folder.glob("*.deb")
    return built
