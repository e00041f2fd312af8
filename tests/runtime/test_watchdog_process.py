"""The messages of the real program to systemd, over a real datagram socket."""

import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import TIMEOUT, Twistd, free_port, write_config

pytestmark = pytest.mark.process

INTERVAL = 1.0
"""The watchdog's, in seconds."""

EVERY_SECOND = [{"name": "system.load", "interval": "500ms"}]


class Systemd:
    """The other end of ``NOTIFY_SOCKET``, read by a thread, so that it never fills up."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = folder / "notify"
        self._socket.bind(str(path))
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(INTERVAL * 1e6))}
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self._heard.put(message.decode())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.sendto(b"", self.env["NOTIFY_SOCKET"])
        self._thread.join()
        self._socket.close()

    def heard(self) -> list[str]:
        """Return every message that has been sent since the last call, and is not returned yet."""
        # Datagrams keep their order: what was sent before this one comes before it.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
            one.sendto(b"MARK", self.env["NOTIFY_SOCKET"])
        return self.hears("MARK")[:-1]

    def hears(self, wanted: str) -> list[str]:
        """Wait for a message that begins with a text, and return all up to it."""
        heard = [self._heard.get(timeout=TIMEOUT)]
        while not heard[-1].startswith(wanted):
            heard.append(self._heard.get(timeout=TIMEOUT))
        return heard


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Listen."""
    one = Systemd(tmp_path)
    yield one
    one.close()


def test_from_start_to_stop(tmp_path: Path, systemd: Systemd) -> None:
    """It is ready when the database is there and the health port listens; then it is alive, says
    how it is, and that it stops.
    """
    port = free_port()
    config = write_config(
        tmp_path, metrics=EVERY_SECOND, health={"enabled": True, "host": "127.0.0.1", "port": port}
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path, env=systemd.env) as service:
        assert systemd.hears("READY=1")
        assert (tmp_path / "metrics.db").exists()
        socket.create_connection(("127.0.0.1", port), TIMEOUT).close()
        assert systemd.hears("WATCHDOG=1")
        assert service.stop() == 0
        heard = systemd.hears("STOPPING=1")
        assert "WATCHDOG=1" not in systemd.heard()
    assert not [one for one in heard if "\n" in one]


def withheld(service: Twistd, systemd: Systemd) -> list[str]:
    """Wait for pings to be withheld for two intervals; return the reasons. None is sent."""
    reasons = [service.expect_event("Watchdog ping withheld")["reason"]]
    systemd.heard()
    # Twenty times in an interval.
    reasons += [service.expect_event("Watchdog ping withheld")["reason"] for _ in range(40)]
    assert "WATCHDOG=1" not in systemd.heard()
    return reasons


def test_a_database_that_hangs_ends_the_pings(tmp_path: Path, systemd: Systemd) -> None:
    """Systemd would restart the process; if the database recovers by itself, the pings resume."""
    config = write_config(tmp_path, metrics=EVERY_SECOND)
    arguments = ("bela", "--config", str(config))
    with Twistd(*arguments, cwd=tmp_path, env=systemd.env, hooked=True) as service:
        assert systemd.hears("READY=1")
        assert systemd.hears("WATCHDOG=1")
        service.process.send_signal(signal.SIGUSR1)
        reasons = withheld(service, systemd)
        assert "the database has not answered" in reasons[0]
        service.process.send_signal(signal.SIGUSR2)
        service.expect_event("Watchdog pings resumed")
        assert systemd.hears("WATCHDOG=1")
        assert service.stop() == 0


def stuck(folder: Path, *names: str) -> dict[str, str]:
    """Make a /proc of which some files never answer."""
    proc = folder / "proc"
    proc.mkdir()
    for name, text in (("loadavg", "0.10 0.20 0.30 1/200 300\n"), ("uptime", "5.00 4.00\n")):
        if name in names:
            os.mkfifo(proc / name)
        else:
            (proc / name).write_text(text)
    return {"procfs": str(proc)}


def test_collectors_that_all_hang_end_the_pings(tmp_path: Path, systemd: Systemd) -> None:
    """Although the agent's own metrics, which read nothing, continue."""
    config = write_config(
        tmp_path,
        metrics=[{"name": name, "interval": "200ms"} for name in ("system.load", "system.uptime")],
        monitoring={"self_metrics_interval": "200ms"},
        paths=stuck(tmp_path, "loadavg", "uptime"),
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path, env=systemd.env) as service:
        assert systemd.hears("READY=1")
        reasons = withheld(service, systemd)
        assert "collection has not run" in reasons[0]
        assert service.stop() == 0


def test_one_that_hangs_does_not(tmp_path: Path, systemd: Systemd) -> None:
    """The fast one hangs, the slow one continues: that is no reason for a restart."""
    config = write_config(
        tmp_path,
        metrics=[
            {"name": "system.load", "interval": "200ms"},
            {"name": "system.uptime", "interval": "2s"},
        ],
        paths=stuck(tmp_path, "loadavg"),
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path, env=systemd.env) as service:
        assert systemd.hears("READY=1")
        service.expect_event("Collection failed")
        for _ in range(8):
            systemd.hears("WATCHDOG=1")
        assert service.stop() == 0
        assert "Watchdog ping withheld" not in "".join(service.log.rest())


def test_without_a_network_the_pings_go_on(tmp_path: Path, systemd: Systemd) -> None:
    """A missing server is no reason for a restart."""
    url = f"http://127.0.0.1:{free_port()}/api/v1/import"
    config = write_config(
        tmp_path,
        metrics=EVERY_SECOND,
        remote={"enabled": True, "url": url, "upload_interval": "1s"},
        monitoring={"clock_hold": "100ms"},
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path, env=systemd.env) as service:
        assert systemd.hears("READY=1")
        service.expect_event("Upload chunk failed, retrying")
        for _ in range(6):
            systemd.hears("WATCHDOG=1")
        assert service.stop() == 0
        assert "Watchdog ping withheld" not in "".join(service.log.rest())


def test_without_systemd_there_is_nothing(tmp_path: Path) -> None:
    """No variable, no socket, no timer; and the log says so once."""
    config = write_config(tmp_path, metrics=EVERY_SECOND)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("Systemd watchdog not enabled")
        service.expect_event("Metrics collected")
        assert service.stop() == 0
