"""Keeps the write-ahead log short."""

import sqlite3
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from belatwist.store.sqlite import SQLiteStore
from belatwist.store.wal import Checkpoint

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

RETRY = 10.0
"""Seconds after which a blocked checkpoint is tried again; each further time twice as many."""

_REGULAR = "its time has come"


class Checkpointer(Service):
    """Writes the write-ahead log back: at an interval, when it is large, and when stopping.

    :param reactor: the timers' clock.
    :param interval: seconds between two checkpoints.
    :param limit: the log's size, in bytes, that makes one necessary at once.
    :ivar last: how the last checkpoint went.
    """

    log = Logger()
    name = "write-ahead log"

    def __init__(
        self, store: SQLiteStore, *, reactor: "IReactorTime", interval: float, limit: int
    ) -> None:
        self.last: Checkpoint | None = None
        self._store = store
        self._reactor = reactor
        self._interval = interval
        self._limit = limit
        self._retry = 0.0
        self._timer: IDelayedCall | None = None
        self._current: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin: the first checkpoint comes one interval from now."""
        super().startService()
        self._store.watch(self._look)
        self._schedule(self._interval, _REGULAR)

    def stopService(self) -> "Deferred[None]":
        """Stop, with a last checkpoint."""
        super().stopService()
        self._store.watch(None)
        return Deferred.fromCoroutine(self._stopped())

    async def _stopped(self) -> None:
        if self._current is not None:
            await self._current
        self._cancel()
        await self.run("stopping")

    async def run(self, why: str) -> None:
        """Write the log back now; what comes of it is logged, and never raised.

        :param why: for the log.
        """
        if self._current is not None:
            await self._current
            return
        self._current = Deferred()
        blocked = await self._checkpoint(why)
        self._retry = min(max(2 * self._retry, RETRY), self._interval) if blocked else 0.0
        if self.running:
            self._schedule(self._retry or self._interval, why if blocked else _REGULAR)
        done, self._current = self._current, None
        done.callback(None)

    async def _checkpoint(self, why: str) -> bool:
        """Write the log back, and tell whether that has to be tried again."""
        try:
            found = await self._store.checkpoint()
        except sqlite3.Error as error:
            self.log.error(
                "write-ahead log ({why}): cannot be written back: {error}",
                why=why,
                error=str(error),
            )
            return True
        except Exception:  # noqa: BLE001 - whatever it is, the next checkpoint must come
            self.log.failure("write-ahead log ({why}): cannot be written back", why=why)
            return True
        self.last = found
        (self.log.warn if found.busy else self.log.info)(
            "write-ahead log ({why}): "
            + ("another program's transaction keeps it from being emptied; " if found.busy else "")
            + "{old_size} to {new_size} bytes in {duration_ms} ms,"
            " {frames_checkpointed} of {log_frames} pages written back",
            why=why,
            duration_ms=round(found.duration_ms, 1),
            old_size=found.old_size,
            new_size=found.new_size,
            bytes_reclaimed=found.bytes_reclaimed,
            busy=found.busy,
            log_frames=found.log_frames,
            frames_checkpointed=found.frames_checkpointed,
        )
        return found.busy

    def _look(self, wal_bytes: int) -> None:
        """Begin a checkpoint when the log is too large, unless a blocked one is waiting."""
        if wal_bytes >= self._limit and not self._retry and self._current is None:
            self._begin("too large")

    def _schedule(self, seconds: float, why: str) -> None:
        self._cancel()
        self._timer = self._reactor.callLater(seconds, self._begin, why)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _begin(self, why: str) -> None:
        Deferred.fromCoroutine(self.run(why))
