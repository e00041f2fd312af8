"""Keeps the write-ahead log (WAL) short."""

import sqlite3
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.store.database import Database
from belatwist.store.sql.wal import Checkpoint

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

RETRY = 10.0
"""Seconds after which a blocked checkpoint is tried again; each further time twice as many."""

_REGULAR = "its time has come"
_SIZE_FIELDS = ("wal_size_mb", "wal_size_bytes", "limit_mb")
_RESULT_FIELDS = (
    "duration_ms",
    "old_size_mb",
    "new_size_mb",
    "bytes_reclaimed",
    "reduction_percent",
    "busy",
    "log_frames",
    "frames_checkpointed",
    "why",
)

ROUTINE_STARTED = Event(
    "wal.routine_started",
    LogLevel.info,
    "WAL checkpoint routine started",
    fields=("interval", "size_limit_mb"),
)
SIZE_CHECKED = Event("wal.size_checked", LogLevel.debug, "WAL size check", fields=_SIZE_FIELDS)
SIZE_EXCEEDED = Event(
    "wal.size_exceeded",
    LogLevel.info,
    "WAL size exceeds threshold, running checkpoint",
    fields=_SIZE_FIELDS,
)
FINAL_CHECKPOINT = Event(
    "wal.final_checkpoint", LogLevel.info, "Running final WAL checkpoint before shutdown"
)
COMPLETED = Event(
    "wal.checkpoint_completed", LogLevel.info, "WAL checkpoint completed", fields=_RESULT_FIELDS
)
BLOCKED = Event(
    "wal.checkpoint_blocked",
    LogLevel.warn,
    "WAL checkpoint completed",
    fields=_RESULT_FIELDS,
    cure="Another program keeps the database open: fuser -v names it. End it, and the log shrinks.",
)
FAILED = Event(
    "wal.checkpoint_failed",
    LogLevel.error,
    "WAL checkpoint failed",
    fields=("error", "error_type", "why"),
    cure="Look at dmesg: the card may be failing. The agent tries again by itself.",
)
RECOVERED = Event("wal.checkpoint_recovered", LogLevel.info, "WAL checkpoint works again")


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
        self._failures = FailureLog(self.log, reactor.seconds)
        self._timer: IDelayedCall | None = None
        self._current: Deferred[None] | None = None

    def startService(self) -> None:
        """Begin: the first checkpoint comes one interval from now."""
        super().startService()
        ROUTINE_STARTED.emit(self.log, interval=self._interval, size_limit_mb=_mb(self._limit))
        self._database.watch_writes(self._check_size)
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
        FINAL_CHECKPOINT.emit(self.log)
        await self.run("stopping")

    async def run(self, why: str) -> None:
        """Write the log back now; the result is logged, and never raised.

        :param why: for the log.
        """
        if self._current is not None:
            await self._current
            return
        self._current = Deferred()
        succeeded = await self._checkpoint(why)
        self._retry = 0.0 if succeeded else min(max(2 * self._retry, RETRY), self._interval)
        if self.running:
            self._schedule(self._retry or self._interval, _REGULAR if succeeded else why)
        done, self._current = self._current, None
        done.callback(None)

    async def _checkpoint(self, why: str) -> bool:
        """Write the log back.

        :return: whether the log is empty now; otherwise it has to be tried again.
        """
        try:
            found = await self._database.checkpoint()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next checkpoint must come
            name = type(error).__name__
            self._failures.failed(
                FAILED,
                getattr(error, "sqlite_errorname", None) or name,
                failure=None if isinstance(error, sqlite3.Error) else Failure(error),
                error=str(error),
                error_type=name,
                why=why,
            )
            return False
        self.last = found
        self.blocked = found.busy
        if found.busy:
            self._failures.failed(BLOCKED, "blocked", **_fields(found, why))
            return False
        COMPLETED.emit(self.log, **_fields(found, why))
        self._failures.recovered(RECOVERED)
        return True

    def _check_size(self, wal_bytes: int) -> None:
        """Begin a checkpoint when the log is too large, unless a blocked one is waiting."""
        if wal_bytes >= self._limit and not self._retry and self._current is None:
            SIZE_EXCEEDED.emit(self.log, **self._sizes())
            self._begin("too large")

    def _sizes(self) -> dict[str, Any]:
        wal_bytes = self._database.wal_bytes
        sizes = (_mb(wal_bytes), wal_bytes, _mb(self._limit))
        return dict(zip(_SIZE_FIELDS, sizes, strict=True))

    def _schedule(self, seconds: float, why: str) -> None:
        self._cancel()
        self._timer = self._reactor.callLater(seconds, self._due, why)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _due(self, why: str) -> None:
        SIZE_CHECKED.emit(self.log, **self._sizes())
        self._begin(why)

    def _begin(self, why: str) -> None:
        Deferred.fromCoroutine(self.run(why))


def _mb(size: int) -> float:
    return round(size / (1 << 20), 1)


def _fields(found: Checkpoint, why: str) -> dict[str, Any]:
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
