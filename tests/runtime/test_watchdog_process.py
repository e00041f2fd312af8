"""What systemd hears of the real program, over a real datagram socket."""

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import TIMEOUT, Twistd, free_port, write_config

INTERVAL = 1.0
"""The watchdog's, in seconds."""

EVERY_SECOND = [{"name": "system.load", "interval": "500ms"}]


class Systemd:
    """The other end of ``NOTIFY_SOCKET``, read by a thread: nobody has to wait for room in it."""

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

    def forget(self) -> None:
        """Let go of what was heard so far."""
        while not self._heard.empty():
            self._heard.get()

    def hears(self, wanted: str, seconds: float = TIMEOUT) -> list[str]:
        """Wait for a message that begins with a text, and return all up to it; none if it does
        not come.
        """
        deadline = time.monotonic() + seconds
        heard = []
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self._heard.get(timeout=left)
            except queue.Empty:
                break
            heard.append(message)
            if message.startswith(wanted):
                return heard
        return []


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
        assert heard
        assert systemd.hears("WATCHDOG=1", 0.1) == []
    assert not [one for one in heard if "\n" in one]


def test_a_database_that_hangs_ends_the_pings(tmp_path: Path, systemd: Systemd) -> None:
    """The process is to be started anew; should it come round by itself, the pings go on."""
    config = write_config(tmp_path, metrics=EVERY_SECOND)
    env = {**systemd.env, "BELA_HANG": "6"}
    with Twistd("bela", "--config", str(config), cwd=tmp_path, env=env, hooked=True) as service:
        assert systemd.hears("READY=1")
        assert systemd.hears("WATCHDOG=1")
        service.process.send_signal(signal.SIGUSR1)
        withheld = service.expect_event("Watchdog ping withheld")
        systemd.forget()
        assert systemd.hears("WATCHDOG=1", 2 * INTERVAL) == []
        assert "the database has not answered" in withheld["reason"]
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
    """Though the agent's own metrics, which read nothing, go on."""
    config = write_config(
        tmp_path,
        metrics=[{"name": name, "interval": "200ms"} for name in ("system.load", "system.uptime")],
        monitoring={"self_metrics_interval": "200ms"},
        paths=stuck(tmp_path, "loadavg", "uptime"),
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path, env=systemd.env) as service:
        assert systemd.hears("READY=1")
        withheld = service.expect_event("Watchdog ping withheld")
        systemd.forget()
        assert systemd.hears("WATCHDOG=1", 2 * INTERVAL) == []
        assert "collection has not run" in withheld["reason"]
        assert service.stop() == 0


def test_one_that_hangs_does_not(tmp_path: Path, systemd: Systemd) -> None:
    """The fast one hangs, the slow one goes on: that is no reason to be started anew."""
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
        systemd.forget()
        for _ in range(8):
            assert systemd.hears("WATCHDOG=1", INTERVAL)
        assert service.stop() == 0


def test_without_a_network_the_pings_go_on(tmp_path: Path, systemd: Systemd) -> None:
    """A missing server is no reason to be started anew."""
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
        systemd.forget()
        for _ in range(6):
            assert systemd.hears("WATCHDOG=1", INTERVAL)
        assert service.stop() == 0


def test_without_systemd_there_is_nothing(tmp_path: Path) -> None:
    """No variable, no socket, no timer; and the log says so once."""
    config = write_config(tmp_path, metrics=EVERY_SECOND)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("Systemd watchdog not enabled")
        service.expect_event("Metrics collected")
        assert service.stop() == 0
