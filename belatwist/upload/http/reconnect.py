"""Probes a server that could not be reached, so that uploads resume as soon as it is back."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

MAX_DOUBLINGS = 4
"""Reconnects without a connection afterwards, up to which each one doubles the wait."""

SPREAD = 0.2
"""The part of a wait by which a probe comes earlier, at random, because many devices lose the same
server at once."""

PROBE_TIMEOUT = 3.5
"""Seconds after which a probe has failed. Until then TCP sends three packets."""

SERVER_REACHABLE = Event(
    "upload.server_reachable", LogLevel.debug, "Server can be reached again, uploads resume"
)


class ReconnectProbe(Service):
    """Tries to connect to a server that cannot be reached, every few seconds.

    The waits between attempts to upload protect a server that answers, but is overloaded. A server
    that cannot be reached needs no such protection: a probe costs a packet or two.

    :param connect: connects to the server and drops the connection; fails when it cannot.
    :param interval: seconds from a failed attempt to the next probe, at most.
    :param random: returns numbers from 0 to 1.
    :param reached: called when a probe has reached the server.
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
        """Stop probing."""
        super().stopService()
        self._cancel_timer()
        if self._attempt is not None:
            self._attempt.cancel()

    def connection_attempted(self, succeeded: bool) -> None:
        """Note an attempt to connect: an upload's, a clock comparison's, or a probe's.

        :param succeeded: whether there was a connection.
        """
        if succeeded:
            self._fruitless_reconnects = 0
            self._cancel_timer()
        elif self.running and self._timer is None and self._attempt is None:
            # The upload after a reconnect may fail again, because DNS is still down for example.
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
