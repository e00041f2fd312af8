"""``bela check`` reports what the agent would report."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from belatwist import config
from belatwist.cli import drop_ins, options
from belatwist.cli.check import check
from belatwist.collectors import load, uptime
from belatwist.collectors.contract import Source
from tests.cli.running import CHECKOUT, bela, process
from tests.process import twistd, write_config


def test_a_good_one(tmp_path: Path) -> None:
    """The first line says that it is ok. A summary follows, and the command writes no file."""
    path = write_config(
        tmp_path,
        remote={"enabled": True, "url": "https://vm.example/api/v1/import?key=secret"},
        health={"enabled": True, "host": "::1"},
        logging={"output": str(tmp_path / "agent.log")},
        metrics=[{"name": "system.load", "interval": "90s"}, {"name": "disk.io", "enabled": False}],
    )
    done = bela("check", path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{path}: ok",
        "  device      test-device",
        "  uploads     to https://vm.example/api/v1/import every 30s",
        "  collectors  system.load 1m30s",
        "  health      http://[::1]:9100/health",
        f"  database    {tmp_path}/metrics.db (does not exist yet; the agent creates it)",
        f"  log         {tmp_path}/agent.log, json, debug",
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_token_in_the_clear_is_pointed_at(tmp_path: Path) -> None:
    """The configuration is accepted, with a warning that does not show the token."""
    token = tmp_path / "token"
    token.write_text("geheim\n")
    token.chmod(0o600)
    path = write_config(tmp_path, remote={"enabled": True, "auth_token_file": str(token)})
    done = bela("check", path)
    assert done.exit_code == 0
    assert "unencrypted" in done.stdout
    assert "geheim" not in done.stdout


def test_a_key_with_a_new_name_is_pointed_at(tmp_path: Path) -> None:
    """The old name is accepted, with one line on stderr that names both and the file."""
    path = write_config(tmp_path, remote={"lookout_interval": "5s"})
    done = bela("check", path)
    assert done.exit_code == 0
    assert done.stderr == (
        f"bela: Configuration key remote.lookout_interval in {path} is now named"
        " remote.reconnect_interval; the old name still works\n"
    )


REFUSED: list[dict[str, Any]] = [
    {"remote": {"retry": {"jitter_percent": 150}}},
    {"remote": {"upload_intervall": "5s"}},
    {"remote": {"url": "http://localhost:8428/api/v1/import/prometheus"}},
    {"remote": {"lookout_interval": "5s", "reconnect_interval": "5s"}},
    {"remote": {"tls_ca_file": "rubbish.pem"}},
    {"remote": {"tls_ca_file": "missing.pem"}},
    {"remote": {"auth_token_file": "open"}},
    {"storage": {"path": "folder"}},
    {"logging": {"output": "folder"}},
    {"logging": {"output": "missing/agent.log"}},
    {"logging": {"output": "open/agent.log"}},
    {"logging": {"output": "dangling"}},
    {"metrics": [{"name": "cpu.usag"}]},
]


@pytest.mark.process
@pytest.mark.parametrize("sections", REFUSED, ids=str)
def test_a_refusal_is_the_agents_own(sections: dict[str, Any], tmp_path: Path) -> None:
    """The command prints the agent's line and exits with a failure, and neither writes a file."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "rubbish.pem").write_text("-----BEGIN CERTIFICATE-----\nrubbish\n")
    (tmp_path / "open").write_text("token\n")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "agent.log")
    path = write_config(tmp_path, **sections)
    before = sorted(tmp_path.iterdir())
    agent = subprocess.run(
        twistd("bela", "--config", str(path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    done = process(
        "check",
        path,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", agent.stderr)
    assert agent.returncode == os.EX_CONFIG
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_no_file(tmp_path: Path) -> None:
    """The refusal names the missing file."""
    done = bela("check", tmp_path / "none.yaml")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"bela: {tmp_path}/none.yaml: no such file")


def test_a_log_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that may not be written is refused without being opened."""
    log = tmp_path / "agent.log"
    log.write_text("")
    path = write_config(tmp_path, logging={"output": str(log)})
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    done = bela("check", path)
    assert done.stderr == f"bela: {path}: logging.output: {log}: Permission denied\n"


NEEDY = Source("some.device", 10.0, load.SOURCE.make, (), drop_in="device.conf")
"""A source that needs more than the unit gives."""

KNOWN = {source.name: source for source in (NEEDY, uptime.SOURCE)}
LOCAL = "etc/systemd/system/metrics-collector.service.d"


def run_needy(tmp_path: Path, *, enabled: bool = True) -> list[str]:
    """Check a configuration with that source; return what is said of drop-ins."""
    metrics = [{"name": "some.device", "enabled": enabled}, {"name": "system.uptime"}]
    path = write_config(tmp_path, metrics=metrics)
    lines = check(str(path), KNOWN, tmp_path)
    return [line.strip() for line in lines if "drop-in" in line]


def put(path: Path, text: str = "[Service]\n") -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_missing_drop_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration is ok; a warning names the collector, the file, and where it belongs."""
    assert run_needy(tmp_path) == ["drop-in     device.conf: missing (for some.device)"]
    warning = capsys.readouterr().err
    assert warning == (
        "bela: collector some.device wants the drop-in device.conf, which"
        " metrics-collector.service does not have: copy"
        " systemd/metrics-collector.service.d/device.conf of the sources to"
        " /etc/systemd/system/metrics-collector.service.d/, then run systemctl daemon-reload and"
        " restart the service\n"
    )


@pytest.mark.parametrize("system", ["usr", "usr/local"])
def test_the_drop_in_to_copy(
    system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The warning names the installed file, which systemd does not read there."""
    put(tmp_path / system / "share/belatwist/drop-ins/device.conf")
    assert run_needy(tmp_path) == ["drop-in     device.conf: missing (for some.device)"]
    assert f" copy /{system}/share/belatwist/drop-ins/device.conf to" in capsys.readouterr().err


@pytest.mark.parametrize("folder", drop_ins.UNIT_FOLDERS)
def test_a_drop_in_that_is_there(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The summary has its path, in whichever of systemd's folders, and nothing is warned of."""
    found = f"{folder}/metrics-collector.service.d/device.conf"
    put(tmp_path / found[1:])
    assert run_needy(tmp_path) == [f"drop-in     {found} (for some.device)"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("how", ["empty", "/dev/null"])
def test_a_drop_in_that_is_switched_off(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for systemd, an empty file of that name hides the one of a later folder."""
    put(tmp_path / "usr/lib/systemd/system/metrics-collector.service.d/device.conf")
    local = tmp_path / LOCAL / "device.conf"
    put(local, "")
    if how != "empty":
        local.unlink()
        local.symlink_to(how)
    assert run_needy(tmp_path) == ["drop-in     device.conf: missing (for some.device)"]
    assert "wants the drop-in device.conf" in capsys.readouterr().err


def test_only_an_enabled_collector_wants_its_drop_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a source that is off, nothing is said."""
    assert run_needy(tmp_path, enabled=False) == []
    assert capsys.readouterr().err == ""


def test_the_default_is_the_agents() -> None:
    """The commands' default path, repeated to save an import, equals the agent's."""
    assert options.DEFAULT_PATH == config.DEFAULT_PATH
