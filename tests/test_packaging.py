"""What is installed: the wheel's content, and that it works outside the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

from belatwist import __version__

CHECKOUT = Path(__file__).parent.parent
LOCK = CHECKOUT / "packaging" / "lock"


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


@pytest.mark.process
def test_wheel_is_typed_and_licensed(wheel: Path) -> None:
    """Type checkers find the annotations, and the licence goes where the code goes."""
    archive = zipfile.ZipFile(wheel)
    assert archive.read("belatwist/py.typed") == b""
    metadata = f"belatwist-{__version__}.dist-info"
    assert archive.read(f"{metadata}/licenses/LICENSE") == (CHECKOUT / "LICENSE").read_bytes()
    lines = archive.read(f"{metadata}/METADATA").decode().splitlines()
    assert {"License-Expression: MIT", "License-File: LICENSE"} <= set(lines)


def pinned(name: str) -> dict[str, set[Version]]:
    """Read the versions in a lock file; one package has several where they depend on Python's."""
    found: dict[str, set[Version]] = {}
    for line in (LOCK / f"{name}.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.removesuffix("\\"))
            (only,) = requirement.specifier
            assert only.operator == "=="
            found.setdefault(canonicalize_name(requirement.name), set()).add(Version(only.version))
    return found


def required(extra: str) -> list[Requirement]:
    """Read what pyproject.toml asks for: the agent's, an extra's, or the build backend."""
    content = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    project = content["project"]
    texts = {
        "agent": project["dependencies"],
        "build": content["build-system"]["requires"],
        "tools": [one for texts in project["optional-dependencies"].values() for one in texts],
    }[extra]
    requirements = [Requirement(text) for text in texts]
    return [one for one in requirements if one.name != project["name"]]


@pytest.mark.parametrize("name", ["agent", "build", "tools"])
def test_the_lock_is_what_pyproject_asks_for(name: str) -> None:
    """Every dependency is locked within its range; else ``make lock`` was forgotten."""
    locked = pinned(name)
    for requirement in required(name):
        versions = locked[canonicalize_name(requirement.name)]
        assert all(version in requirement.specifier for version in versions), requirement


def test_the_locks_agree() -> None:
    """The tests run with the versions that a device gets and the package is built with."""
    tools = pinned("tools")
    for name in ("agent", "build"):
        assert {package: tools[package] for package in pinned(name)} == pinned(name)


@pytest.mark.parametrize("name", ["agent", "build", "tools"])
def test_the_lock_has_hashes_and_no_index(name: str) -> None:
    """It says which files are right, and leaves to the machine where they come from."""
    text = (LOCK / f"{name}.txt").read_text()
    assert "//" not in text
    for entry in re.split(r"\n(?=\S)", text):
        assert entry.startswith("#") or "--hash=sha256:" in entry


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
