"""The proxy that goes down for an hour, and the real server behind it."""

import gzip
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Literal

from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

Down = Literal["refuses", "seconds", "date"]
"""How it behaves while it is down: it refuses connections, or answers 503 with a ``Retry-After`` in
either form.
"""

ASKED = 300
"""Seconds of the ``Retry-After`` in its first form."""

_TIMESTAMPS = b'"timestamps":['


class Server:
    """The real server. It gets one request after another, timed by the real clock.

    :ivar seconds: how long each request took.
    """

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self.seconds: list[float] = []

    def post(self, body: bytes) -> int:
        """Send a body as devices do, and return the status."""
        begun = time.perf_counter()
        self._connection.request(
            "POST", "/api/v1/import", body, {"Content-Encoding": "gzip", "User-Agent": "belatwist"}
        )
        response = self._connection.getresponse()
        response.read()
        self.seconds.append(time.perf_counter() - begun)
        return response.status

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(slots=True)
class Seen:
    """The traffic at the proxy, by the second of simulated time.

    :ivar attempts: requests, and connections that were refused.
    :ivar connections: connections that were opened.
    :ivar samples: samples that the server has acknowledged.
    :ivar busy: real seconds that the server needed for them.
    :ivar bodies: all bodies that the server got, with the number of their samples.
    """

    attempts: Counter[int] = field(default_factory=Counter)
    connections: Counter[int] = field(default_factory=Counter)
    samples: Counter[int] = field(default_factory=Counter)
    busy: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    bodies: list[tuple[bytes, int]] = field(default_factory=list)


class Proxy:
    """Stands before the server.

    :param epoch_ms: Unix time in milliseconds when simulated time begins.
    :param down: when it goes down and when it returns, in seconds of simulated time.
    :param rate: samples that pass in a second, one request after another; ``None`` for no limit. A
        request whose device has given up waiting is dropped.
    """

    def __init__(
        self,
        server: Server,
        *,
        reactor: "IReactorTime",
        epoch_ms: int,
        down: tuple[float, float],
        answer: Down,
        rate: float | None,
    ) -> None:
        self._server = server
        self._reactor = reactor
        self._epoch_ms = epoch_ms
        self._down = down
        self._answer = answer
        self._rate = rate
        self._queue = DeferredLock()
        self.seen = Seen()

    @property
    def era(self) -> int:
        """Counts up when connections break: 0 before it was down, 1 meanwhile, 2 afterwards."""
        now = self._reactor.seconds()
        return (now >= self._down[0]) + (now >= self._down[1])

    def connect(self) -> bool:
        """Accept or refuse a connection."""
        second = int(self._reactor.seconds())
        if self.era == 1 and self._answer == "refuses":
            self.seen.attempts[second] += 1
            return False
        self.seen.connections[second] += 1
        return True

    async def take(self, body: bytes) -> tuple[int, str | None] | None:
        """Answer a request.

        :return: the status and ``Retry-After``; ``None`` for a connection that breaks.
        """
        self.seen.attempts[int(self._reactor.seconds())] += 1
        if self.era == 1:
            return None if self._answer == "refuses" else (503, self._retry_after())
        samples = count(body)
        if self._rate is not None:
            await self._queue.acquire()
            try:
                await deferLater(self._reactor, samples / self._rate)
            finally:
                self._queue.release()
        status = self._server.post(body)
        second = int(self._reactor.seconds())
        self.seen.samples[second] += samples
        self.seen.busy[second] += self._server.seconds[-1]
        self.seen.bodies.append((body, samples))
        return status, None

    def _retry_after(self) -> str:
        if self._answer == "date":
            return formatdate(self._epoch_ms / 1000 + self._down[1], usegmt=True)
        return str(ASKED)


def count(body: bytes) -> int:
    """Count the samples of a compressed body."""
    return sum(
        line.count(b",", line.rindex(_TIMESTAMPS)) + 1
        for line in gzip.decompress(body).splitlines()
    )
