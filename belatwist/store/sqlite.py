"""The store on SQLite: samples, their settlements, and the clock that stamps them."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import TEXT, Sample, Series
from belatwist.store import Batch, Position, Settlement
from belatwist.store.alive import ALIVE_FOR, MAX_SERIES, AliveSeries, RefusedSeries
from belatwist.store.database import Database
from belatwist.store.lifecycle import Lifecycle
from belatwist.store.salvage.replacement import Salvaged
from belatwist.store.sql import eras, queries
from belatwist.store.sql.eras import EraState, Restamped
from belatwist.store.sql.retention import Deleted, delete_pending, delete_series

T = TypeVar("T")


class _Added(NamedTuple):
    """What a transaction has added.

    :ivar new: how many numeric samples.
    :ivar dropped: how many others were dropped on moving; ``None`` if none were moved.
    :ivar ids: of the series that became alive.
    :ivar refused: samples that were not stored, because too many series are alive.
    """

    new: int
    dropped: int | None
    ids: Mapping[Series, int]
    refused: Sequence[Sample]


class SQLiteStore:
    """A :class:`~belatwist.store.SampleStore` in a file.

    :param telemetry: learns how long reading and writing take, in the database's thread.
    :param max_series: how many series may be alive. New ones beyond it are not stored.
    :param alive_for: seconds for which a series is alive after its last sample, at least. It is
        longer than any collector's interval.
    :ivar database: the connection and its thread.
    :ivar lifecycle: how the database is opened, closed and replaced.
    :ivar refused: the samples that were not stored, because too many series are alive.
    :ivar pending: how many samples wait to be sent, as of the last change.
    :ivar lost_at: when pending samples were last lost with a damaged database, in seconds on the
        reactor's clock; ``None`` when none were.
    """

    def __init__(
        self,
        database: Database,
        *,
        telemetry: Telemetry,
        max_series: int = MAX_SERIES,
        alive_for: float = ALIVE_FOR,
    ) -> None:
        self.database = database
        self.lifecycle = Lifecycle(database, self)
        self.pending = 0
        self.lost_at: float | None = None
        self._telemetry = telemetry
        self.refused = RefusedSeries(max_series, database.seconds, telemetry)
        self._alive = AliveSeries(max_series, alive_for, database.seconds)
        self._eras = EraState()

    @property
    def alive(self) -> int:
        """How many series are alive."""
        return len(self._alive)

    async def open(self, session_id: str, now_ms: int) -> None:
        """Open the database and begin a session; see :meth:`.Lifecycle.open`."""
        await self.lifecycle.open(session_id, now_ms)

    async def close(self, now_ms: int) -> bool:
        """End the session and close the database; see :meth:`.Lifecycle.close`."""
        return await self.lifecycle.close(now_ms)

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Store samples in one transaction; see :class:`~belatwist.store.SampleStore`."""

        def work(connection: Any) -> _Added:
            added: _Added = self._write(connection, self._insert, samples)
            self._alive.stored(added.ids)
            if added.dropped is not None:
                self._eras.restamping = False
            return added

        def stored(added: _Added) -> None:
            self.pending += added.new - (added.dropped or 0)
            if added.refused:
                self.refused.refused(added.refused, self.alive)
            elif added.ids:
                self.refused.accepted()

        return self.database.write(work, stored).addCallback(lambda added: added.new)

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples; see :class:`~belatwist.store.SampleStore`."""

        def read(cursor: queries.Cursor) -> Batch:
            rows = queries.fetch(cursor, limit, until_ms, after)
            last = queries.position(cursor, rows[-1]) if rows else None
            series = self._alive.read(cursor, {row[1] for row in rows})
            return Batch(rows, series, last, as_of=self.database.writes)

        return self._read(read)

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples; see :class:`~belatwist.store.SampleStore`."""

        def read(cursor: queries.Cursor) -> Batch:
            rows = queries.fetch_newest(cursor, limit, until_ms)
            series = self._alive.read(cursor, {row[1] for row in rows})
            return Batch(rows, series, as_of=self.database.writes)

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

    def delete_series(self, used: Set[int], since: float) -> "Deferred[int]":
        """Delete unused series when there are very many; those that are alive stay.

        :param used: series that have samples.
        :param since: when the search for these began. If it took so long that a series stored
            meanwhile may not be alive any more, none is deleted.
        """

        def delete(cursor: queries.Cursor) -> int:
            # In the database's thread, in which all samples stored before are known.
            if since < self._alive.since:
                return 0
            return delete_series(cursor, used | self._alive.ids())

        return self.database.transact(delete)

    # For the lifecycle; all but replaced() run in the database's thread.

    def load(self, cursor: queries.Cursor) -> None:
        """Count the pending samples, and read whether samples are yet to be moved."""
        self.pending = queries.count_pending(cursor)
        self._eras.load(cursor)

    def known_series(self) -> Mapping[int, Series]:
        """Return the remembered series by their ids."""
        return self._alive.known()

    def forget(self) -> None:
        """Clear the memory of a database that another one replaces."""
        self._alive.forget()
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

    def _insert(self, cursor: queries.Cursor, samples: Sequence[Sample]) -> _Added:
        """Insert samples; where one is in the way that is to be moved, all are moved first."""
        era = self._eras.current(cursor)
        session = self.lifecycle.session
        number = 0 if session is None else session.number
        alive = self._alive
        alive.touch(samples)
        new, ids, refused = queries.insert(
            cursor, samples, alive.recent, number, era, room=alive.room
        )
        if not self._eras.restamping or new == _numeric(samples) - _numeric(refused):
            return _Added(new, None, ids, refused)
        dropped = self._eras.restamp_all(cursor)
        again, _, _ = queries.insert(cursor, samples, alive.recent, number, era, room=alive.room)
        return _Added(new + again, dropped, ids, refused)

    def _in_era(self, function: Callable[[queries.Cursor], int | None]) -> "Deferred[int | None]":
        """Run a function that returns the era that is open afterwards, and take note of that."""

        def work(connection: Any) -> int | None:
            def change(cursor: queries.Cursor) -> tuple[int | None, bool]:
                return function(cursor), eras.unfinished(cursor) is not None

            era, restamping = self.database.commit(connection, change)
            self._eras.enter(era, restamping=restamping)
            return era

        return self.database.run(work)


def _numeric(samples: Sequence[Sample]) -> int:
    return sum(one.series.value_type != TEXT for one in samples)
