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
"""What it does while it is down: refuses connections, or answers 503 with a ``Retry-After`` of
either form."""

ASKED = 300
"""Seconds of the ``Retry-After`` in its first form."""

_TIMESTAMPS = b'"timestamps":['


class Server:
    """The real server. It is asked one request after another, and timed by the real clock.

    :ivar seconds: how long each request took.
    """

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self.seconds: list[float] = []

    def post(self, body: bytes) -> int:
        """Send a body as devices do; returns the status."""
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
    """What the proxy sees, by the second of simulated time.

    :ivar attempts: requests, and connections that were refused.
    :ivar connections: those that were made.
    :ivar samples: handed to the server, which has acknowledged them.
    :ivar busy: real seconds that the server took for them.
    :ivar bodies: everything that was handed to the server, with the number of its samples.
    """

    attempts: Counter[int] = field(default_factory=Counter)
    connections: Counter[int] = field(default_factory=Counter)
    samples: Counter[int] = field(default_factory=Counter)
    busy: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    bodies: list[tuple[bytes, int]] = field(default_factory=list)


class Proxy:
    """Stands before the server.

    :param epoch_ms: Unix time in milliseconds when simulated time begins.
    :param down: seconds of simulated time: from when until when it is down.
    :param rate: samples that are taken a second, one request after another; ``None`` for all that
        come. What has waited for so long that its device gave up is dropped.
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
        """Take a connection, or refuse it."""
        second = int(self._reactor.seconds())
        if self.era == 1 and self._answer == "refuses":
            self.seen.attempts[second] += 1
            return False
        self.seen.connections[second] += 1
        return True

    async def take(self, body: bytes) -> tuple[int, str | None] | None:
        """Take a request.

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
