"""The store on SQLite: samples, their settlements, and the clock that stamps them."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import TEXT, Sample, Series
from belatwist.store import Batch, Position, Row, Settlement
from belatwist.store.database import Database
from belatwist.store.lifecycle import Lifecycle
from belatwist.store.salvage.replacement import Salvaged
from belatwist.store.sql import eras, queries
from belatwist.store.sql.eras import EraState, Restamped
from belatwist.store.sql.retention import Deleted, delete_pending, delete_series

T = TypeVar("T")


class SQLiteStore:
    """A :class:`~belatwist.store.SampleStore` in a file.

    :param telemetry: learns how long reading and writing take, in the database's thread.
    :ivar database: the connection and its thread.
    :ivar lifecycle: how the database is opened, closed and replaced.
    :ivar pending: how many samples wait to be sent, as of the last change.
    :ivar lost_at: when pending samples were last lost with a damaged database, in seconds on the
        reactor's clock; ``None`` when none were.
    """

    def __init__(self, database: Database, *, telemetry: Telemetry) -> None:
        self.database = database
        self.lifecycle = Lifecycle(database, self)
        self.pending = 0
        self.lost_at: float | None = None
        self._telemetry = telemetry
        self._ids: dict[Series, int] = {}
        self._series: dict[int, Series] = {}
        self._used: set[int] = set()
        self._eras = EraState()

    async def open(self, session_id: str, now_ms: int) -> None:
        """Open the database and begin a session; see :meth:`.Lifecycle.open`."""
        await self.lifecycle.open(session_id, now_ms)

    async def close(self, now_ms: int) -> bool:
        """End the session and close the database; see :meth:`.Lifecycle.close`."""
        return await self.lifecycle.close(now_ms)

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
            self._eras.restamping = False
            return new, dropped

        def stored(result: tuple[int, int]) -> None:
            new, dropped = result
            self.pending += new - dropped

        return self.database.write(work, stored).addCallback(lambda result: result[0])

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples; see :class:`~belatwist.store.SampleStore`."""

        def read(cursor: queries.Cursor) -> Batch:
            rows = queries.fetch(cursor, limit, until_ms, after)
            last = queries.position(cursor, rows[-1]) if rows else None
            series = self._series_of(cursor, rows)
            return Batch(rows, series, last, as_of=self.database.writes)

        return self._read(read)

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples; see :class:`~belatwist.store.SampleStore`."""

        def read(cursor: queries.Cursor) -> Batch:
            rows = queries.fetch_newest(cursor, limit, until_ms)
            return Batch(rows, self._series_of(cursor, rows), as_of=self.database.writes)

        return self._read(read)

    def settle(self, settlements: Sequence[Settlement], now_ms: int) -> "Deferred[None]":
        """Record settlements; see :class:`~belatwist.store.SampleStore`."""

        def work(connection: Any) -> int:
            writes = self.database.writes
            return self._write(connection, queries.settle, settlements, now_ms, writes)

        def settled(count: int) -> None:
            self.pending -= count

        return self.database.write(work, settled).addCallback(lambda _: None)

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is known to be good; see :mod:`.eras`.

        If it was stepped since, pending samples are to be moved: see :meth:`restamp_samples`.

        :param offset_ms: the wall clock's offset from the boot clock.
        :return: whether it is. If not, a later step may move the samples that are stored from now
            on.
        """
        return self._in_era(lambda cursor: eras.enter(cursor, boot_id, offset_ms)).addCallback(
            lambda era: era is None
        )

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[None]":
        """Record a step of the clock: pending samples of an open era are to be moved.

        They are not given out any more until :meth:`restamp_samples` has moved all of them.

        :param offset_ms: the wall clock's offset after the step.
        """

        def step(cursor: queries.Cursor) -> int:
            if (era := self._eras.current(cursor)) is not None:
                return eras.step(cursor, era, step_ms)
            return eras.begin(cursor, boot_id, offset_ms)

        return self._in_era(step).addCallback(lambda _: None)

    def trust_clock(self) -> "Deferred[None]":
        """Record that the clock is known to be good: samples stored so far stay where they are."""

        def trust(cursor: queries.Cursor) -> None:
            if (era := self._eras.current(cursor)) is not None:
                eras.close(cursor, era)

        return self._in_era(trust).addCallback(lambda _: None)

    def restamp_samples(self) -> "Deferred[Restamped]":
        """Move the next batch of samples that a step of the clock has left to be moved."""

        def work(connection: Any) -> Restamped:
            result = self.database.commit(connection, self._eras.restamp)
            self._eras.moved(result)
            return result

        def moved(result: Restamped) -> None:
            self.pending -= result.dropped

        return self.database.write(work, moved)

    def delete_pending(self) -> "Deferred[Deleted]":
        """Delete the oldest pending samples of the lowest priority; see :mod:`.retention`."""

        def deleted(found: Deleted) -> Deleted:
            self.pending -= found.count
            return found

        return self.database.transact(delete_pending).addCallback(deleted)

    def delete_series(self, used: Set[int]) -> "Deferred[int]":
        """Delete unused series when there are very many; those used in this run stay.

        :param used: series that have samples.
        """
        # Read in the database's thread, which knows the ids of all samples stored before.
        return self.database.transact(lambda cursor: delete_series(cursor, used | self._used))

    # For the lifecycle; all but replaced() run in the database's thread.

    def load(self, cursor: queries.Cursor) -> None:
        """Count the pending samples, and read whether samples are yet to be moved."""
        self.pending = queries.count_pending(cursor)
        self._eras.load(cursor)

    def known_series(self) -> Mapping[int, Series]:
        """Return the remembered series by their ids."""
        return self._series

    def forget(self) -> None:
        """Clear the memory of a database that another one replaces."""
        self._ids, self._series = {}, {}
        self._eras.forget()

    def replaced(self, done: Salvaged, *, running: bool) -> None:
        """Take note of how many samples a new database holds, and how many were lost."""
        # While running it is known how many there were; at a start, if the index could be read.
        before = self.pending if running else done.indexed or 0
        lost = max(before - done.recovered, 0)
        self.pending = done.recovered
        if lost:
            self._telemetry.metrics_dropped.inc(lost)
            self.lost_at = self.database.seconds()

    # The methods below run in the database's thread, except _read() and _in_era().

    def _read(self, function: Callable[[queries.Cursor], Batch]) -> "Deferred[Batch]":
        """Read a batch; an empty one as long as samples are not where they belong."""

        def work(connection: Any) -> Batch:
            if self._eras.restamping:
                return Batch((), {})
            began = time.perf_counter()
            cursor = connection.cursor()
            try:
                result = function(cursor)
            finally:
                cursor.close()
            self._telemetry.query_duration.observe(time.perf_counter() - began)
            return result

        return self.database.run(work)

    def _write(self, connection: Any, function: Callable[..., T], *args: object) -> T:
        began = time.perf_counter()
        result = self.database.commit(connection, function, *args)
        self._telemetry.write_duration.observe(time.perf_counter() - began)
        return result

    def _insert(
        self, cursor: queries.Cursor, samples: Sequence[Sample]
    ) -> tuple[int, int | None, dict[Series, int]]:
        """Insert samples; where one is in the way that is to be moved, all are moved first.

        :return: how many were new; how many others were dropped on moving, ``None`` if none were
            moved; and the ids of series that were not known yet.
        """
        era = self._eras.current(cursor)
        session = self.lifecycle.session
        number = 0 if session is None else session.number
        new, ids = queries.insert(cursor, samples, self._ids, number, era)
        if not self._eras.restamping or new == sum(s.series.value_type != TEXT for s in samples):
            return new, None, ids
        dropped = self._eras.restamp_all(cursor)
        again, _ = queries.insert(cursor, samples, self._ids, number, era)
        return new + again, dropped, ids

    def _in_era(self, function: Callable[[queries.Cursor], int | None]) -> "Deferred[int | None]":
        """Run a function that returns the era that is open afterwards, and take note of that."""

        def work(connection: Any) -> int | None:
            def change(cursor: queries.Cursor) -> tuple[int | None, bool]:
                return function(cursor), eras.unfinished(cursor) is not None

            era, restamping = self.database.commit(connection, change)
            self._eras.enter(era, restamping=restamping)
            return era

        return self.database.run(work)

    def _series_of(self, cursor: queries.Cursor, rows: Sequence[Row]) -> Mapping[int, Series]:
        missing = {row[1] for row in rows} - self._series.keys()
        if missing:
            self._series.update(queries.series_of(cursor, missing))
        return self._series
