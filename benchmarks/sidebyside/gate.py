"""A gate before the server, which counts bytes, and which a benchmark closes and opens."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.server import free_port


class Gate:
    """Forwards TCP connections and counts the payload of both directions.

    A closed gate refuses connections, as a host does where nothing listens. It keeps its port.

    :param target: the server's port.
    :ivar port: where it listens, on 127.0.0.1.
    :ivar bytes: bytes forwarded so far.
    :ivar began: the time of the first request since it was opened, on the monotonic clock; ``None``
        before that.
    :ivar answers: for each answer since it was opened, its time on the monotonic clock and the
        bytes forwarded by then.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.socket()
        # A port that was asked for by its number stays bound when the socket ceases to listen; it
        # listens again beside what is left of old connections.
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", free_port()))
        self.port = int(self._listening.getsockname()[1])
        self.bytes = 0
        self.began: float | None = None
        self.answers: list[tuple[float, int]] = []
        self._passing: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._accepting: threading.Thread | None = None

    def open(self) -> None:
        """Accept connections."""
        self.began = None
        self.answers = []
        self._listening.listen(64)
        self._accepting = threading.Thread(target=self._accept, name="gate", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Cut open connections, and refuse new ones."""
        with suppress(OSError):  # It did not listen.
            self._listening.shutdown(socket.SHUT_RDWR)
        if self._accepting is not None:
            self._accepting.join()  # No connection gets in behind what is cut now.
        with self._lock:
            for one in self._passing:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Close the gate and release its port."""
        self.close()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._passing |= {client, server}
            for way in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=way, name="gate", daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                with self._lock:
                    self.bytes += len(piece)
                    if piece.startswith(b"HTTP/"):
                        self.answers.append((time.monotonic(), self.bytes))
                    elif self.began is None and piece.startswith(b"POST "):
                        self.began = time.monotonic()
                sink.sendall(piece)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._passing.discard(source)
        source.close()


@contextmanager
def gate(target: int) -> Iterator[Gate]:
    """Run an open gate before a server."""
    made = Gate(target)
    made.open()
    try:
        yield made
    finally:
        made.end()
