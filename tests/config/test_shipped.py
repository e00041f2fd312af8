"""The configuration files of the project load anywhere and mean what they should."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from belatwist.collectors.disk import DiskIOOptions
from belatwist.collectors.registry import SOURCES
from belatwist.config import Config, default_entries, load

ROOT = Path(__file__).parents[2]
FILES = ("config.yaml", "config.dev.yaml", "belabox.yaml")


def _load(name: str) -> Config:
    return load(ROOT / "configs" / name, SOURCES)


def test_every_file_is_named_here() -> None:
    """Every configuration file of the project is tested."""
    assert sorted(path.name for path in (ROOT / "configs").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_file_loads_from_any_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file loads in any current directory, because it needs no other file."""
    monkeypatch.chdir(tmp_path)
    assert {metric.name for metric in _load(name).metrics} <= set(SOURCES)


@pytest.mark.parametrize("name", ["config.yaml", "belabox.yaml"])
def test_production_makes_nothing_up_and_hides_no_uplink(name: str) -> None:
    """The mock is off, the exclusions are built in, and the endpoint is local."""
    config = _load(name)
    running = [metric.name for metric in config.metrics if metric.enabled]
    assert running == [name for name, known in SOURCES.items() if known.default]
    assert all(getattr(metric.config, "exclude_ifaces", None) is None for metric in config.metrics)
    assert config.health.host == "127.0.0.1"
    assert config.storage.synchronous == "full"


def test_the_general_file_shows_the_defaults() -> None:
    """The commented file has the defaults, except for the mock's entry."""
    config = _load("config.yaml")
    metrics = tuple(metric for metric in config.metrics if metric.enabled)
    assert Config(device=config.device, metrics=default_entries(SOURCES)) == Config(
        device=config.device,
        storage=config.storage,
        remote=config.remote,
        health=config.health,
        logging=config.logging,
        monitoring=config.monitoring,
        metrics=tuple(sorted(metrics, key=lambda metric: list(SOURCES).index(metric.name))),
    )


def test_the_development_file_stays_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes below ./var, uploads to this machine, runs the mock and reports a VM's disk."""
    monkeypatch.chdir(tmp_path)
    config = _load("config.dev.yaml")
    assert config.storage.path == str(tmp_path / "var/metrics.db")
    assert config.remote.url == "http://127.0.0.1:9090/api/v1/import"
    assert all(metric.enabled and metric.interval <= 5 for metric in config.metrics)
    default = {name for name, source in SOURCES.items() if source.default}
    assert {metric.name for metric in config.metrics} == default | {"srt.packet_loss"}
    disks = next(m.config for m in config.metrics if isinstance(m.config, DiskIOOptions))
    assert "vd[a-z]+" in disks.allowed_devices


def test_every_added_key_is_listed() -> None:
    """The page of corrections lists the keys that the specification's file does not have."""

    def paths(section: dict[str, Any], above: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in section.items():
            path = f"{above}{key}"
            found |= paths(value, f"{path}.") if isinstance(value, dict) else {path}
        return found

    given = paths(yaml.safe_load((ROOT / "tests" / "config" / "sample.yaml").read_text()))
    tables = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    known = set(re.findall(r"^\| `([a-z_]+\.[a-z_.]+)`", tables, re.MULTILINE))
    page = (ROOT / "docs" / "corrections.md").read_text("utf-8")
    listed = set(re.findall("`([a-z_.]+)`", page.partition("## Added keys")[2]))
    collectors = set(SOURCES)
    assert listed == known - given - collectors


@pytest.mark.process
def test_the_configuration_is_read_without_twisted() -> None:
    """Checking a file does not import Twisted."""
    script = "import sys, belatwist.config; assert 'twisted' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
