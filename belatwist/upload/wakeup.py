"""Lets the upload loop sleep until its time is over, or the server is back, or the agent stops."""

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class Wakeup:
    """Lets the upload loop sleep between two cycles, and between two attempts to send a body.

    There is one sleep at a time, because a cycle runs within the loop.

    :ivar stopped: whether the agent stops. No sleep lasts from then on.
    """

    def __init__(self, reactor: "IReactorTime") -> None:
        self._reactor = reactor
        self._sleep: Deferred[bool] | None = None
        self._can_ring = False
        self.stopped = False

    async def sleep(self, seconds: float, *, can_ring: bool = True) -> bool:
        """Sleep, until :meth:`ring` or :meth:`stop` ends it or the time is over.

        :param can_ring: whether :meth:`ring` may end it.
        :return: whether :meth:`ring` has ended it.
        """
        if self.stopped:
            return False
        self._sleep, self._can_ring = Deferred(), can_ring
        timer = self._reactor.callLater(seconds, self._sleep.callback, False)
        try:
            return await self._sleep
        finally:
            self._sleep = None
            if timer.active():
                timer.cancel()

    def ring(self) -> None:
        """End the present sleep, if there is one that may be ended."""
        if self._sleep is not None and self._can_ring:
            self._sleep.callback(True)

    def stop(self) -> None:
        """End the present sleep and all later ones."""
        self.stopped = True
        if self._sleep is not None:
            self._sleep.callback(False)
