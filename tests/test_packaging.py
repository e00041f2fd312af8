"""What is installed: the wheel's content, and that it works outside the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

from belatwist import __version__

CHECKOUT = Path(__file__).parent.parent


def pip(python: Path | str) -> list[Path | str]:
    """Return the beginning of a command that installs or builds nothing but what is named."""
    return [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, with the build backend that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *pip(sys.executable),
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            folder,
            CHECKOUT,
        ],
        check=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.process
def test_wheel_carries_the_plugin_and_spares_twisted(wheel: Path) -> None:
    """It holds our package and our one plugin file; nothing else below ``twisted``, no tests."""
    names = zipfile.ZipFile(wheel).namelist()
    assert [n for n in names if n.startswith("twisted/")] == ["twisted/plugins/bela_plugin.py"]
    assert {n.partition("/")[0] for n in names} == {
        "belatwist",
        "twisted",
        f"belatwist-{__version__}.dist-info",
    }


def test_plugins_are_discoverable() -> None:
    """Twisted finds both services in this environment, with a text for ``twistd --help``."""
    found = {p.tapname: p for p in getPlugins(IServiceMaker) if p.tapname.startswith("bela")}
    assert set(found) == {"bela", "bela-receiver"}
    assert all(p.description for p in found.values())


@pytest.mark.process
@pytest.mark.parametrize("service", ["bela", "bela-receiver"])
def test_an_installed_wheel_works_outside_the_checkout(
    wheel: Path, service: str, tmp_path: Path
) -> None:
    """In a clean virtual environment ``twistd -n bela`` is there, and is the wheel's.

    The dependencies come from this environment by way of ``PYTHONPATH``, which does not process
    the file by which an editable installation of this checkout would be found.
    """
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [*pip(python), "install", "--no-deps", "--no-index", wheel],
        check=True,
    )
    run = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    done = subprocess.run(
        [python, "-c", run, "--nodaemon", "--pidfile=", service, "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"belatwist {__version__}\n", done.stderr
    where = subprocess.run(
        [python, "-c", "import belatwist; print(belatwist.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(environment))
