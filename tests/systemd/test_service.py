"""The service under a real systemd, with all its hardening: one boot for all of these tests."""

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.certificates import Authority
from tests.systemd.machine import Machine

pytestmark = pytest.mark.process

UNIT = "metrics-collector.service"
PYTHON = "/opt/belatwist/bin/python"
CONFIG = "/etc/belabox-metrics/config.yaml"
DATABASE = "/var/lib/belabox-metrics/metrics.db"
DROP_IN = f"/etc/systemd/system/{UNIT}.d"

INTERVALS = {
    "cpu.usage": {},
    "memory.usage": {},
    "disk.io": {"config": {"allowed_devices": "[a-z].*"}},
    "filesystem.usage": {},
    "network.traffic": {},
    "system.load": {},
    "system.uptime": {},
}

# The same waits as in the field, shortened.
HASTE = """\
[Service]
WatchdogSec=3s
RestartSec=200ms
"""


# What accepts everything, over TLS.
TLS_SERVER = """\
import http.server, ssl

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/server.pem")
server = http.server.HTTPServer(("127.0.0.1", 9443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def configuration(**sections: Any) -> str:
    """Return a configuration that collects and uploads every second."""
    return yaml.safe_dump(
        {
            "device": {"id": "box"},
            "storage": {"path": DATABASE},
            "remote": {
                # By its name, which the service has to look up.
                "url": "http://localhost:9090/api/v1/import",
                "upload_interval": "1s",
                **sections.pop("remote", {}),
            },
            "monitoring": {"clock_skew_url": "http://localhost:9090/health"},
            "metrics": [
                {"name": name, "interval": "1s", **more} for name, more in INTERVALS.items()
            ],
            **sections,
        }
    )


class Service:
    """The installed service."""

    def __init__(self, box: Machine) -> None:
        self.box = box

    def ctl(self, verb: str) -> None:
        """Run ``systemctl``; that must succeed."""
        self.box.run("systemctl", verb, UNIT)

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.box.show(UNIT, name)

    @property
    def pid(self) -> str:
        """The process, ``0`` when there is none."""
        return self.show("MainPID")

    def log(self) -> str:
        """Return what the journal has from the service, and about it."""
        return self.box.journal("--unit", UNIT)

    def rows(self, query: str) -> list[list[Any]]:
        """Ask the database."""
        code = (
            "import json, sqlite3, sys; print(json.dumps(sqlite3.connect("
            f"'file:{DATABASE}?mode=ro', uri=True).execute(sys.argv[1]).fetchall()))"
        )
        user = ("setpriv", "--reuid=metrics", "--regid=metrics", "--clear-groups")
        found: list[list[Any]] = json.loads(self.box.run(*user, PYTHON, "-c", code, query))
        return found

    def samples(self) -> set[tuple[Any, ...]]:
        """Return every sample that is stored."""
        columns = "timestamp_ms, metric_name, tags, metric_value"
        return {tuple(row) for row in self.rows(f"SELECT {columns} FROM metrics")}

    def sessions(self) -> list[str]:
        """Return how the sessions ended, in their order."""
        return [row[0] for row in self.rows("SELECT status FROM sessions ORDER BY number")]

    def collecting(self) -> bool:
        """Tell whether something has been stored in the session that is active."""
        active = "SELECT session_id FROM sessions WHERE status = 'active'"
        return bool(self.rows(f"SELECT 1 FROM metrics WHERE session_id IN ({active}) LIMIT 1"))

    def until_restarted(self, old: str) -> None:
        """Wait until another process runs, is ready, and collects."""
        self.box.until(
            lambda: self.pid not in {"0", old} and self.show("SubState") == "running",
            "the service has been restarted",
        )
        self.box.until(self.collecting, "the restarted service collects")


def start_receiver(box: Machine) -> None:
    """Start the server."""
    box.run(
        *("systemd-run", "--quiet", "--unit=receiver", "/opt/belatwist/bin/twistd"),
        *("--nodaemon", "--pidfile=", "bela-receiver", "--port", "9090"),
    )


@pytest.fixture(scope="module")
def box(package: Path) -> Iterator[Machine]:
    """A machine with the package, a configuration, an interface that counts, and a server."""
    with Machine(package.parent) as box:
        box.run("ip", "link", "add", "usb0", "type", "veth", "peer", "name", "far0")
        box.run("dpkg", "--install", f"/mnt/{package.name}")
        box.write(CONFIG, configuration())
        box.write(f"{DROP_IN}/haste.conf", HASTE)
        box.run("systemctl", "daemon-reload")
        start_receiver(box)
        yield box


@pytest.fixture
def service(box: Machine) -> Service:
    """The service, running; its restarts by other tests do not count."""
    service = Service(box)
    box.run("systemctl", "reset-failed")
    if service.show("ActiveState") != "active":
        service.ctl("start")
    box.until(service.collecting, "the service collects")
    return service


def test_active_when_ready(service: Service) -> None:
    """``systemctl start`` ends when the database is open and the health port listens."""
    service.ctl("stop")
    service.ctl("start")
    assert service.show("ActiveState") == "active"
    assert service.show("SubState") == "running"
    assert service.show("Type") == "notify"
    assert service.sessions()[-1] == "active"
    live = (
        "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9100/health/live').status)"
    )
    assert service.box.run(PYTHON, "-c", live) == "200"


def test_status_line(service: Service) -> None:
    """``systemctl status`` shows the state in one line."""
    service.box.until(lambda: service.show("StatusText") != "", "a status is reported")
    shown = service.box.run("systemctl", "status", "--no-pager", UNIT)
    assert re.search(r'^ +Status: "\S.+"$', shown, re.MULTILINE), shown


def test_metrics_come_from_the_real_proc(service: Service) -> None:
    """Under all the hardening, what is collected is what this machine's ``/proc`` says."""
    service.box.until(
        lambda: bool(service.rows("SELECT 1 FROM metrics WHERE metric_name = 'cpu.usage_percent'")),
        "the usage of the processors, which takes two readings",
    )
    found = {
        (name, json.loads(tags).get("interface", "")): value
        for name, tags, value in service.rows(
            "SELECT metric_name, tags, metric_value FROM metrics ORDER BY id"
        )
    }
    total = re.search(r"MemTotal: +(\d+) kB", service.box.run("cat", "/proc/meminfo"))
    assert total is not None
    assert found["memory.total_bytes", ""] == int(total[1]) * 1024
    uptime = float(service.box.run("cat", "/proc/uptime").split()[0])
    assert uptime - 30 < found["system.uptime_seconds", ""] <= uptime
    assert ("system.load_1m", "") in found
    assert ("network.rx_bytes_total", "usb0") in found
    disks = service.box.run("cat", "/proc/diskstats")
    assert any(name == "disk.read_bytes_total" for name, _ in found) == bool(disks)
    cores = service.rows("SELECT DISTINCT tags FROM metrics WHERE metric_name='cpu.usage_percent'")
    online = re.findall(r"^cpu\d+", service.box.run("cat", "/proc/stat"), re.MULTILINE)
    assert len(cores) == len(online) + 1


def test_the_sandbox_makes_no_file_system_read_only(service: Service) -> None:
    """The unit's own mounts are read-only; the metric is about the file system itself."""
    assert service.show("ProtectSystem") == "strict"
    service.box.until(
        lambda: bool(service.rows("SELECT 1 FROM metrics WHERE metric_name LIKE 'filesystem.%'")),
        "how full a file system is",
    )
    readonly = service.rows(
        "SELECT DISTINCT metric_value FROM metrics WHERE metric_name = 'filesystem.readonly'"
    )
    assert [list(row) for row in readonly] == [[0.0]]


def test_data_is_the_users_own(service: Service) -> None:
    """The data belongs to the user ``metrics``, and no other user can read it."""
    listing = service.box.run("sh", "-c", "stat -c '%U:%G %a' ${1%/*} $1*", "stat", DATABASE)
    assert {line.split()[0] for line in listing.splitlines()} == {"metrics:metrics"}
    modes = [int(line.split()[1], 8) for line in listing.splitlines()]
    assert not any(mode & 0o027 for mode in modes)
    status = service.box.run("cat", f"/proc/{service.pid}/status")
    uid = service.box.run("id", "-u", "metrics")
    assert f"\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    assert "\nSeccomp:\t2\n" in status


def test_uploads_reach_a_server(service: Service) -> None:
    """Collected samples arrive, and are marked."""
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9090/api/v1/series').read().decode())"

    def arrived() -> bool:
        return "cpu_usage_percent" in service.box.run(PYTHON, "-c", fetch)

    service.box.until(arrived, "the server has samples")
    assert '"box"' in service.box.run(PYTHON, "-c", fetch)
    service.box.until(
        lambda: bool(service.rows("SELECT 1 FROM metrics WHERE uploaded = 1")),
        "the samples are marked",
    )


def test_uploads_reach_a_server_over_tls(service: Service, tmp_path: Path) -> None:
    """The hardening leaves what TLS takes: a certificate is looked at by code made at run time."""
    box = service.box
    authority = Authority(tmp_path / "ca")
    authority.server()
    box.write("/srv/server.pem", (tmp_path / "ca" / "server.pem").read_text())
    box.write("/srv/server.py", TLS_SERVER)
    box.write("/etc/belabox-metrics/ca.pem", authority.file.read_text())
    box.run("systemd-run", "--quiet", "--unit=tls-server", PYTHON, "/srv/server.py")
    remote = {
        "url": "https://localhost:9443/api/v1/import",
        "tls_ca_file": "/etc/belabox-metrics/ca.pem",
    }
    service.ctl("stop")
    try:
        box.write(CONFIG, configuration(remote=remote))
        service.ctl("start")
        active = "SELECT session_id FROM sessions WHERE status = 'active'"
        uploaded = f"SELECT 1 FROM metrics WHERE uploaded = 1 AND session_id IN ({active}) LIMIT 1"
        box.until(lambda: bool(service.rows(uploaded)), "the samples are marked")
    finally:
        box.run("systemctl", "stop", "tls-server")
        box.write(CONFIG, configuration())
        service.ctl("restart")


def test_reload_does_not_end_it(service: Service) -> None:
    """``systemctl reload`` is a SIGHUP, which the same process survives."""
    pid = service.pid
    service.ctl("reload")
    service.box.until(lambda: "SIGHUP" in service.log(), "the reload is logged")
    assert service.pid == pid


def test_the_clock_can_be_asked_and_not_set(service: Service) -> None:
    """The sandbox lets the kernel's opinion of the clock through, and nothing that sets it."""
    probe = textwrap.dedent("""\
        import time
        from belatwist.clock.sources import kernel_synchronised
        print("synchronised:", kernel_synchronised())
        try:
            time.clock_settime(time.CLOCK_REALTIME, time.time())
        except PermissionError:
            print("cannot be set")
        for path in ("/etc/probe", "/opt/belatwist/probe", "/home", "/proc/1/status", "/root/x"):
            try:
                open(path, "a")
            except OSError as error:
                print(path, type(error).__name__)
        """)
    box = service.box
    box.write("/opt/probe.py", probe)
    unit = box.run("systemctl", "cat", UNIT)
    unit = re.sub("(?m)^ExecStart=.*", f"ExecStart={PYTHON} /opt/probe.py", unit)
    unit = re.sub("(?m)^(Type|Restart|WatchdogSec|CPUQuota)=.*", "", unit)
    box.write("/run/systemd/system/probe.service", unit + "\n[Service]\nType=oneshot\n")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "probe")
    said = box.journal("--unit", "probe.service")
    assert re.search("synchronised: (True|False)\n", said), said
    assert "cannot be set\n" in said
    assert "/etc/probe OSError" in said
    assert "/opt/belatwist/probe OSError" in said
    assert "/proc/1/status FileNotFoundError" in said


def test_a_token_as_a_credential(service: Service) -> None:
    """A token that only root can read reaches the service by ``LoadCredential=``."""
    box = service.box
    service.ctl("stop")
    try:
        box.write("/etc/belabox-metrics/api-token", "s3cret\n")
        box.run("chmod", "600", "/etc/belabox-metrics/api-token")
        box.write(
            f"{DROP_IN}/token.conf",
            "[Service]\nLoadCredential=api-token:/etc/belabox-metrics/api-token\n",
        )
        token = f"/run/credentials/{UNIT}/api-token"
        box.write(CONFIG, configuration(remote={"auth_token_file": token}))
        box.run("systemctl", "daemon-reload")
        service.ctl("start")
        assert service.show("SubState") == "running"
        assert "s3cret" not in service.log()
    finally:
        box.run("rm", f"{DROP_IN}/token.conf")
        box.write(CONFIG, configuration())
        box.run("systemctl", "daemon-reload")
        service.ctl("restart")


def test_a_hung_process_is_restarted(service: Service) -> None:
    """SIGSTOP: the watchdog ends the process, says where it was, and another one runs."""
    old = service.pid
    service.box.run("kill", "-STOP", old)
    service.until_restarted(old)
    log = service.log()
    assert "Watchdog timeout" in log
    assert "Fatal Python error: Aborted" in log
    assert service.sessions()[-2:] == ["failed", "active"]


def test_a_killed_process_is_restarted_without_loss(service: Service) -> None:
    """``kill -9``: another one runs, nothing that was stored is lost, all of it is uploaded."""
    old = service.pid
    before = service.samples()
    service.box.run("kill", "-KILL", old)
    service.until_restarted(old)
    assert before <= service.samples()
    assert service.sessions()[-2:] == ["failed", "active"]
    (newest,) = max((row[:1] for row in before), default=(0,))
    pending = f"SELECT 1 FROM metrics WHERE uploaded <> 1 AND timestamp_ms <= {newest} LIMIT 1"
    service.box.until(lambda: not service.rows(pending), "what was pending is uploaded")


def test_a_missing_server_is_no_reason_to_restart(service: Service) -> None:
    """Without a server the same process goes on for more than two intervals of the watchdog."""
    pid = service.pid
    newest = "SELECT max(timestamp_ms) FROM metrics"
    service.box.run("systemctl", "stop", "receiver")
    try:
        (began,) = service.rows(newest)[0]
        service.box.until(
            lambda: service.rows(newest)[0][0] > began + 7000, "seven more seconds are collected"
        )
        assert service.pid == pid
        assert service.show("SubState") == "running"
    finally:
        start_receiver(service.box)


def test_memory_is_below_the_limit(service: Service) -> None:
    """It takes less memory than the level at which it would be slowed down."""
    high = int(service.show("MemoryHigh"))
    assert (high, int(service.show("MemoryMax"))) == (150 << 20, 200 << 20)
    status = service.box.run("cat", f"/proc/{service.pid}/status")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    assert int(peak[1]) << 10 < high
    current = service.show("MemoryCurrent")
    assert not current.isdecimal() or int(current) < high


def test_stop_ends_the_session(service: Service) -> None:
    """``systemctl stop`` takes less than 10 s, and the session is complete."""
    service.ctl("stop")
    assert service.show("Result") == "success"
    assert service.sessions()[-1] == "completed"
    times = [
        int(service.show(f"{edge}TimestampMonotonic")) for edge in ("ActiveExit", "InactiveEnter")
    ]
    assert 0 < times[1] - times[0] < 10e6


def test_a_wrong_configuration(service: Service) -> None:
    """The start fails, the journal has the reason in one line, and that is all."""
    box = service.box
    service.ctl("stop")
    box.write(CONFIG, configuration(remote={"uploads_interval": "1s"}))
    try:
        assert box.try_("systemctl", "start", UNIT).returncode != 0
        box.until(lambda: service.show("ActiveState") == "failed", "it is given up")

        # By its identifier: the process is gone before the journal can ask for its name.
        def said() -> list[str]:
            lines = box.journal("-t", "metrics-collector").splitlines()
            ends = [n for n, line in enumerate(lines) if "Server Shut Down" in line]
            return lines[ends[-1] + 1 :]

        box.until(lambda: bool(said()), "the reason is in the journal")
        (reason,) = said()
        assert "remote.uploads_interval" in reason
        assert CONFIG in reason
        assert service.show("ExecMainStatus") == "78"
    finally:
        box.write(CONFIG, configuration())


def test_nothing_is_said_about_plugins(service: Service) -> None:
    """The installation cannot be written, and Twisted has no wish to."""
    assert "dropin" not in service.log()
    assert "plugin" not in service.log().lower()
