"""Looks out for a server that could not be connected to, so that its return is noticed at once."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

MAX_DOUBLINGS = 4
"""Returns that came to nothing, after which it takes no longer to the next attempt."""

SPREAD = 0.2
"""The part of a wait by which an attempt comes sooner, at random: many devices lose the same
server."""

PROBE_TIMEOUT = 3.5
"""Seconds that an attempt is given: three packets, where nobody answers."""

SERVER_REACHABLE = Event(
    "upload.server_reachable", LogLevel.debug, "Server can be reached again, uploads resume"
)


class ReconnectProbe(Service):
    """While a server cannot be connected to, tries every few seconds, and tells when it can be.

    The uploader's waits spare a server that answers and cannot take samples. One that cannot be
    reached is not spared by them, and to try costs a packet or two; without a network, nothing.

    :param connect: makes a connection to the server and drops it; fails when there is none.
    :param interval: seconds from an attempt that has failed to the next one, at most.
    :param random: gives numbers from 0 to 1.
    :param reached: called when the server can be connected to again.
    """

    log = Logger()
    name = "reconnect_probe"

    def __init__(
        self,
        connect: "Callable[[], Deferred[None]]",
        *,
        reactor: "IReactorTime",
        interval: float,
        random: Callable[[], float],
        reached: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._reactor = reactor
        self._interval = interval
        self._random = random
        self._reached = reached
        self._timer: IDelayedCall | None = None
        self._attempt: Deferred[None] | None = None
        self._fruitless_reconnects = 0

    def stopService(self) -> None:
        """Stop looking."""
        super().stopService()
        self._cancel_timer()
        if self._attempt is not None:
            self._attempt.cancel()

    def connection_attempted(self, succeeded: bool) -> None:
        """Take note of an attempt to connect, whoever made it, and of whether it stood."""
        if succeeded:
            self._fruitless_reconnects = 0
            self._cancel_timer()
        elif self.running and self._timer is None and self._attempt is None:
            # Whoever was told and then found nobody, because names cannot be looked up for
            # example, is told half as often each time.
            doublings = min(self._fruitless_reconnects, MAX_DOUBLINGS)
            wait = self._interval * 2**doublings * (1 - SPREAD * self._random())
            self._timer = self._reactor.callLater(wait, self._probe)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _probe(self) -> None:
        self._timer = None
        self._attempt = self._connect().addTimeout(PROBE_TIMEOUT, self._reactor)
        self._attempt.addCallbacks(self._found, self._failed)

    def _found(self, _: object) -> None:
        self._attempt = None
        self._fruitless_reconnects += 1
        SERVER_REACHABLE.emit(self.log)
        self._reached()

    def _failed(self, _: object) -> None:
        self._attempt = None
        self.connection_attempted(succeeded=False)
