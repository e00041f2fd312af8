"""The uploader as a service: a cycle at each interval, never two at a time."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from belatwist.upload import ImportClient
from belatwist.upload.delivery import Delivery

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

GRACE = 5.0
"""Seconds that a request in flight is given at shutdown."""


class Uploader(Service):
    """Runs upload cycles at an interval.

    :param delivery: runs a cycle.
    :param client: closed when the service stops.
    :param reactor: the timers' clock.
    :param interval: seconds between the beginnings of two cycles.
    :param random: gives numbers from 0 to 1.
    """

    log = Logger()
    name = "uploader"

    def __init__(
        self,
        delivery: Delivery,
        client: ImportClient,
        *,
        reactor: "IReactorTime",
        interval: float,
        random: Callable[[], float],
    ) -> None:
        self._delivery = delivery
        self._client = client
        self._reactor = reactor
        self._interval = interval
        self._random = random
        self._first: IDelayedCall | None = None
        self._current: Deferred[None] | None = None
        # It waits for what its function returns: there are never two cycles at a time.
        self._loop = LoopingCall(self._begin)
        self._loop.clock = reactor

    def startService(self) -> None:
        """Begin: the first cycle comes at some time within an interval from now.

        Devices that are switched on together, or all begin anew, would otherwise upload at the same
        moments ever after.
        """
        super().startService()
        self.log.info(
            "samples go to {endpoint} every {interval:g} s",
            endpoint=self._client.endpoint,
            interval=self._interval,
        )
        self._delivery.progress.started()
        wait = self._random() * self._interval
        self._first = self._reactor.callLater(wait, self._loop.start, self._interval)

    def hurry(self) -> None:
        """Try at once: the server, which could not be reached, can be.

        A wait within a cycle ends; without one, a cycle begins.
        """
        if self._current is not None and not self._current.called:
            self._delivery.hurry()
        elif self._loop.running:
            self._loop.stop()
            self._loop.start(self._interval)

    def stopService(self) -> "Deferred[None]":
        """Stop; a request in flight is given :data:`GRACE` seconds to be answered and recorded."""
        super().stopService()
        if self._first is not None and self._first.active():
            self._first.cancel()
        if self._loop.running:
            self._loop.stop()
        self._delivery.stop()
        return Deferred.fromCoroutine(self._stopped())

    async def _stopped(self) -> None:
        if self._current is not None:
            timer = self._reactor.callLater(GRACE, self._current.cancel)
            await self._current
            if timer.active():
                timer.cancel()
        await self._client.close()

    def _begin(self) -> "Deferred[None]":
        self._current = Deferred.fromCoroutine(self._guarded())
        return self._current

    async def _guarded(self) -> None:
        """Run a cycle; whatever it raises, the next one comes."""
        try:
            await self._delivery.run()
        except CancelledError:
            self.log.info("upload given up: stopping")
        except Exception as error:  # noqa: BLE001 - a LoopingCall ends for good at the first failure
            self._delivery.progress.broke(error)
        else:
            self._delivery.progress.ran()
        finally:
            self._current = None
