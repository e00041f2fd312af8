"""The uploader as a service: it runs a cycle at each interval, never two at a time."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event
from belatwist.upload import ImportClient
from belatwist.upload.delivery import Delivery
from belatwist.upload.wakeup import Wakeup

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

GRACE = 5.0
"""Seconds for which the agent waits for the answer to a request in flight when it stops."""

STARTED = Event(
    "upload.started", LogLevel.info, "Uploads to {endpoint} every {interval:g} s started"
)
CANCELLED = Event(
    "upload.cancelled", LogLevel.info, "Upload cancelled without an answer, because the agent stops"
)


class Uploader(Service):
    """Runs upload cycles at an interval.

    :param delivery: runs a cycle.
    :param client: closed when the service stops.
    :param wakeup: sleeps between two cycles; when it rings, a cycle begins at once.
    :param reactor: the clock of the intervals.
    :param interval: seconds between the beginnings of two cycles.
    :param random: returns numbers from 0 to 1.
    """

    log = Logger()
    name = "uploader"

    def __init__(
        self,
        delivery: Delivery,
        client: ImportClient,
        wakeup: Wakeup,
        *,
        reactor: "IReactorTime",
        interval: float,
        random: Callable[[], float],
    ) -> None:
        self._delivery = delivery
        self._client = client
        self._wakeup = wakeup
        self._reactor = reactor
        self._interval = interval
        self._random = random
        self._running: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin to upload."""
        super().startService()
        STARTED.emit(self.log, endpoint=self._client.endpoint, interval=self._interval)
        self._delivery.progress.started()
        self._running = Deferred.fromCoroutine(self._run())

    def stopService(self) -> "Deferred[None]":
        """Stop. A request in flight has :data:`GRACE` seconds to be answered and recorded."""
        super().stopService()
        self._wakeup.stop()
        return Deferred.fromCoroutine(self._stopped())

    async def _stopped(self) -> None:
        if self._running is not None:
            timer = self._reactor.callLater(GRACE, self._running.cancel)
            await self._running
            if timer.active():
                timer.cancel()
        await self._client.close()

    async def _run(self) -> None:
        """Run cycles until the service stops. A cycle that outlasts the interval skips the next.

        The first one comes at a random moment of an interval, and nothing hastens it. Devices that
        are switched on together would otherwise upload at the same moments ever after.
        """
        await self._wakeup.sleep(self._random() * self._interval, can_ring=False)
        due = self._reactor.seconds()
        while not self._wakeup.stopped:
            await self._cycle()
            late = self._reactor.seconds() - due
            # A timer may fire a rounding error before the moment that it was set for.
            due += self._interval * max(1, late // self._interval + 1)
            if await self._wakeup.sleep(max(0.0, due - self._reactor.seconds())):
                due = self._reactor.seconds()

    async def _cycle(self) -> None:
        """Run a cycle; whatever it raises, the next one comes."""
        try:
            await self._delivery.run()
        except CancelledError:
            CANCELLED.emit(self.log)
        except Exception as error:  # noqa: BLE001 - the loop goes on
            self._delivery.progress.broke(error)
        else:
            self._delivery.progress.ran()
