"""Keeps the database within its bounds of age and size.

It works in small pieces through the store's one thread, whose queue is served in order: whatever is
collected meanwhile waits for one piece at most.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger, LogLevel

from belatwist.clock.sources import WallClock
from belatwist.metrics.telemetry import Telemetry
from belatwist.store import MIN_KEY, Key
from belatwist.store.checkpointer import Checkpointer
from belatwist.store.sql import retention
from belatwist.store.sql.retention import Deleted, ExpiryClock, Observation, Size
from belatwist.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

SIZE_EVERY = 60.0
"""Seconds between two looks at the database's size."""

ORPHANS_EVERY = 24 * 3600.0
"""Seconds between two searches for sessions and series without samples."""

PAUSE = 0.05
"""Seconds between two pieces of a long work: others need the card as well."""

VACUUM_PAGES = 512
"""Pages given back to the file system in one piece."""

HEADROOM = 8 << 20
"""A file that is too large becomes smaller than it must by this many bytes, at most, so that it is
not too large again at once; and a file's free pages are kept up to half of this."""

SETTLED, TEXTS, PENDING = ("settled samples", "texts", "pending samples")
"""What is deleted, in this order."""


class Pruner(Service):
    """Deletes what is old enough, and what there is no room for.

    Settled samples go first, the oldest first; then texts; then, only when the size forces it,
    pending samples, the oldest of the lowest priority first. Deleting for want of room begins at
    the limit and ends a little below: 5 % for what was delivered, 1 % for what was not.

    :param reactor: the timers' clock, monotonic.
    :param keep: seconds that a sample is kept after it was settled.
    :param limit: the largest size in bytes of the database with its write-ahead log.
    :param delivering: whether samples are to be uploaded: otherwise none is lost before that.
    :param telemetry: counts what is deleted.
    :ivar lost_at: when pending samples were last deleted, in seconds on the reactor's clock;
        ``None`` when none were in this run.
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
        self.lost_at: float | None = None
        self._store = store
        self._database = store.database
        self._checkpointer = checkpointer
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._keep = keep
        self._limit = limit
        self._delivering = delivering
        self._telemetry = telemetry
        self._expiry_every = min(max(keep / 24, 1.0), 3600.0)
        self._next_expiry = self._next_orphans = 0.0
        self._expiry: ExpiryClock | None = None
        self._expired = 0
        self._error = ""
        self._current: Deferred[None] | None = None
        # It waits for what its function returns: there are never two passes at a time.
        self._loop = LoopingCall(self._begin)
        self._loop.clock = reactor

    def startService(self) -> None:
        """Begin, with a look at the size."""
        super().startService()
        self._next_expiry = self._reactor.seconds() + self._expiry_every
        self._next_orphans = self._reactor.seconds() + retention.CLOCK_TRUST
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
        """Run a pass; whatever it raises, the next one comes."""
        error = ""
        try:
            await self._pass()
        except sqlite3.Error as failed:
            error = str(failed)
            level = LogLevel.debug if error == self._error else LogLevel.error
            self.log.emit(level, "retention: {error}; tried again each minute", error=error)
        except Exception:  # noqa: BLE001 - a LoopingCall ends for good at the first failure
            self.log.failure("retention failed; the next pass comes at its time")
        finally:
            self._error = error
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
                await self._delete_orphans(before_ms)
        await self._enforce_size()
        await self._vacuum()

    async def _expire(self, settlement: int, before_ms: int) -> None:
        """Delete what is old enough."""
        why = f"older than {self._keep:g} s"
        if settlement > self._expired and await self._delete_settled(settlement, why, _always):
            self._expired = settlement
        await self._delete_texts(before_ms, why, _always)

    async def _enforce_size(self) -> None:
        """Delete what there is no room for."""
        if (await self._size()).used + self._database.wal_bytes <= self._limit:
            return
        if self._database.wal_bytes:
            await self._checkpointer.run("the database is too large")
        wal = self._database.wal_bytes
        why = f"the database is larger than {self._limit >> 20} MiB"

        async def delivered() -> bool:
            return (await self._size()).used + wal > 0.95 * self._limit

        async def undelivered() -> bool:
            # Without the log: one that is blocked may be large, and deleting makes it no smaller.
            return (await self._size()).used > 0.99 * self._limit and await self._newest() == newest

        while True:
            newest = await self._newest()
            await self._delete_settled(newest, why, delivered)
            await self._delete_texts(retention.MAX_TIMESTAMP, why, delivered)
            await self._delete(
                PENDING, why, MIN_KEY, undelivered, lambda _: self._store.delete_pending()
            )
            # Whatever is settled meanwhile must go before anything that is pending.
            if not self.running or await self._newest() == newest:
                return

    async def _delete_settled(
        self, settlement: int, why: str, needed: Callable[[], Awaitable[bool]]
    ) -> bool:
        """Delete samples settled up to a settlement, and what says nothing without them.

        :return: whether all of them are deleted.
        """
        first, last_ms = await self._database.transact(retention.span, settlement)
        after = await self._delete(
            SETTLED,
            why,
            first,
            needed,
            lambda behind: self._database.transact(
                retention.delete_settled, behind, last_ms, settlement
            ),
        )
        if after is not None:
            if after != first:
                await self._database.transact(retention.note_deleted, after[0])
            return False
        while (
            await self._database.transact(retention.delete_settlements, settlement)
            == retention.ROWS
        ):
            await self._pause()
        return True

    async def _delete_texts(
        self, before_ms: int, why: str, needed: Callable[[], Awaitable[bool]]
    ) -> None:
        await self._delete(
            TEXTS,
            why,
            MIN_KEY,
            needed,
            lambda _: self._database.transact(retention.delete_texts, before_ms),
        )

    async def _delete(
        self,
        kind: str,
        why: str,
        after: Key | None,
        needed: Callable[[], Awaitable[bool]],
        step: "Callable[[Key], Deferred[Deleted]]",
    ) -> Key | None:
        """Delete piece by piece while it is needed, there is more, and the service runs.

        :param after: where to begin.
        :return: where it would go on; ``None`` when nothing is left.
        """
        count, first_ms, last_ms = 0, retention.MAX_TIMESTAMP, MIN_KEY[0]
        try:
            while after is not None and self.running and await needed():
                found = await step(after)
                after = found.after
                if found.count:
                    count += found.count
                    self._count(kind, found.count)
                    first_ms = min(first_ms, found.first_ms)
                    last_ms = max(last_ms, found.last_ms)
                await self._pause()
        finally:
            if count:
                self.log.emit(
                    LogLevel.warn if self._is_loss(kind) else LogLevel.info,
                    "retention: {count:,} {kind} deleted, stamped {first_ms} to {last_ms}: {why}",
                    count=count,
                    kind=kind,
                    first_ms=first_ms,
                    last_ms=last_ms,
                    why=why,
                )
        return after

    def _is_loss(self, kind: str) -> bool:
        return kind == PENDING and self._delivering

    def _count(self, kind: str, count: int) -> None:
        self._telemetry.metrics_pruned.inc(count)
        if self._is_loss(kind):
            self._telemetry.metrics_dropped.inc(count)
            self.lost_at = self._reactor.seconds()

    async def _delete_orphans(self, before_ms: int) -> None:
        """Delete sessions and series that no sample is of, when there are many."""
        if not await self._database.transact(retention.needs_cleanup):
            return
        sessions: set[int] = set()
        series: set[int] = set()
        for table in ("samples", "texts"):
            after: Key | None = MIN_KEY
            while after is not None:
                after = await self._database.transact(
                    retention.collect_used, table, after, sessions, series
                )
                await self._pause()
                if not self.running:
                    return
        for step, kind in (
            (
                lambda: self._database.transact(retention.delete_sessions, sessions, before_ms),
                "sessions",
            ),
            (lambda: self._store.delete_series(series), "series"),
        ):
            count = deleted = await step()
            while deleted == retention.ROWS and self.running:
                await self._pause()
                deleted = await step()
                count += deleted
            if count:
                self.log.info(
                    "retention: {count:,} {kind} without samples deleted", count=count, kind=kind
                )

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
            await self._pause()
        if size.file < before.file:
            self.log.info(
                "retention: the database's file shrinks from {before} to {after} bytes",
                before=before.file,
                after=size.file,
            )
            await self._checkpointer.run("the file shrinks")

    def _newest(self) -> "Deferred[int]":
        return self._database.transact(retention.newest_settlement)

    def _size(self) -> "Deferred[Size]":
        return self._database.transact(retention.size)

    def _pause(self) -> "Deferred[None]":
        return deferLater(self._reactor, PAUSE)


async def _always() -> bool:
    return True
