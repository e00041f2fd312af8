"""A real VictoriaMetrics on loopback, and a proxy before it that counts bytes."""

import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.harness import UnavailableError, stop, wait_until

PROGRAM = "victoria-metrics"

_INSERTED = re.compile(r'^vm_rows_inserted_total\{type="vmimport"\} (\d+)', re.MULTILINE)


def free_port() -> int:
    """Return a TCP port on loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Victoria:
    """A running server.

    :ivar port: where it listens, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str) -> str:
        """Fetch a page; return nothing while the server does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                text: bytes = answer.read()
                return text.decode()
        except (URLError, OSError):
            return ""

    def rows(self) -> int:
        """Return how many samples the server has accepted through ``/api/v1/import``."""
        found = _INSERTED.search(self.get("/metrics"))
        return int(found[1]) if found else 0


@contextmanager
def victoria(where: Path) -> Iterator[Victoria]:
    """Run a server.

    :param where: its data goes below.
    :raises UnavailableError: when the program is not installed.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise UnavailableError(f"{PROGRAM} is not installed (Debian's package has that name)")
    server = Victoria(free_port())
    process = subprocess.Popen(
        [
            program,
            f"-storageDataPath={where / 'victoria'}",
            f"-httpListenAddr=127.0.0.1:{server.port}",
            "-retentionPeriod=100y",
            "-dedup.minScrapeInterval=1ms",
            "-loggerLevel=ERROR",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: bool(server.get("/health")), seconds=20, what=f"{PROGRAM} on its port")
        yield server
    finally:
        stop(process)


class Proxy:
    """Forwards TCP connections and counts the payload of both directions.

    :param target: the server's port.
    :param round_trip: seconds by which every answer is delayed.
    :ivar port: where it listens, on 127.0.0.1.
    :ivar bytes: bytes forwarded so far.
    :ivar began: the time of the first upload on the monotonic clock; ``None`` before that.
    """

    def __init__(self, target: int, *, round_trip: float = 0.0) -> None:
        self._target = target
        self._round_trip = round_trip
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.bytes = 0
        self.began: float | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        """The import endpoint behind the proxy."""
        return f"http://127.0.0.1:{self.port}/api/v1/import"

    def close(self) -> None:
        """Accept no more connections; open ones end when either side closes."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way in ((client, server, 0.0), (server, client, self._round_trip)):
                threading.Thread(target=self._pass, args=way, name="proxy", daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                with self._lock:
                    self.bytes += len(piece)
                    if self.began is None and piece.startswith(b"POST "):
                        self.began = time.monotonic()
                if delay:
                    time.sleep(delay)  # An answer of the import endpoint is one piece.
                sink.sendall(piece)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()


@contextmanager
def proxy(server: Victoria, *, round_trip: float = 0.0) -> Iterator[Proxy]:
    """Run a proxy before a server."""
    made = Proxy(server.port, round_trip=round_trip)
    try:
        yield made
    finally:
        made.close()
