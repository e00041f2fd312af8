"""The state that the database shows, and how its long steps end when the agent stops."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import LogLevel

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Series, sample
from belatwist.store import pool
from belatwist.store.buffer import WriteBuffer
from belatwist.store.migration import steps
from belatwist.store.salvage import damage, replacement
from belatwist.store.salvage.reader import DamagedReader
from belatwist.store.sql import schema, wal
from belatwist.store.sql.eras import ROWS
from belatwist.store.sql.interrupt import StepMonitor
from belatwist.store.sqlite import SQLiteStore
from tests.fakes import inline_store
from tests.log_events import Captured
from tests.process import TIMEOUT
from tests.store import suite
from tests.store.databases import CORE, LOAD, accept, make_version_1, reading
from tests.store.salvage.test_salvage import healthy, overwritten
from tests.store.sql.test_interrupt import FOR_EVER
from tests.store.stores import InFolder, counted, query, sessions, threaded
from tests.store.test_sqlite import Steps

PAGES = 100


def opening(store: SQLiteStore, now_ms: int = 1000) -> "Deferred[None]":
    """Open a store."""
    return Deferred.fromCoroutine(store.open("s9", now_ms))


def noted(store: SQLiteStore, seen: list[str | None], function: Callable[..., Any]) -> Any:
    """Make a function note what the store says while it runs."""

    def noting(*args: Any, **kw: Any) -> Any:
        seen.append(store.database.opening)
        return function(*args, **kw)

    return noting


class OpeningTests(InFolder):
    """In words, what it does before it can be used."""

    def setUp(self) -> None:
        super().setUp()
        self.store = inline_store(self.path)
        self.seen: list[str | None] = []

    def open(self, module: Any, name: str) -> str | None:
        """Open it, noting what it says when a function is called; it is closed after the test."""
        self._open.append(self.store)
        function = getattr(module, name)
        with mock.patch.object(module, name, noted(self.store, self.seen, function)):
            self.successResultOf(opening(self.store))
        return self.store.database.opening

    def test_a_new_one(self) -> None:
        """It is being opened, then checked, and then there is nothing to be said."""
        self.assertEqual(self.store.database.opening, "is being opened")
        self.assertIsNone(self.open(schema, "create"))
        self.assertEqual(self.seen, ["is being opened"])

    def test_it_is_checked(self) -> None:
        """After a crash that takes its time."""
        self.assertIsNone(self.open(damage, "check"))
        self.assertEqual(self.seen, ["is being checked"])

    def test_it_is_migrated(self) -> None:
        """From which version, and how far that is."""
        make_version_1(self.path)
        self.assertIsNone(self.open(steps.Migration, "step"))
        self.assertEqual(self.seen[0], "is being migrated")
        self.assertEqual(self.seen[1], "is being migrated from version 1, 0 %")
        self.assertEqual(self.seen[-1], "is being migrated from version 1, 100 %")

    def test_it_is_replaced(self) -> None:
        """Once that is over it says when it was, and what became of it."""
        self.path.write_bytes(overwritten(1))
        self.store.database._reactor.advance(7)
        self.assertIsNone(self.open(replacement, "replace"))
        self.assertEqual(self.seen, ["is being replaced, it was damaged"])
        self.assertEqual(self.store.lifecycle.salvaged_at, 7)
        assert self.store.lifecycle.salvaged is not None
        self.assertEqual(self.store.lifecycle.salvaged.recovered, self.store.pending)

    def test_it_is_replaced_while_running(self) -> None:
        """The same holds then."""
        self.path.write_bytes(healthy()[0])
        self.open(damage, "check")
        self.seen.clear()
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

        def fails(_: object) -> None:
            raise error

        with mock.patch.object(
            replacement, "replace", noted(self.store, self.seen, replacement.replace)
        ):
            self.failureResultOf(self.store.database.transact(fails), sqlite3.DatabaseError)
        self.assertEqual(self.seen, ["is being replaced, it was damaged"])
        self.assertIsNone(self.store.database.opening)
        self.assertIsNotNone(self.store.lifecycle.salvaged)
        self.assertEqual(self.store.database.database_bytes, self.path.stat().st_size)
        ((oldest,),) = query(self.path, "SELECT min(timestamp_ms) FROM samples")
        self.assertEqual(self.store.database.oldest_ms, oldest)


class SizesTests(InFolder):
    """Sizes and the oldest sample are known at any time, without asking the database."""

    def test_from_start_to_end(self) -> None:
        """They are right after each change, a start on what is there included."""
        store = self.opened(self.path)
        self.assertIsNone(store.database.oldest_ms)
        self.successResultOf(store.add([sample(LOAD, 500 + ms, ms) for ms in range(5000)]))
        self.assertEqual(store.database.oldest_ms, 500)
        self.assertEqual(store.database.wal_bytes, wal.size(self.path))
        self.assertGreater(store.database.wal_bytes, 100_000)
        self.successResultOf(store.add([sample(LOAD, 400, 1)]))
        self.assertEqual(store.database.oldest_ms, 400)
        self.successResultOf(store.database.checkpoint())
        self.assertEqual(
            (store.database.wal_bytes, store.database.database_bytes), (0, self.path.stat().st_size)
        )
        rows = self.successResultOf(store.fetch(10_000, suite.EVER)).rows
        self.successResultOf(store.settle([accept(rows)], 9))
        self.assertEqual(store.database.oldest_ms, 400)
        self.successResultOf(store.database.transact(lambda c: c.execute("DELETE FROM samples")))
        self.assertIsNone(store.database.oldest_ms)
        self.successResultOf(store.database.vacuum(1000))
        self.successResultOf(store.database.checkpoint())
        self.assertEqual(store.database.database_bytes, self.path.stat().st_size)
        self.assertLess(store.database.database_bytes, 100_000)
        self.successResultOf(store.add([sample(CORE, 700, 1)]))
        self.close(store)
        again = self.opened(self.path, "s2")
        self.assertEqual((again.database.oldest_ms, again.pending), (700, 1))
        self.assertEqual(again.database.database_bytes, self.path.stat().st_size)

    def test_what_is_rolled_back_does_not_count(self) -> None:
        """A transaction that fails leaves them as they were."""
        store = self.opened(self.path)
        self.successResultOf(store.add([sample(LOAD, 500, 1)]))
        adding = store.add([sample(LOAD, 1, 1), sample(LOAD, 2**70, 1)])
        self.failureResultOf(adding, OverflowError)
        self.assertEqual(store.database.oldest_ms, 500)


class TelemetryTests(InFolder):
    """How long it takes to read and to write."""

    def test_what_is_timed(self) -> None:
        """Reading pending samples, and storing and marking them; nothing else, and no failure."""
        telemetry = Telemetry()
        store = inline_store(self.path, telemetry=telemetry)
        self._open.append(store)
        self.successResultOf(opening(store))

        def timed() -> tuple[float, float]:
            return (
                counted(telemetry, "storage_query_duration_seconds_count"),
                counted(telemetry, "storage_write_duration_seconds_count"),
            )

        self.assertEqual(timed(), (0, 0))
        self.successResultOf(store.add([sample(LOAD, 1, 1), sample(LOAD, 2, 1)]))
        self.assertEqual(timed(), (0, 1))
        batch = self.successResultOf(store.fetch(1, suite.EVER))
        self.successResultOf(store.fetch_newest(1, suite.EVER))
        self.assertEqual(timed(), (2, 1))
        self.successResultOf(store.settle([accept(batch.rows)], 9))
        self.assertEqual(timed(), (2, 2))
        self.successResultOf(store.database.transact(lambda _: None))
        self.successResultOf(store.database.checkpoint())
        self.failureResultOf(store.add([sample(LOAD, 2**70, 1)]), OverflowError)
        self.assertEqual(timed(), (2, 2))
        self.assertGreater(counted(telemetry, "storage_write_duration_seconds_sum"), 0)


class InterruptionTests(InFolder):
    """A stop does not wait for work that the next start resumes, and nothing is lost by that."""

    def left(self, store: SQLiteStore) -> None:
        """Open it; it must be left, and be closed without a session."""
        with Captured() as log:
            self.successResultOf(opening(store))
        (text,) = [t for t in log.texts(LogLevel.info) if t.startswith("Startup interrupted")]
        self.assertIn(
            f"while the database {store.database.opening}; it resumes at the next start", text
        )
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(store.close(2))), False)

    def test_before_anything(self) -> None:
        """A start that is over before it has begun leaves a database without a session."""
        store = inline_store(self.path)
        store.database.interrupt()
        self.left(store)
        self.assertEqual(sessions(self.path), {})

    def test_a_replacement(self) -> None:
        """The damaged database stays in its place, and the next start recovers all of it."""
        self.path.write_bytes(overwritten(1))
        before = self.path.read_bytes()
        listed = DamagedReader.count_indexed

        def stopping(one: DamagedReader) -> int | None:
            store.database.interrupt()
            return listed(one)

        store = inline_store(self.path)
        with mock.patch.object(DamagedReader, "count_indexed", stopping):
            self.left(store)
        self.assertEqual(store.database.opening, "is being replaced, it was damaged")
        self.assertIsNone(store.lifecycle.salvaged)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual([one.name for one in self.folder.iterdir()], ["metrics.db"])
        self.assertEqual(self.opened(self.path, "s2").pending, 8000)

    def test_a_copy_on_the_way(self) -> None:
        """A large file that is copied because its first page is lost does not hold it up."""
        self.path.write_bytes(overwritten(1))
        read = Path.open

        def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            if (path, mode) == (self.path, "rb"):
                store.database.interrupt()
            return read(path, mode, *args, **options)

        store = inline_store(self.path)
        with mock.patch.object(Path, "open", opened):
            self.left(store)
        self.assertEqual([one.name for one in self.folder.iterdir()], ["metrics.db"])

    def test_a_replacement_while_running(self) -> None:
        """The session does not end, so that the next start finds the damage. Samples are stored as
        far as possible, and recovered then.
        """
        self.path.write_bytes(healthy()[0])
        store = self.opened(self.path, "s2")
        listed = DamagedReader.count_indexed

        def stopping(one: DamagedReader) -> int | None:
            store.database.interrupt()
            return listed(one)

        def fails(cursor: Any) -> None:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            with self.path.open("r+b") as file:
                file.seek((healthy()[2]["samples"][-9] - 1) * schema.PAGE_SIZE)
                file.write(b"\xa5" * schema.PAGE_SIZE)
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        with mock.patch.object(DamagedReader, "count_indexed", stopping), Captured() as log:
            self.failureResultOf(store.database.transact(fails), sqlite3.DatabaseError)
        self.assertIn("it resumes at the next start", log.texts(LogLevel.info)[-1])
        self.assertIsNone(store.lifecycle.salvaged)
        self.assertIsNone(store.database.opening)
        # It is met again: nothing more is begun, now that the agent is to stop.
        self.failureResultOf(store.database.transact(fails), sqlite3.DatabaseError)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(store.close(5))), False)
        self._open.remove(store)
        self.assertEqual(sessions(self.path)["s2"], ("active", None))
        again = self.opened(self.path, "s3")
        self.assertIsNotNone(again.lifecycle.salvaged)
        self.assertGreater(again.pending, 7000)

    def test_stopping_in_order(self) -> None:
        """What is not at anything long is not disturbed."""
        store = self.opened(self.path)
        store.database.interrupt()
        self.assertEqual(self.successResultOf(store.add([sample(LOAD, 1, 1)])), 1)
        self.successResultOf(store.database.checkpoint())
        self.close(store, 5)
        self.assertEqual(sessions(self.path), {"s1": ("completed", 5)})


def test_a_vacuum_that_is_left_is_no_lack_of_room(tmp_path: Path) -> None:
    """It is not taken for one that failed: the migration goes on with it at the next start."""
    with closing(sqlite3.connect(tmp_path / "metrics.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t SELECT zeroblob(100000)")
        connection.commit()
        connection.execute("DELETE FROM t")
        connection.commit()
        begun: list[str] = []
        connection.set_trace_callback(begun.append)
        connection.set_progress_handler(lambda: "VACUUM" in begun, 1)
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            steps._shrink(connection)


def waited_for(event: threading.Event) -> None:
    """Block the thread until an event comes."""
    assert event.wait(TIMEOUT)


@pytest_twisted.inlineCallbacks
def test_the_check_at_the_start_is_left(tmp_path: Path) -> Steps:
    """With the real thread: a stop while all of it is read is prompt; the next start reads it."""
    path = tmp_path / "metrics.db"
    path.write_bytes(healthy()[0])
    with reading(path) as connection:
        connection.execute("UPDATE sessions SET status = 'active'")
        connection.commit()
    begun = threading.Event()

    def long(connection: Any) -> None:
        begun.set()
        connection.execute(FOR_EVER).fetchall()

    store = threaded(path)
    with mock.patch.object(damage, "check", long):
        starting = opening(store)
        while not begun.is_set():
            yield deferLater(reactor, 0)
        assert store.database.opening == "is being checked"
        while store.database.progress() is None:
            yield deferLater(reactor, 0)
        store.database.interrupt()
        yield starting
    assert store.database.opening == "is being checked"
    assert store.database.progress() is None
    yield Deferred.fromCoroutine(store.close(5))
    assert sessions(path)["s1"][0] == "active"
    again = threaded(path)
    yield opening(again)
    assert again.pending == 8000
    yield Deferred.fromCoroutine(again.close(5))


@pytest_twisted.inlineCallbacks
def test_sqlite_leaves_its_own_check(tmp_path: Path) -> Steps:
    """With the real thread and the real check, in the middle of it: it is interrupted, and the
    database is not taken for damaged.
    """
    path = tmp_path / "metrics.db"
    path.write_bytes(healthy()[0])
    with reading(path) as connection:
        connection.execute("UPDATE sessions SET status = 'active'")
        connection.commit()
    begun, go_on = threading.Event(), threading.Event()
    interrupted = StepMonitor.interrupted

    def looked(monitor: StepMonitor) -> bool:
        if store.database.opening == "is being checked":
            begun.set()
            waited_for(go_on)
        return interrupted(monitor)

    with (
        mock.patch.object(pool, "INTERRUPT_CHECK_EVERY", 1000),
        mock.patch.object(StepMonitor, "interrupted", looked),
    ):
        store = threaded(path)
        starting = opening(store)
        while not begun.is_set():
            assert not starting.called
            yield deferLater(reactor, 0)
        store.database.interrupt()
        go_on.set()
        yield starting
        assert (store.database.opening, store.lifecycle.salvaged) == ("is being checked", None)
        yield Deferred.fromCoroutine(store.close(5))
    assert sessions(path)["s1"][0] == "active"
    assert [one.name for one in tmp_path.iterdir()] == ["metrics.db"]


@pytest_twisted.inlineCallbacks
def test_a_ping_waits_for_its_turn(tmp_path: Path) -> Steps:
    """It is answered by the database's thread, in its turn; meanwhile there is no progress to be
    seen of something that should not take long.
    """
    store = threaded(tmp_path / "metrics.db")
    yield opening(store)
    yield store.database.ping()
    release = threading.Event()
    blocking = store.database.transact(lambda _: waited_for(release))
    ping = store.database.ping()
    yield deferLater(reactor, 0.02)
    assert not ping.called
    assert store.database.progress() is None
    release.set()
    yield blocking
    assert (yield ping) is None
    yield Deferred.fromCoroutine(store.close(5))


@pytest_twisted.inlineCallbacks
def test_progress_of_a_checkpoint(tmp_path: Path) -> Steps:
    """While it writes there are signs of life; while the disk does not answer there are none."""
    store = threaded(tmp_path / "metrics.db")
    yield opening(store)
    begun, release = threading.Event(), threading.Event()

    def hanging(*args: Any) -> wal.Checkpoint:
        begun.set()
        waited_for(release)
        return wal.Checkpoint(1.0, 0, 0, False, 0, 0)

    with mock.patch.object(wal, "checkpoint", hanging):
        checkpoint = store.database.checkpoint()
        while not begun.is_set():
            yield deferLater(reactor, 0)
        yield deferLater(reactor, 0.02)
        first = store.database.progress()
        assert first is not None
        yield deferLater(reactor, 0.02)
        assert store.database.progress() == first
        release.set()
        yield checkpoint
    assert store.database.progress() is None
    yield Deferred.fromCoroutine(store.close(5))


@pytest_twisted.inlineCallbacks
def test_ticks_are_stored_while_samples_are_moved(tmp_path: Path) -> Steps:
    """With the real thread: between two portions what is collected is stored, and stands where it
    belongs; nothing is given out before all is moved.
    """
    path = tmp_path / "metrics.db"
    store = threaded(path)
    yield opening(store)
    buffer = WriteBuffer(store, seconds=time.monotonic, telemetry=Telemetry())
    buffer.startService()
    assert not (yield buffer.enter_era("boot", 1000))
    count = 20 * ROWS
    series = [Series.of("m", "box", {"n": str(n)}, priority=n) for n in range(2)]
    for first in range(0, count, 5000):
        yield buffer.add([sample(series[n % 2], n, n) for n in range(first, first + 5000)])
    yield deferLater(reactor, 0)  # The last write has ended.
    stepping = buffer.step_clock("boot", 1_000_000_000 + 1000, 1_000_000_000)
    ticks = 0
    while not stepping.called:
        assert (yield store.fetch(10, suite.EVER)).rows == () or stepping.called
        assert (yield buffer.add([sample(LOAD, 2_000_000_000 + ticks, ticks)])) == 1
        ticks += 1
    assert (yield stepping) == (count, 0)
    assert ticks > 5
    assert store.pending == count + ticks
    assert query(path, "SELECT min(timestamp_ms), count(*) FROM samples") == [
        (1_000_000_000, count + ticks)
    ]
    assert len((yield store.fetch(10, suite.EVER)).rows) == 10
    assert query(path, "SELECT DISTINCT value - timestamp_ms FROM samples WHERE era = 2") == [
        (-1_000_000_000,),
        (-2_000_000_000,),
    ]
    yield buffer.stopService()
    yield Deferred.fromCoroutine(store.close(5))
