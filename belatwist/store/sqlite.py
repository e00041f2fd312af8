"""The store on SQLite: samples, what the server said of them, and the clock that stamps them."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import TEXT, Sample, Series
from belatwist.store import Batch, Position, Row, Settlement
from belatwist.store.database import Database
from belatwist.store.salvage.replacement import Salvaged
from belatwist.store.sql import eras, queries
from belatwist.store.sql.eras import Restamped, RestampProgress
from belatwist.store.sql.retention import Deleted, delete_pending, delete_series

T = TypeVar("T")


class SQLiteStore(Database):
    """A :class:`~belatwist.store.SampleStore` in a file.

    :param telemetry: learns how long reading and writing take, in the database's thread.
    :ivar pending: how many samples wait to be sent, as of the last change.
    """

    def __init__(
        self,
        path: Path,
        reactor: Any,
        *,
        synchronous: str,
        cache_mb: int,
        mmap_mb: int,
        telemetry: Telemetry,
        busy_timeout_ms: int = 5000,
    ) -> None:
        super().__init__(
            path,
            reactor,
            synchronous=synchronous,
            cache_mb=cache_mb,
            mmap_mb=mmap_mb,
            busy_timeout_ms=busy_timeout_ms,
        )
        self.pending = 0
        self.lost_at: float | None = None
        self._telemetry = telemetry
        self._ids: dict[Series, int] = {}
        self._series: dict[int, Series] = {}
        self._used: set[int] = set()
        self._era: int | None = None
        self._restamping = False
        self._restamp_progress: RestampProgress | None = None
        self._new_database = False
        self._written: Callable[[int], object] | None = None

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Store samples in one transaction; see :class:`~belatwist.store.SampleStore`."""

        def work(connection: Any) -> tuple[int, int]:
            new, dropped, ids = self._write(connection, self._insert, samples)
            # Only now: ids from a transaction that was rolled back would point nowhere.
            self._ids.update(ids)
            self._series.update((number, series) for series, number in ids.items())
            self._used.update(ids.values())
            if dropped is None:
                return new, 0
            self._restamping = False
            return new, dropped

        def stored(result: tuple[int, int]) -> int:
            new, dropped = result
            self.pending += new - dropped
            self._tell_written()
            return new

        return self._run(work).addCallback(stored)

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples; see :class:`~belatwist.store.SampleStore`."""

        def read(cursor: queries.Cursor) -> Batch:
            rows = queries.fetch(cursor, limit, until_ms, after)
            last = queries.position(cursor, rows[-1]) if rows else None
            return Batch(rows, self._series_of(cursor, rows), last, as_of=self._writes)

        return self._read(read)

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples; see :class:`~belatwist.store.SampleStore`."""

        def read(cursor: queries.Cursor) -> Batch:
            rows = queries.fetch_newest(cursor, limit, until_ms)
            return Batch(rows, self._series_of(cursor, rows), as_of=self._writes)

        return self._read(read)

    def settle(self, settlements: Sequence[Settlement], now_ms: int) -> "Deferred[None]":
        """Record settlements; see :class:`~belatwist.store.SampleStore`."""

        def settled(count: int) -> None:
            self.pending -= count
            self._tell_written()

        def work(connection: Any) -> int:
            return self._write(connection, queries.settle, settlements, now_ms, self._writes)

        return self._run(work).addCallback(settled)

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is known to be good; see :mod:`.eras`.

        If it was stepped since, pending samples are to be moved: see :meth:`restamp_samples`.

        :param offset_ms: the wall clock's offset from the boot clock.
        :return: whether it is. If not, what is stored from now on may be moved later.
        """
        return self._in_era(lambda cursor: eras.enter(cursor, boot_id, offset_ms)).addCallback(
            lambda era: era is None
        )

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[None]":
        """Take note that the clock was stepped: pending samples of an open era are to be moved.

        They are not given out any more until :meth:`restamp_samples` has moved all of them.

        :param offset_ms: the wall clock's offset after the step.
        """

        def step(cursor: queries.Cursor) -> int:
            if (era := self._era_now(cursor)) is not None:
                return eras.step(cursor, era, step_ms)
            return eras.begin(cursor, boot_id, offset_ms)

        return self._in_era(step).addCallback(lambda _: None)

    def trust_clock(self) -> "Deferred[None]":
        """Take note that the clock is known to be good: what is stored stays where it is."""

        def trust(cursor: queries.Cursor) -> None:
            if (era := self._era_now(cursor)) is not None:
                eras.close(cursor, era)

        return self._in_era(trust).addCallback(lambda _: None)

    def restamp_samples(self) -> "Deferred[Restamped]":
        """Move the next batch of what is to be moved, after a step of the clock."""

        def work(connection: Any) -> Restamped:
            moved = self._transact(connection, eras.restamp, self._restamp_progress)
            self._restamp_progress, self._restamping = moved.progress, moved.more
            return moved

        def counted(moved: Restamped) -> Restamped:
            self.pending -= moved.dropped
            self._tell_written()
            return moved

        return self._run(work).addCallback(counted)

    def delete_pending(self) -> "Deferred[Deleted]":
        """Delete the oldest pending samples of the lowest priority; see :mod:`.retention`."""

        def deleted(found: Deleted) -> Deleted:
            self.pending -= found.count
            return found

        return self.transact(delete_pending).addCallback(deleted)

    def delete_series(self, used: Set[int]) -> "Deferred[int]":
        """Delete unused series when there are very many; those used in this run stay.

        :param used: series that have samples.
        """
        # Looked at in the database's thread: whatever was stored before this has its ids there.
        return self.transact(lambda cursor: delete_series(cursor, used | self._used))

    def watch(self, written: Callable[[int], object] | None) -> None:
        """Have something called after each write, with the size of the write-ahead log in bytes."""
        self._written = written

    def _tell_written(self) -> None:
        if self._written is not None:
            self._written(self.wal_bytes)

    # What follows runs in the database's thread, but for _in_era() and _replaced().

    def _read(self, function: Callable[[queries.Cursor], Batch]) -> "Deferred[Batch]":
        """Read a batch; an empty one as long as samples are not where they belong."""

        def work(connection: Any) -> Batch:
            if self._restamping:
                return Batch((), {})
            began = time.perf_counter()
            cursor = connection.cursor()
            try:
                result = function(cursor)
            finally:
                cursor.close()
            self._telemetry.query_duration.observe(time.perf_counter() - began)
            return result

        return self._run(work)

    def _write(self, connection: Any, function: Callable[..., T], *args: object) -> T:
        began = time.perf_counter()
        result = self._transact(connection, function, *args)
        self._telemetry.write_duration.observe(time.perf_counter() - began)
        return result

    def _insert(
        self, cursor: queries.Cursor, samples: Sequence[Sample]
    ) -> tuple[int, int | None, dict[Series, int]]:
        """Insert samples; where one is in the way that is to be moved, all are moved first.

        :return: how many were new; how many others were dropped on moving, ``None`` if none were
            moved; and the ids of series that were not known yet.
        """
        era = self._era_now(cursor)
        new, ids = queries.insert(cursor, samples, self._ids, self._session, era)
        if not self._restamping or new == sum(one.series.value_type != TEXT for one in samples):
            return new, None, ids
        dropped, place, more = 0, self._restamp_progress, True
        while more:
            moved = eras.restamp(cursor, place)
            dropped, place, more = dropped + moved.dropped, moved.progress, moved.more
        again, _ = queries.insert(cursor, samples, self._ids, self._session, era)
        return new + again, dropped, ids

    def _in_era(self, function: Callable[[queries.Cursor], int | None]) -> "Deferred[int | None]":
        """Run a function that says which era it is from then on, once that is committed.

        The era is known to the thread alone: what was handed in before a step is stored before it,
        and moves with it.
        """

        def work(connection: Any) -> int | None:
            def note(cursor: queries.Cursor) -> tuple[int | None, bool]:
                return function(cursor), eras.unfinished(cursor) is not None

            self._era, self._restamping = self._transact(connection, note)
            return self._era

        return self._run(work)

    def _series_of(self, cursor: queries.Cursor, rows: Sequence[Row]) -> Mapping[int, Series]:
        missing = {row[1] for row in rows} - self._series.keys()
        if missing:
            self._series.update(queries.series_of(cursor, missing))
        return self._series

    def _begin(self, cursor: queries.Cursor, session_id: str, now_ms: int) -> list[str]:
        crashed = super()._begin(cursor, session_id, now_ms)
        self.pending = queries.count_pending(cursor)
        self._restamping = eras.unfinished(cursor) is not None
        return crashed

    def _known(self) -> Mapping[int, Series]:
        return self._series

    def _forget(self) -> None:
        self._ids, self._series = {}, {}
        self._restamp_progress = None
        self._new_database = True

    def _era_now(self, cursor: queries.Cursor) -> int | None:
        """Return the open era: in a database that has replaced another one it may be lost."""
        if self._new_database:
            self._new_database = False
            self._restamping = eras.unfinished(cursor) is not None
            if self._era is not None and not eras.exists(cursor, self._era):
                self._era = None
        return self._era

    def _replaced(self, done: Salvaged) -> None:
        # While running it is known how many there were; at a start, if the index could be read.
        before = self.pending if self._running is not None else done.indexed or 0
        lost = max(before - done.recovered, 0)
        self.pending = done.recovered
        if lost:
            self._telemetry.metrics_dropped.inc(lost)
            self.lost_at = self._reactor.seconds()
