"""Keeps the database within its bounds of age and size: when to delete, and how much."""

import sqlite3
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.clock.sources import WallClock
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.metrics.telemetry import Telemetry
from belatwist.store.checkpointer import Checkpointer
from belatwist.store.deleter import Deleter
from belatwist.store.sql import retention
from belatwist.store.sql.expiry import CLOCK_TRUST, ExpiryClock, Observation
from belatwist.store.sql.retention import Size
from belatwist.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

SIZE_EVERY = 60.0
"""Seconds between two looks at the database's size."""

ORPHANS_EVERY = 24 * 3600.0
"""Seconds between two searches for sessions and series without samples."""

VACUUM_PAGES = 512
"""Pages given back to the file system in one piece."""

HEADROOM = 8 << 20
"""Bytes by which a file that is too large shrinks below its limit, at most, so that it is not too
large again at once. A file keeps free pages of up to half of this."""

PASS_FAILED = Event(
    "retention.failed",
    LogLevel.error,
    "Retention failed: {error}",
    cure="Look at dmesg: the card may be failing. The next pass comes within a minute.",
)
PASSES_RECOVERED = Event("retention.recovered", LogLevel.info, "Retention works again")
FILE_SHRUNK = Event(
    "retention.file_shrunk",
    LogLevel.info,
    "Database file shrinks from {before} to {after} bytes at the next checkpoint",
)


class Pruner(Service):
    """Deletes samples that are old enough, and samples for which there is no room.

    Settled samples go first, the oldest first; then texts; then, only when the size forces it,
    pending samples, the oldest of the lowest priority first. Deleting for lack of room begins at
    the limit. It ends 5 % below it for settled samples, 1 % below it for pending ones.

    :param reactor: the timers' clock, monotonic.
    :param keep: seconds that a sample is kept after it was settled.
    :param limit: the largest size in bytes of the database with its write-ahead log.
    :param delivering: whether samples are to be uploaded: otherwise none is lost before that.
    :param telemetry: counts the deleted rows.
    """

    log = Logger()
    name = "retention"

    def __init__(
        self,
        store: SQLiteStore,
        checkpointer: Checkpointer,
        *,
        reactor: "IReactorTime",
        wall_ms: WallClock,
        keep: float,
        limit: int,
        delivering: bool,
        telemetry: Telemetry,
    ) -> None:
        self._database = store.database
        self._checkpointer = checkpointer
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._keep = keep
        self._limit = limit
        self._deleter = Deleter(
            store,
            reactor=reactor,
            delivering=delivering,
            telemetry=telemetry,
            running=lambda: bool(self.running),
        )
        self._expiry_every = min(max(keep / 24, 1.0), 3600.0)
        self._next_expiry = self._next_orphans = 0.0
        self._expiry: ExpiryClock | None = None
        self._expired = 0
        self._failures = FailureLog(self.log, reactor.seconds)
        self._current: Deferred[None] | None = None
        # The loop waits for the Deferred of its function: two passes never overlap.
        self._loop = LoopingCall(self._begin)
        self._loop.clock = reactor

    @property
    def lost_at(self) -> float | None:
        """When pending samples were last deleted, on the reactor's clock; ``None`` for never."""
        return self._deleter.lost_at

    def startService(self) -> None:
        """Begin, with a look at the size."""
        super().startService()
        self._next_expiry = self._reactor.seconds() + self._expiry_every
        self._next_orphans = self._reactor.seconds() + CLOCK_TRUST
        self._loop.start(min(SIZE_EVERY, self._expiry_every))

    def stopService(self) -> "Deferred[None]":
        """Stop; fires when the piece of work that was begun is done."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._stopped())

    async def _stopped(self) -> None:
        if self._current is not None:
            await self._current

    def _begin(self) -> "Deferred[None]":
        self._current = Deferred.fromCoroutine(self._guarded())
        return self._current

    async def _guarded(self) -> None:
        """Run a pass and log its failure, so that the loop continues."""
        try:
            await self._pass()
        except Exception as error:  # noqa: BLE001 - a LoopingCall ends for good at the first failure
            is_sqlite = isinstance(error, sqlite3.Error)
            self._failures.failed(
                PASS_FAILED,
                getattr(error, "sqlite_errorname", None) or type(error).__name__,
                failure=None if is_sqlite else Failure(),
                error=str(error),
            )
        else:
            self._failures.recovered(PASSES_RECOVERED)
        finally:
            self._current = None

    async def _pass(self) -> None:
        seconds = self._reactor.seconds()
        now = Observation(seconds, await self._newest(), self._wall_ms())
        if self._expiry is None:
            self._expiry = ExpiryClock(self._keep, now)
        if self._expiry.observe(now):
            self._expired = 0
        if seconds >= self._next_expiry:
            self._next_expiry = seconds + self._expiry_every
            settlement, before_ms = await self._database.transact(self._expiry.bounds, now)
            await self._expire(settlement, before_ms)
            if seconds >= self._next_orphans:
                self._next_orphans = seconds + ORPHANS_EVERY
                await self._deleter.delete_orphans(before_ms)
        await self._enforce_size()
        await self._vacuum()

    async def _expire(self, settlement: int, before_ms: int) -> None:
        """Delete samples and texts that are old enough."""
        why = f"older than {self._keep:g} s"
        if settlement > self._expired and await self._deleter.delete_settled(
            settlement, why, _always
        ):
            self._expired = settlement
        await self._deleter.delete_texts(before_ms, why, _always)

    async def _enforce_size(self) -> None:
        """Delete samples and texts for which there is no room."""
        if (await self._size()).used + self._database.wal_bytes <= self._limit:
            return
        if self._database.wal_bytes:
            await self._checkpointer.run("the database is too large")
        wal_bytes = self._database.wal_bytes
        why = f"the database is larger than {self._limit >> 20} MiB"

        async def delivered() -> bool:
            return (await self._size()).used + wal_bytes > 0.95 * self._limit

        async def undelivered() -> bool:
            # Without the log: a blocked one may be large, and deleting does not shrink it.
            return (await self._size()).used > 0.99 * self._limit and await self._newest() == newest

        while True:
            newest = await self._newest()
            await self._deleter.delete_settled(newest, why, delivered)
            await self._deleter.delete_texts(retention.MAX_TIMESTAMP, why, delivered)
            await self._deleter.delete_pending(why, undelivered)
            # Samples that are settled meanwhile must go before pending ones.
            if not self.running or await self._newest() == newest:
                return

    async def _vacuum(self) -> None:
        """Give free pages back, when the file is too large or has very many."""
        size = before = await self._size()
        if size.file + self._database.wal_bytes > self._limit:
            wanted = self._limit - min(self._limit // 20, HEADROOM)
        elif size.free > max(size.file // 4, HEADROOM // 2):
            wanted = size.used + size.used // 20
        else:
            return
        while self.running and size.free and size.file > wanted:
            await self._database.vacuum(VACUUM_PAGES)
            last, size = size, await self._size()
            if size.file >= last.file:
                break  # It was made by a program that did not provide for this.
            await self._deleter.pause()
        if size.file < before.file:
            FILE_SHRUNK.emit(self.log, before=before.file, after=size.file)
            await self._checkpointer.run("the file shrinks")

    def _newest(self) -> "Deferred[int]":
        return self._database.transact(retention.newest_settlement)

    def _size(self) -> "Deferred[Size]":
        return self._database.transact(retention.size)


async def _always() -> bool:
    return True
