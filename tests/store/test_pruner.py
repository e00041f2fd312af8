"""The database is kept within its bounds, and collection does not wait for it."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest_twisted
from constantly import NamedConstant
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series, sample
from belatwist.store import Key, deleter, pruner
from belatwist.store.checkpointer import Checkpointer
from belatwist.store.pruner import Pruner
from belatwist.store.sql import retention, wal
from belatwist.store.sql.retention import Size
from belatwist.store.sqlite import SQLiteStore
from tests.fakes import inline_store
from tests.log_events import Captured
from tests.store.databases import LOAD, STATE, accept, one_priority_each, reading, reject
from tests.store.stores import InFolder, counted, query, threaded
from tests.store.suite import EVER
from tests.store.test_checkpointer import Reading
from tests.store.test_sqlite import Steps

KEEP = 600.0
NOW = 1_800_000_000_000
YEARS_50 = 50 * 365 * 86_400_000
MIB = 1 << 20


class PrunerTests(InFolder):
    """What goes when, on simulated time."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.opened(self.path, now_ms=NOW)
        self.clock = Clock()
        self.offset_ms = NOW
        self.log = Captured()
        self.log.__enter__()
        self.addCleanup(self.log.__exit__, None, None, None)
        self.next_ms = NOW - 10_000_000

    def now_ms(self) -> int:
        """Return what the wall clock says."""
        return self.offset_ms + round(self.clock.seconds() * 1000)

    def start(self, *, keep: float = KEEP, limit: int = 1 << 40) -> Pruner:
        """Start; it is stopped after the test."""
        self.checkpointer = Checkpointer(
            self.store.database, reactor=self.clock, interval=1e9, limit=1 << 40
        )
        self.telemetry = Telemetry()
        service = Pruner(
            self.store,
            self.checkpointer,
            reactor=self.clock,
            wall_ms=self.now_ms,
            keep=keep,
            limit=limit,
            delivering=True,
            telemetry=self.telemetry,
        )
        service.startService()
        self.addCleanup(self.stop, service)
        return service

    def stop(self, service: Pruner) -> None:
        """Stop, with the piece of work that is being done; what was stopped is left alone."""
        if service.running:
            stopping = service.stopService()
            self.clock.advance(1)
            self.successResultOf(stopping)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pump([5.0] * round(seconds / 5))

    def work(self) -> None:
        """Let the next pass come, and do all that it has to do."""
        self.clock.advance(60)
        self.clock.pump([deleter.PAUSE] * 1000)

    def add(self, count: int, series: Sequence[Series] = (LOAD,)) -> None:
        """Store samples, each a millisecond after the one before."""
        first, self.next_ms = self.next_ms, self.next_ms + count
        samples = [sample(series[n % len(series)], first + n, n) for n in range(count)]
        self.assertEqual(self.successResultOf(self.store.add(samples)), count)

    def settle(self, count: int) -> None:
        """Have the oldest samples accepted, but for one, which is rejected."""
        rows = self.successResultOf(self.store.fetch(count, EVER)).rows
        settlements = [*([accept(rows[:-1])] if count > 1 else []), reject(rows[-1:], "no")]
        self.successResultOf(self.store.settle(settlements, self.now_ms()))

    def counts(self) -> tuple[int, int]:
        """Count settled and pending samples."""
        ((settled, pending),) = query(
            self.path, "SELECT sum(checkpoint_id > 0), sum(checkpoint_id IS NULL) FROM samples"
        )
        self.assertEqual(self.store.pending, pending or 0)
        return settled or 0, pending or 0

    def size(self) -> Size:
        """Return the database's size."""
        return self.successResultOf(self.store.database.transact(retention.size))

    def texts(self, level: NamedConstant = LogLevel.info) -> list[str]:
        """Return what was logged of deletions."""
        return [text for text in self.log.texts(level) if "Retention deleted" in text]

    def pruned(self) -> tuple[float, float]:
        """Return how many rows were deleted, and how many of them had not been uploaded."""
        return (
            counted(self.telemetry, "storage_metrics_pruned_total"),
            counted(self.telemetry, "storage_metrics_dropped_total"),
        )

    def test_what_is_old_goes(self) -> None:
        """Accepted and rejected samples alike, after their time; what is pending stays for ever."""
        service = self.start()
        self.add(5000)
        self.settle(3000)
        self.wait(KEEP - 10)
        self.assertEqual(self.counts(), (3000, 2000))
        self.wait(60)
        self.assertEqual(self.counts(), (0, 2000))
        self.assertEqual((self.pruned(), service.lost_at), ((3000, 0), None))
        first = NOW - 10_000_000
        self.assertEqual(
            self.texts(),
            [
                f"Retention deleted 3,000 settled samples, stamped {first} to {first + 2999}:"
                " older than 600 s"
            ],
        )
        self.assertEqual(query(self.path, "SELECT count(*) FROM upload_checkpoints"), [(1,)])
        self.wait(20 * KEEP)
        self.assertEqual(self.counts(), (0, 2000))
        self.assertEqual(len(self.texts()), 1)

    def test_each_at_its_time(self) -> None:
        """What was uploaded later goes later."""
        self.start()
        self.add(300)
        for _ in range(3):
            self.settle(100)
            self.wait(200)
        self.assertEqual(self.counts(), (300, 0))
        for left in (200, 100, 0):
            self.wait(45)
            self.assertEqual(self.counts(), (left, 0))
            self.wait(155)

    def test_old_texts_go(self) -> None:
        """A text has its own time only."""
        self.start()
        self.successResultOf(
            self.store.add([Sample(STATE, NOW - 1, "x"), Sample(STATE, NOW + 400_000, "x")])
        )
        self.wait(KEEP + 60)
        self.assertEqual(query(self.path, "SELECT count(*) FROM texts"), [(1,)])

    def test_the_clock_is_set_forward(self) -> None:
        """By 50 years: what was uploaded a minute ago is kept for its time nevertheless."""
        self.start()
        self.add(100)
        self.settle(50)
        self.wait(60)
        self.offset_ms += YEARS_50
        self.settle(50)
        self.wait(KEEP - 120)
        self.assertEqual(self.counts(), (100, 0))
        self.wait(60 + 60 + 60)
        self.assertEqual(self.counts(), (0, 0))

    def test_the_clock_is_set_back(self) -> None:
        """What was uploaded in the future is deleted all the same."""
        self.start()
        self.offset_ms += YEARS_50
        self.add(100)
        self.settle(50)
        self.offset_ms -= YEARS_50
        self.wait(KEEP + 60)
        self.assertEqual(self.counts(), (0, 50))

    def test_what_an_earlier_run_has_left(self) -> None:
        """What was old enough when the run began goes; not at once, but within the hour."""
        self.add(200)
        self.offset_ms -= 100_000_000
        self.settle(100)
        self.offset_ms += 100_000_000
        self.settle(100)
        self.close(self.store)
        self.store = self.opened(self.path, "s2", NOW)
        self.start(keep=86400.0)
        self.wait(3500)
        self.assertEqual(self.counts(), (200, 0))
        self.wait(160)
        self.assertEqual(self.counts(), (100, 0))

    def fill(self) -> int:
        """Fill the database, half of it settled, and return the bytes that it uses."""
        self.add(40_000)
        self.settle(20_000)
        self.successResultOf(self.store.database.checkpoint())
        return self.size().used

    def test_delivered_samples_make_room(self) -> None:
        """They suffice: nothing pending is touched, and no more goes than must."""
        limit = self.fill() * 9 // 10
        service = self.start(limit=limit)
        self.work()
        settled, pending = self.counts()
        self.assertEqual(pending, 20_000)
        self.assertTrue(5_000 < settled < 18_000, settled)
        self.assertEqual((self.pruned(), service.lost_at), ((20_000 - settled, 0), None))
        self.assertTrue(0.9 * limit < self.size().used < 0.95 * limit)
        ((oldest,),) = query(self.path, "SELECT min(timestamp_ms) FROM samples")
        self.assertEqual(oldest, NOW - 10_000_000 + 20_000 - settled)
        self.assertEqual(self.texts(LogLevel.warn), [])
        self.work()
        self.assertEqual(self.counts(), (settled, pending))

    def test_pending_samples_make_room_when_they_must(self) -> None:
        """Only after everything else: with a warning that says how many, and no more than must."""
        self.successResultOf(self.store.add([Sample(STATE, NOW - 5, "x")]))
        limit = self.fill() // 2
        service = self.start(limit=limit)
        self.work()
        settled, pending = self.counts()
        self.assertEqual(settled, 0)
        self.assertTrue(10_000 < pending < 20_000)
        self.assertEqual(self.pruned(), (20_001 + 20_000 - pending, 20_000 - pending))
        self.assertIsNotNone(service.lost_at)
        self.assertTrue(0.9 * limit < self.size().used <= 0.99 * limit)
        first = NOW - 10_000_000 + 20_000
        self.assertEqual(
            self.texts(LogLevel.warn),
            [
                f"Retention deleted {20_000 - pending:,} pending samples, stamped {first} to"
                f" {first + 20_000 - pending - 1}: the database is larger than {limit >> 20} MiB"
            ],
        )

    def test_the_file_comes_down(self) -> None:
        """On the disk, with the log, and not only by what is free in it."""
        self.fill()
        before = self.path.stat().st_size
        limit = before // 2
        self.start(limit=limit)
        self.work()
        after = self.path.stat().st_size + wal.size(self.path)
        self.assertTrue(after <= limit < before)
        self.assertTrue(self.size().file <= limit)
        self.assertEqual(query(self.path, "PRAGMA integrity_check"), [("ok",)])

    def test_many_free_pages_are_given_back(self) -> None:
        """Also below the limit, when they are many; some are kept for what comes next."""
        self.start()
        with mock.patch.object(pruner, "HEADROOM", 64 * 1024):
            self.fill()
            before = self.size()
            self.wait(KEEP + 60)
            self.clock.pump([deleter.PAUSE] * 200)
        after = self.size()
        self.assertTrue(after.file < 0.8 * before.file)
        self.assertTrue(after.free < after.file // 10)
        self.assertEqual(self.path.stat().st_size, after.file)

    def test_a_file_that_cannot_shrink(self) -> None:
        """Of a database that was not made for it: rows go, and its pages are used again."""
        self.close(self.store)
        with reading(self.path) as connection:
            connection.execute("PRAGMA auto_vacuum = NONE")
            connection.execute("VACUUM")
        self.store = self.opened(self.path, "s2", NOW)
        limit = self.fill() * 9 // 10
        self.start(limit=limit)
        self.work()
        self.assertEqual(self.counts()[1], 20_000)
        self.assertTrue(self.size().used < limit < self.size().file)
        self.work()

    def test_a_log_that_is_blocked_costs_nothing_pending(self) -> None:
        """It is not what is stored that is too large, and deleting it would help nothing."""
        self.fill()
        limit = self.size().used + 100_000
        reader = Reading(self.path)
        self.addCleanup(reader.end)
        self.add(1000)
        with reading(self.path) as other:
            other.executescript("CREATE TABLE x (y); INSERT INTO x VALUES (zeroblob(5000000));"
                                "DROP TABLE x;")  # fmt: skip
        self.add(1)
        self.assertTrue(self.store.database.wal_bytes > 5_000_000)
        self.start(limit=limit)
        self.work()
        self.assertEqual(self.counts(), (0, 21_001))
        self.assertEqual(self.pruned()[1], 0)

    def test_unused_sessions_go(self) -> None:
        """But for the latest hundred, and those that have samples; once a day."""
        self.add(1)
        self.close(self.store)
        with reading(self.path) as connection:
            connection.executemany(
                "INSERT INTO sessions VALUES (?, ?, 0, 1, 'completed', '{}')",
                [(n, f"old {n}") for n in range(2, 200)],
            )
            connection.commit()
        self.store = self.opened(self.path, "s200", NOW)
        self.start()
        self.wait(3550)
        self.assertEqual(query(self.path, "SELECT count(*) FROM sessions"), [(200,)])
        self.wait(150)
        self.assertEqual(
            query(self.path, "SELECT number FROM sessions ORDER BY number"),
            [(1,), *((n,) for n in range(101, 201))],
        )

    def test_unused_series_go(self) -> None:
        """When there are very many; those of this run stay, since they are remembered."""
        many = [Series.of("m", "box", {"n": str(n)}) for n in range(20)]
        self.add(20, many)
        self.settle(20)
        self.close(self.store)
        self.store = self.opened(self.path, "s2", NOW)
        self.add(1, many[3:4])
        self.settle(1)
        with mock.patch.object(retention, "SERIES", 10):
            self.start(keep=30.0)
            self.wait(3800)
            self.assertEqual(query(self.path, "SELECT id FROM series"), [(4,), (20,)])
        self.add(20, many)
        self.assertEqual(
            query(self.path, "SELECT count(*), count(DISTINCT tags) FROM metrics"), [(20, 20)]
        )
        self.assertEqual(query(self.path, "SELECT max(id) FROM series"), [(38,)])

    def test_it_fails(self) -> None:
        """A disk that fails is logged every ten minutes, and the work goes on afterwards."""
        self.start()
        self.add(10)
        self.settle(10)
        broken: Callable[..., Any] = lambda *_: fail(sqlite3.OperationalError("disk I/O error"))  # noqa: E731
        with mock.patch.object(self.store.database, "transact", broken):
            self.wait(KEEP + 60)
        self.assertEqual(
            self.log.texts(LogLevel.error),
            [
                "Retention failed: disk I/O error",
                "Retention failed: disk I/O error; 25 failures in 600 s",
            ],
        )
        self.wait(KEEP + 60)
        self.assertIn("Retention works again", self.log.texts(LogLevel.info))
        self.assertEqual(self.counts(), (0, 0))

    def test_stopping_in_the_middle(self) -> None:
        """The piece that was begun is done, what was deleted is counted, and nothing else."""
        limit = self.fill() // 2
        service = self.start(limit=limit)
        self.clock.pump([deleter.PAUSE] * 3)
        settled, pending = self.counts()
        self.assertTrue(0 < settled < 20_000)
        self.stop(service)
        self.assertEqual(self.counts(), (settled, pending))
        self.assertEqual(self.pruned()[0], 20_000 - settled)
        self.assertEqual(len(self.texts()), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def keys(path: Path, sql: str) -> list[Key]:
    """Read keys of samples."""
    return query(path, f"SELECT timestamp_ms, series_id FROM samples {sql}")


_BY_TIME = "WHERE checkpoint_id IS NOT NULL ORDER BY timestamp_ms, series_id"
_BY_PRIORITY = "WHERE checkpoint_id IS NULL ORDER BY priority DESC, timestamp_ms, series_id"


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(0, 3)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 1500)), max_size=6),
    st.floats(0.1, 1.1),
    st.integers(40, 400),
    st.integers(60, 900),
)
def test_what_makes_room(
    blocks: list[tuple[int, int]],
    settlements: list[tuple[int, int]],
    share: float,
    rows: int,
    scan: int,
) -> None:
    """Whatever is stored and settled, the pruner deletes the oldest settled samples first.

    Pending ones go only when no settled one is left, the oldest of the lowest priority first. The
    count is right.
    """
    series = one_priority_each()
    samples: list[Sample] = []
    for count, which in blocks:
        samples += [sample(series[which], len(samples) + n, 0) for n in range(count)]
    clock = Clock()
    with (
        TemporaryDirectory() as folder,
        mock.patch.multiple(retention, ROWS=rows, SCAN=scan),
        mock.patch.object(deleter, "PAUSE", 0.0),
    ):
        path = Path(folder) / "metrics.db"
        store = inline_store(path)
        Deferred.fromCoroutine(store.open("s1", 1000))
        store.add(samples)
        for first, count in settlements:
            batches: list[Any] = []
            store.fetch(5000, EVER).addCallback(batches.append)
            if meant := batches[0].rows[first : first + count]:
                store.settle([accept(meant)], 1000)
        sizes: list[Size] = []
        store.database.checkpoint()
        store.database.transact(retention.size).addCallback(sizes.append)
        limit = round(sizes[0].used * share)
        settled, pending = keys(path, _BY_TIME), keys(path, _BY_PRIORITY)
        checkpointer = Checkpointer(store.database, reactor=clock, interval=1e9, limit=1 << 40)
        telemetry = Telemetry()
        service = Pruner(
            store,
            checkpointer,
            reactor=clock,
            wall_ms=lambda: 1000,
            keep=1e6,
            limit=limit,
            delivering=True,
            telemetry=telemetry,
        )
        service.startService()
        clock.pump([0.0] * 5000)
        store.database.transact(retention.size).addCallback(sizes.append)
        left, waiting = keys(path, _BY_TIME), keys(path, _BY_PRIORITY)
        assert left == settled[len(settled) - len(left) :]
        assert waiting == pending[len(pending) - len(waiting) :]
        assert waiting == pending or not left
        assert store.pending == len(waiting)
        lost = len(pending) - len(waiting)
        gone = len(settled) - len(left) + lost
        assert counted(telemetry, "storage_metrics_pruned_total") == gone
        assert counted(telemetry, "storage_metrics_dropped_total") == lost
        assert sizes[1].used <= limit or not (left or waiting)
        if sizes[0].used <= limit:
            assert (left, waiting) == (settled, pending)
        stopped: list[None] = []
        service.stopService().addCallback(stopped.append)
        assert stopped == [None]
        Deferred.fromCoroutine(store.close(2000))


def pieces(store: SQLiteStore) -> list[str]:
    """Return a list that is filled with the store's pieces of work, in the order they are done."""
    done: list[str] = []
    commit = store.database.commit

    def noted(connection: Any, function: Callable[..., Any], *args: Any) -> Any:
        result = commit(connection, function, *args)
        done.append("add" if function == store._insert else "maintenance")
        return result

    store.database.commit = noted  # type: ignore[method-assign]
    return done


@pytest_twisted.inlineCallbacks
def test_adding_waits_for_one_piece_at_most(tmp_path: Path) -> Steps:
    """With the real thread, samples that are added during a long deletion are stored in between.

    Each waits for the previous one, and for at most one piece of the deletion.
    """
    path = tmp_path / "metrics.db"
    telemetry = Telemetry()
    store = threaded(path, telemetry)
    done = pieces(store)
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    yield store.add([sample(LOAD, ms, ms) for ms in range(40_000)])
    batch = yield store.fetch(40_000, EVER)
    yield store.settle([accept(batch.rows)], 1000)
    checkpointer = Checkpointer(store.database, reactor=reactor, interval=1e9, limit=1 << 40)
    service = Pruner(
        store,
        checkpointer,
        reactor=reactor,
        wall_ms=lambda: 1000,
        keep=1e6,
        limit=100_000,
        delivering=True,
        telemetry=telemetry,
    )
    with (
        mock.patch.object(retention, "ROWS", 500),
        mock.patch.object(deleter, "PAUSE", 0.0),
        Captured() as log,
    ):
        service.startService()
        ms = 50_000
        while not any(" settled samples, stamped" in text for text in log.texts(LogLevel.info)):
            before = len(done)
            ms += 1
            yield store.add([sample(LOAD, ms, 0)])
            since = done[before:]
            assert since.index("add") <= 1
            yield deferLater(reactor, 0)
        yield service.stopService()
    assert ms > 50_020
    ((left,),) = query(path, "SELECT count(*) FROM samples WHERE timestamp_ms < 50000")
    assert left < 100_000 / 27  # Bytes of the limit, and of a sample.
    assert store.pending == ms - 50_000
    yield checkpointer.stopService()
    yield Deferred.fromCoroutine(store.close(2000))


@pytest_twisted.inlineCallbacks
def test_everything_together(tmp_path: Path) -> Steps:
    """With the real thread: add, settle and prune at once; nothing pending is lost or counted."""
    path = tmp_path / "metrics.db"
    store = threaded(path)
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    checkpointer = Checkpointer(store.database, reactor=reactor, interval=1e9, limit=100_000)
    checkpointer.startService()
    limit = 600_000
    with mock.patch.object(pruner, "SIZE_EVERY", 0.01), mock.patch.object(deleter, "PAUSE", 0.0):
        telemetry = Telemetry()
        service = Pruner(
            store,
            checkpointer,
            reactor=reactor,
            wall_ms=lambda: 1000,
            keep=1e6,
            limit=limit,
            delivering=True,
            telemetry=telemetry,
        )
        service.startService()
        for n in range(60):
            adding = store.add([sample(LOAD, n * 1000 + m, m) for m in range(1000)])
            batch = yield store.fetch(900, EVER)
            yield gatherResults([adding, store.settle([accept(batch.rows)], n)])
        while (yield store.database.transact(retention.size)).file > limit:
            yield deferLater(reactor, 0.01)
        yield service.stopService()
    yield checkpointer.stopService()
    assert counted(telemetry, "storage_metrics_pruned_total") > 10_000
    assert counted(telemetry, "storage_metrics_dropped_total") == 0
    assert store.pending == 6000
    assert query(path, "SELECT count(*) FROM samples WHERE checkpoint_id IS NULL") == [(6000,)]
    yield Deferred.fromCoroutine(store.close(2000))
    assert path.stat().st_size < limit
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
