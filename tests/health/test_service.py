"""The health of the real program, asked over HTTP."""

import json
import re
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from belatwist import __version__
from belatwist.collectors.registry import HOST, SOURCE_OF
from belatwist.metrics.agent import SELF
from belatwist.procfs.reader import UNMOUNTED_CURE
from tests.fixture_trees import FIXTURES
from tests.process import TIMEOUT, Twistd, free_port, write_config
from tests.twistd_with_hooks import HANGS

pytestmark = pytest.mark.process

METRICS = [
    {"name": name, "interval": "500ms"} for name in ("system.load", "system.uptime", "memory.usage")
]

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Device:
    """A configuration with a health endpoint, and its address."""

    def __init__(self, folder: Path, **sections: Any) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        health = {"enabled": True, "host": "127.0.0.1", "port": port, **sections.pop("health", {})}
        self.config = write_config(folder, **{"metrics": METRICS, **sections}, health=health)

    def run(self, *options: str, hooked: bool = False, **env: str) -> Twistd:
        """Start the service, and wait until it can be asked."""
        arguments = ("bela", "--config", str(self.config), *options)
        service = Twistd(*arguments, cwd=self.folder, env=env, hooked=hooked)
        service.expect_event("listener.opened")
        return service

    def get(self, path: str = "/health") -> tuple[int, Any]:
        """Ask, and return the status code and the JSON document."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=TIMEOUT) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def until(self, status: str) -> tuple[int, Any]:
        """Ask until the status is this."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            code, found = self.get()
            if found["status"] == status:
                return code, found
            assert time.monotonic() < deadline, found


def uploads(**remote: Any) -> dict[str, Any]:
    """Return sections of a configuration that uploads each half second."""
    url = f"http://127.0.0.1:{free_port()}/api/v1/import"
    return {
        "remote": {"enabled": True, "url": url, "upload_interval": "500ms", **remote},
        "monitoring": {"clock_hold": "100ms", "self_metrics_interval": "1s"},
    }


def test_all_is_well(tmp_path: Path) -> None:
    """The whole document, of a service that collects and uploads."""
    device = Device(tmp_path, **uploads())
    with device.run("--with-receiver") as service:
        session = service.expect_event("agent.started")["session_id"]
        service.expect_event("upload.completed")
        code, found = device.until("ok")
        assert device.get("/health/ready")[0] == device.get("/health/live")[0] == 200
        assert service.stop() == 0
    assert (code, found["reasons"]) == (200, [])
    assert (found["version"], found["device_id"]) == (__version__, "test-device")
    assert (found["pid"], found["session_id"]) == (service.process.pid, session)
    assert found["collectors"].keys() == {metric["name"] for metric in METRICS}
    for collector in found["collectors"].values():
        assert collector["status"] == "ok"
        assert collector["metrics_collected"] > 0
        assert RFC_3339.fullmatch(collector["last_collection"])
    assert found["uploader"]["metrics_uploaded"] > 0
    assert RFC_3339.fullmatch(found["uploader"]["last_upload"])
    assert found["storage"]["database_size_bytes"] > 0
    assert RFC_3339.fullmatch(found["storage"]["oldest_metric_timestamp"])
    assert found["storage"]["lock"] == {"path": str(tmp_path / "metrics.db.lock"), "held": True}
    assert isinstance(found["time"]["skew_ms"], int)
    assert found["time"]["trusted"]


def test_metrics(tmp_path: Path) -> None:
    """The machine's values as of now, and the agent's own."""
    device = Device(tmp_path, **uploads())
    with device.run("--with-receiver") as service:
        service.expect_event("upload.completed")
        with urllib.request.urlopen(f"{device.url}/metrics", timeout=TIMEOUT) as answer:
            text = answer.read().decode()
        assert service.stop() == 0
    names = set(re.findall(r"^([a-z]\w*?)(?:_bucket|_sum|_count)?[{ ]", text, re.MULTILINE))
    host = {
        entry.prometheus_name
        for entry in HOST.values()
        if SOURCE_OF[entry.name] in device_metrics()
    }
    own = {
        entry.prometheus_name
        for stored, entry in SELF.items()
        if not stored.startswith("storage.wal_")
    }
    assert host | own <= names
    assert re.search(r"^memory_total_bytes \d", text, re.MULTILINE)


def device_metrics() -> set[str]:
    """Return the collectors that run here."""
    return {metric["name"] for metric in METRICS}


def test_a_dead_uplink(tmp_path: Path) -> None:
    """Degraded after a while, an error after a longer one; each reason names what is wrong."""
    device = Device(
        tmp_path,
        **uploads(),
        health={
            "degraded_threshold": {"pending_metrics": 1, "upload_age_seconds": 1},
            "error_threshold": {"pending_metrics": 10, "upload_age_seconds": 2},
        },
    )
    with device.run() as service:
        service.expect_event("Upload chunk failed, retrying")
        code, found = device.until("degraded")
        assert code == 200
        assert device.get("/health/ready")[0] == 503
        code, found = device.until("error")
        assert code == 503
        assert device.get("/health/live")[0] == 200
        assert service.stop() == 0
    assert found["uploader"]["status"] == "error"
    assert found["uploader"]["last_upload"] is None
    assert found["uploader"]["upload_failures"] > 0
    (reason,) = found["reasons"]
    assert reason.startswith("uploader: no upload for ")
    assert "refused" in reason


def test_a_failing_collector(tmp_path: Path) -> None:
    """One of several is degraded, all of them an error."""
    proc = tmp_path / "proc"
    proc.mkdir()
    for name, text in (("loadavg", "0.10 0.20 0.30 1/200 300\n"), ("uptime", "5.00 4.00\n")):
        (proc / name).write_text(text)
    device = Device(tmp_path, paths={"procfs": str(proc)})
    with device.run() as service:
        service.expect_event("Collection failed")
        code, found = device.until("degraded")
        assert code == 200
        assert found["collectors"]["memory.usage"]["status"] == "error"
        assert found["collectors"]["system.load"]["status"] == "ok"
        assert found["reasons"][0].startswith("collector memory.usage: ")
        assert "meminfo" in found["collectors"]["memory.usage"]["last_error"]
        for name in ("loadavg", "uptime"):
            (proc / name).unlink()
        code, found = device.until("error")
        assert code == 503
        assert found["reasons"][0] == "collectors: all are failing"
        assert service.stop() == 0


def test_a_hidden_source(tmp_path: Path) -> None:
    """It degrades, with what hides it and the cure; once it can be seen to be absent, all is well.

    Items beyond a limit are named.
    """
    sys = tmp_path / "sys"
    metrics = [
        {"name": "cpu.temperature", "interval": "100ms"},
        {"name": "network.traffic", "config": {"include_ifaces": [".*"], "max_interfaces": 1}},
    ]
    board = FIXTURES / "orangepi5plus" / "proc"
    paths = {"procfs": str(board), "sysfs": str(sys)}
    device = Device(tmp_path, metrics=metrics, paths=paths)
    with device.run() as service:
        hidden = service.expect_event("collector.hidden")
        code, found = device.until("degraded")
        assert code == 200
        source = found["collectors"]["cpu.temperature"]
        assert (source["status"], source["state"]) == ("degraded", "hidden")
        assert source["reason"].startswith(f"{sys}/class: ")
        assert source["cure"] == hidden["cure"] == UNMOUNTED_CURE
        assert any(
            one.startswith("collector cpu.temperature: its source is hidden: ")
            for one in found["reasons"]
        )
        assert "eth0" in found["collectors"]["network.traffic"]["left_out"]
        (sys / "class").mkdir(parents=True)
        code, found = device.until("ok")
        source = found["collectors"]["cpu.temperature"]
        assert (source["state"], source["last_error"]) == ("absent", None)
        assert source["reason"] == f"{sys}/class/thermal has no thermal zone"
        assert service.stop() == 0


def test_it_answers_while_the_database_does_not(tmp_path: Path) -> None:
    """Every answer comes from memory: nothing releases the thread before all are there."""
    device = Device(tmp_path)
    with device.run(hooked=True) as service:
        service.expect_event("Metrics collected")
        service.process.send_signal(signal.SIGUSR1)
        service.expect(HANGS)
        for path in ("/health", "/health/live", "/health/ready") * 20:
            device.get(path)
        with urllib.request.urlopen(f"{device.url}/metrics", timeout=TIMEOUT) as answer:
            answer.read()
        service.process.send_signal(signal.SIGUSR2)
        assert service.stop() == 0


def test_it_answers_while_the_database_is_opened(tmp_path: Path) -> None:
    """A migration may take minutes: it is not ready, and says what it does."""
    device = Device(tmp_path)
    with device.run(hooked=True, BELA_HANG_FIRST="1") as service:
        code, found = device.get()
        assert device.get("/health/ready")[0] == 503
        assert (code, found["status"]) == (200, "degraded")
        assert found["storage"]["opening"] == "is being opened"
        assert found["reasons"] == ["storage: the database is being opened"]
        service.process.send_signal(signal.SIGUSR2)
        assert device.until("ok")[1]["storage"]["opening"] is None
        assert service.stop() == 0


def test_a_lock_that_was_deleted(tmp_path: Path) -> None:
    """A second instance could start: health says so."""
    device = Device(tmp_path)
    with device.run() as service:
        device.until("ok")
        (tmp_path / "metrics.db.lock").unlink()
        code, found = device.get()
        assert service.stop() == 0
    assert (code, found["status"]) == (200, "degraded")
    assert not found["storage"]["lock"]["held"]
    assert found["reasons"][0].startswith(f"storage: {tmp_path / 'metrics.db.lock'} ")


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """The start ends in one line with the address, before anything is done to the database."""
    device = Device(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    port = int(device.url.rpartition(":")[2])
    second = write_config(other, health={"enabled": True, "port": port})
    with device.run() as service:
        with Twistd("bela", "--config", str(second), cwd=other) as late:
            refusal = late.expect_event("Start failed: health: cannot listen")
            assert late.wait() == 1
        assert service.stop() == 0
    assert f"127.0.0.1:{port}" in refusal["msg"]
    assert not (other / "metrics.db").exists()


def test_an_unknown_address(tmp_path: Path) -> None:
    """It is 404, as JSON."""
    device = Device(tmp_path)
    with device.run() as service:
        for path in ("/nothing", "/health/", "/metrics/x"):
            code, found = device.get(path)
            assert (code, found.keys()) == (404, {"error"})
        assert service.stop() == 0
