"""The unit file, looked at without running it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from belatwist.collectors.registry import SOURCES
from tests.systemd.conftest import skip

UNIT = Path(__file__).parents[2] / "systemd" / "metrics-collector.service"
DROP_INS = UNIT.with_suffix(".service.d")


@pytest.fixture
def systemd_analyze() -> None:
    """Skip where the tool is missing."""
    if shutil.which("systemd-analyze") is None:
        skip("it takes systemd-analyze")


def analyze(*arguments: str | Path, **environment: str) -> tuple[int, str]:
    """Run ``systemd-analyze``; returns its status and all it says."""
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.process
def test_verify_is_silent(systemd_analyze: None, tmp_path: Path) -> None:
    """Systemd finds nothing wrong with the unit; only the program is not installed here."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/belatwist/bin/twistd", "/bin/true"))
    assert analyze("verify", unit) == (0, "")


def test_every_drop_in_is_of_a_source() -> None:
    """The drop-ins that are shipped are those that sources declare."""
    declared = {source.drop_in for source in SOURCES.values() if source.drop_in is not None}
    assert {path.name for path in DROP_INS.glob("*")} == declared


@pytest.mark.process
def test_verify_is_silent_with_each_drop_in(systemd_analyze: None, tmp_path: Path) -> None:
    """Systemd finds nothing wrong with the unit and one of the drop-ins."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/belatwist/bin/twistd", "/bin/true"))
    folder = tmp_path / DROP_INS.name
    for path in DROP_INS.glob("*"):
        folder.mkdir()
        shutil.copy(path, folder)
        assert analyze("verify", unit, SYSTEMD_UNIT_PATH=f"{tmp_path}:") == (0, ""), path.name
        shutil.rmtree(folder)


@pytest.mark.process
def test_exposure_is_low(systemd_analyze: None, tmp_path: Path) -> None:
    """Systemd rates the exposure 1.5 or better, of 10, without the drop-ins beside the unit."""
    unit = shutil.copy(UNIT, tmp_path)
    status, text = analyze("security", "--offline=true", "--threshold=15", "--no-pager", unit)
    assert status == 0, text
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+) ", text)
    assert found is not None
    assert float(found[1]) <= 1.5


def test_the_limits_on_starts_are_where_they_work() -> None:
    """The start limits stand in ``[Unit]``: in ``[Service]`` they are ignored."""
    head = UNIT.read_text().partition("[Service]")[0]
    assert "StartLimitIntervalSec=0" in head


def test_the_documentation_is_our_own() -> None:
    """The unit names pages of ``docs/``, where the installation puts them."""
    found = re.search(r"^Documentation=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    pages = [Path(uri.removeprefix("file:")) for uri in found[1].split()]
    assert {page.parent for page in pages} == {Path("/usr/share/doc/belatwist")}
    for page in pages:
        assert (UNIT.parents[1] / "docs" / page.name).is_file(), page
