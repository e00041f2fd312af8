"""A device's uplink on simulated time, and the client that sends over it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from random import Random
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from belatwist.upload.answers import HttpAnswer, classify
from belatwist.upload.http.client import IDLE_TIMEOUT
from belatwist.upload.policy import Retryable, SendResult
from benchmarks.fleet.proxy import Proxy

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

_SEGMENT = 1400  # Bytes of a TCP segment over a mobile network.
_HEADERS = 300  # Bytes of a request's headers; of an answer's as well, roughly.
_RETRANSMISSION = 0.2  # Seconds; Linux waits no less before it sends a lost segment again.
_HANDSHAKES = 2  # Round trips before the first request: TCP and TLS 1.3.
_SERVICE = 0.005  # Seconds that proxy and server take; simulated, so that runs can be repeated.


@dataclass(frozen=True, slots=True)
class Link:
    """The capacity that a modem leaves for metrics while it carries a video stream.

    :ivar round_trip: seconds.
    :ivar bandwidth: bytes a second, upwards.
    :ivar loss: the probability that a segment is lost.
    :ivar cut: the probability that the connection breaks during a request.
    """

    round_trip: float
    bandwidth: float
    loss: float = 0.01
    cut: float = 0.01

    @classmethod
    def of(cls, random: Random) -> "Link":
        """Pick a link: 50 to 150 ms, 0.5 to 4 Mbit/s."""
        return cls(random.uniform(0.05, 0.15), random.uniform(0.5e6, 4e6) / 8)

    def up(self, size: int, random: Random) -> float:
        """Return the seconds that a message takes to arrive."""
        segments = ceil(size / _SEGMENT)
        lost = sum(random.random() < self.loss for _ in range(segments))
        again = lost * (self.round_trip + _RETRANSMISSION)
        return self.round_trip / 2 + size / self.bandwidth + again


class LinkClient:
    """A :class:`belatwist.upload.ImportClient` over a simulated link.

    The client makes results as the real one does: the same function reads answers, the timeout
    covers the whole attempt, and a connection is kept for as long.

    :param now: gives Unix time in seconds.
    """

    endpoint = "https://metrics.example/api/v1/import"

    def __init__(
        self,
        link: Link,
        proxy: Proxy,
        *,
        reactor: "IReactorTime",
        random: Random,
        timeout: float,
        now: Callable[[], float],
    ) -> None:
        self._link = link
        self._proxy = proxy
        self._reactor = reactor
        self._random = random
        self._timeout = timeout
        self._now = now
        self._connection: tuple[int, float] | None = None  # The proxy's era, when last used.
        self._attempted: Callable[[bool], None] = lambda _: None

    def post(self, body: bytes) -> "Deferred[SendResult]":
        """Send a body."""
        attempt = Deferred.fromCoroutine(self._attempt(body))

        def timed_out(_result: object, seconds: float) -> SendResult:
            return Retryable(f"no answer within {seconds:g} s", error_type="TimeoutError")

        return attempt.addTimeout(self._timeout, self._reactor, timed_out)

    def watch(self, attempted: Callable[[bool], None]) -> None:
        """Set the callback that learns of each connection attempt whether it succeeded."""
        self._attempted = attempted

    def probe(self) -> "Deferred[None]":
        """Open a connection and drop it; fail when none can be opened."""
        return Deferred.fromCoroutine(self._probe())

    async def _probe(self) -> None:
        await self._pass(self._link.round_trip)
        if not self._proxy.connect():
            raise ConnectionRefusedError

    def close(self) -> "Deferred[None]":
        """Do nothing, because no connection is real."""
        return succeed(None)

    async def _attempt(self, body: bytes) -> SendResult:
        link, random = self._link, self._random
        kept, self._connection = self._connection, None
        if kept is None or not self._usable(*kept):
            await self._pass(link.round_trip)
            succeeded = self._proxy.connect()
            self._attempted(succeeded)
            if not succeeded:
                return Retryable("ConnectionRefusedError", error_type="ConnectionRefusedError")
            await self._pass(link.round_trip * (_HANDSHAKES - 1))
        # A break is as likely on the way there as on the way back, when the server has it already.
        broken, on_the_way_back = random.random() < link.cut, random.random() < 0.5
        await self._pass(link.up(_HEADERS + len(body), random))
        lost = broken and not on_the_way_back
        answer = None if lost else await self._proxy.take(body)
        await self._pass(_SERVICE + link.round_trip / 2)
        if broken or answer is None:
            return Retryable("ConnectionLost", error_type="ConnectionLost")
        self._connection = self._proxy.era, self._reactor.seconds()
        return classify(HttpAnswer(answer[0], retry_after=answer[1]), self._now())

    def _usable(self, era: int, used: float) -> bool:
        return era == self._proxy.era and self._reactor.seconds() - used < IDLE_TIMEOUT

    async def _pass(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds)
