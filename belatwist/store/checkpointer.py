"""Keeps the write-ahead log short."""

import sqlite3
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.store.database import Database
from belatwist.store.sql.wal import Checkpoint

if TYPE_CHECKING:
    from constantly import NamedConstant
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
    :ivar blocked: whether another program's transaction kept the log from being emptied then.
    """

    log = Logger()
    name = "write-ahead log"

    def __init__(
        self, database: Database, *, reactor: "IReactorTime", interval: float, limit: int
    ) -> None:
        self.last: Checkpoint | None = None
        self.blocked = False
        self._database = database
        self._reactor = reactor
        self._interval = interval
        self._limit = limit
        self._retry = 0.0
        self._trouble = ""
        self._troubles = 0
        self._troubled_since = 0.0
        self._timer: IDelayedCall | None = None
        self._current: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin: the first checkpoint comes one interval from now."""
        super().startService()
        self.log.info(
            "WAL checkpoint routine started",
            interval=self._interval,
            size_limit_mb=_mb(self._limit),
        )
        self._database.watch_writes(self._look)
        self._schedule(self._interval, _REGULAR)

    def stopService(self) -> "Deferred[None]":
        """Stop, with a last checkpoint."""
        super().stopService()
        self._database.watch_writes(None)
        return Deferred.fromCoroutine(self._stopped())

    async def _stopped(self) -> None:
        if self._current is not None:
            await self._current
        self._cancel()
        self.log.info("Running final WAL checkpoint before shutdown")
        await self.run("stopping")

    async def run(self, why: str) -> None:
        """Write the log back now; what comes of it is logged, and never raised.

        :param why: for the log.
        """
        if self._current is not None:
            await self._current
            return
        self._current = Deferred()
        trouble = await self._checkpoint(why)
        self._retry = min(max(2 * self._retry, RETRY), self._interval) if trouble else 0.0
        if self.running:
            self._schedule(self._retry or self._interval, why if trouble else _REGULAR)
        done, self._current = self._current, None
        done.callback(None)

    async def _checkpoint(self, why: str) -> str:
        """Write the log back.

        :return: what was wrong with that, so that it has to be tried again; empty if nothing was.
        """
        try:
            found = await self._database.checkpoint()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next checkpoint must come
            self._note("failed", LogLevel.error, "WAL checkpoint failed", _error(error, why))
            return self._trouble
        self.last = found
        self.blocked = found.busy
        trouble = "blocked" if found.busy else ""
        level = LogLevel.warn if found.busy else LogLevel.info
        self._note(trouble, level, "WAL checkpoint completed", _fields(found, why))
        return trouble

    def _note(
        self, trouble: str, level: "NamedConstant", event: str, fields: dict[str, object]
    ) -> None:
        """Tell how a checkpoint went: what is wrong only once, and how long it was."""
        again = bool(trouble) and trouble == self._trouble
        self.log.emit(LogLevel.debug if again else level, event, **fields)
        now = self._reactor.seconds()
        if trouble and not self._trouble:
            self._troubles, self._troubled_since = 0, now
        elif self._trouble and not trouble:
            self.log.info(
                "WAL checkpoint works again",
                seconds=round(now - self._troubled_since, 1),
                failures=self._troubles,
            )
        self._troubles += 1
        self._trouble = trouble

    def _look(self, wal_bytes: int) -> None:
        """Begin a checkpoint when the log is too large, unless a blocked one is waiting."""
        if wal_bytes >= self._limit and not self._retry and self._current is None:
            self._tell_size(LogLevel.info, "WAL size exceeds threshold, running checkpoint")
            self._begin("too large")

    def _tell_size(self, level: "NamedConstant", event: str) -> None:
        wal_bytes = self._database.wal_bytes
        self.log.emit(
            level,
            event,
            wal_size_mb=_mb(wal_bytes),
            wal_size_bytes=wal_bytes,
            limit_mb=_mb(self._limit),
        )

    def _schedule(self, seconds: float, why: str) -> None:
        self._cancel()
        self._timer = self._reactor.callLater(seconds, self._due, why)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _due(self, why: str) -> None:
        self._tell_size(LogLevel.debug, "WAL size check")
        self._begin(why)

    def _begin(self, why: str) -> None:
        Deferred.fromCoroutine(self.run(why))


def _mb(size: int) -> float:
    return round(size / (1 << 20), 1)


def _error(error: Exception, why: str) -> dict[str, object]:
    fields: dict[str, object] = {
        "error": str(error),
        "error_type": type(error).__name__,
        "why": why,
    }
    return fields if isinstance(error, sqlite3.Error) else {**fields, "log_failure": Failure(error)}


def _fields(found: Checkpoint, why: str) -> dict[str, object]:
    reduction = found.bytes_reclaimed / found.old_size if found.old_size else 0.0
    return {
        "duration_ms": round(found.duration_ms, 1),
        "old_size_mb": _mb(found.old_size),
        "new_size_mb": _mb(found.new_size),
        "bytes_reclaimed": found.bytes_reclaimed,
        "reduction_percent": round(100 * reduction, 1),
        "busy": found.busy,
        "log_frames": found.log_frames,
        "frames_checkpointed": found.frames_checkpointed,
        "why": why,
    }
