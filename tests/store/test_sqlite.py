"""The store on SQLite: from opening to closing, transactions that fail, and the real thread."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest_twisted
from twisted.enterprise import adbapi
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel

from belatwist.model import Sample, Series, sample
from belatwist.store import SampleStore
from belatwist.store.sql import queries, schema
from tests.fakes import InlineReactor, inline_store
from tests.log_events import Captured
from tests.store import suite
from tests.store.databases import (
    BATCH,
    CORE,
    LOAD,
    STATE,
    accept,
    reading,
    reject,
)
from tests.store.stores import InFolder, query, sessions, threaded


def fault(path: Path, table: str, condition: str) -> None:
    """Make certain inserts fail from now on, as a broken disk would."""
    with reading(path) as connection:
        connection.execute(
            f"CREATE TRIGGER fault BEFORE INSERT ON {table} WHEN {condition}"
            " BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )
        connection.commit()


def mend(path: Path) -> None:
    """Undo :func:`fault`."""
    with reading(path) as connection:
        connection.execute("DROP TRIGGER fault")
        connection.commit()


class SQLiteStoreTests(suite.Suite, InFolder):
    """Everything a store must do."""

    def setUp(self) -> None:
        InFolder.setUp(self)
        # The annotation has mypy check that it is a store.
        self.store: SampleStore = self.opened(self.path)

    def limited(self, max_series: int, reactor: InlineReactor) -> SampleStore:
        """Open another store, on the reactor's clock."""
        store = inline_store(self.folder / "limited.db", reactor=reactor, max_series=max_series)
        self.successResultOf(Deferred.fromCoroutine(store.open("s1", 1000)))
        self._open.append(store)
        return store


class LifeTests(InFolder):
    """From opening to closing, and after a crash."""

    def test_the_first_start(self) -> None:
        """The folder is made, others kept out; the session is active and says which process."""
        path = self.folder / "a" / "b" / "metrics.db"
        store = self.opened(path)
        self.assertEqual(stat.S_IMODE(path.parent.stat().st_mode) & 0o027, 0)
        self.assertEqual(sessions(path), {"s1": ("active", None)})
        self.assertEqual(
            query(path, "SELECT start_time, metadata FROM sessions"),
            [(1000, f'{{"pid": {os.getpid()}}}')],
        )
        self.assertEqual(store.pending, 0)

    def test_pages_can_be_given_back(self) -> None:
        """The file is made such that freed pages can be returned to the file system."""
        self.opened(self.path)
        self.assertEqual(query(self.path, "PRAGMA auto_vacuum"), [(2,)])

    def test_a_batch_is_marked_at_once(self) -> None:
        """What was read is marked by one statement; after a write, one by one. Reading is none."""
        store = self.opened(self.path)
        statements: list[str] = []
        (connection,) = store.database._pool.connections.values()
        connection.set_trace_callback(statements.append)
        for newest in (False, True):
            for written in (False, True):
                self.successResultOf(store.add([sample(LOAD, ms, 1) for ms in (1, 2, 3)]))
                fetched = store.fetch_newest(3, 9) if newest else store.fetch(3, 9)
                batch = self.successResultOf(fetched)
                self.successResultOf(store.database.transact(queries.count_pending))
                if written:
                    self.successResultOf(store.add([sample(LOAD, 9, 1)]))
                statements.clear()
                settlement = replace(accept(batch.rows), as_of=batch.as_of)
                self.successResultOf(store.settle([settlement], 9))
                marks = sum("UPDATE samples" in one for one in statements)
                self.assertEqual(marks, 3 if written else 1)
                self.successResultOf(
                    store.database.transact(lambda c: c.execute("DELETE FROM samples"))
                )

    def test_closing(self) -> None:
        """Closing completes the session and leaves one file, without a log beside it."""
        store = self.opened(self.path)
        self.successResultOf(store.add([sample(LOAD, 1, 1)]))
        self.assertTrue((self.folder / "metrics.db-wal").exists())
        self.close(store, 5000)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["metrics.db"])
        self.assertEqual(sessions(self.path), {"s1": ("completed", 5000)})

    def test_reopening_sees_what_is_pending(self) -> None:
        """What was not settled is pending in the next run, with its series, and known."""
        store = self.opened(self.path)
        urgent = Series.of("m", "box", {"a": "é|"}, priority=0)
        samples = [sample(LOAD, 1, 0.5), sample(CORE, 2, 1), sample(urgent, 3, 2)]
        self.successResultOf(store.add([*samples, Sample(STATE, 4, "x")]))
        self.successResultOf(store.settle([accept([(2, 2, 1)])], 9))
        self.close(store)
        again = self.opened(self.path, "s2")
        self.assertEqual(again.pending, 2)
        batch = self.successResultOf(again.fetch(10, suite.EVER))
        self.assertEqual(
            [(ms, batch.series[number], value) for ms, number, value in batch.rows],
            [(3, urgent, 2), (1, LOAD, 0.5)],
        )
        self.assertEqual(self.successResultOf(again.add(samples)), 0)
        self.assertEqual(again.pending, 2)

    def test_a_crashed_session_is_marked_failed(self) -> None:
        """What a crash leaves, a log included, opens; nothing is lost, and the log says so."""
        store = self.opened(self.path)
        self.successResultOf(store.add([sample(LOAD, 1500, 1), sample(LOAD, 1600, 2)]))
        crashed = self.folder / "crashed" / "metrics.db"
        crashed.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.path}{suffix}", f"{crashed}{suffix}")
        with Captured() as log:
            again = self.opened(crashed, "s2", 9000)
        self.assertEqual(again.pending, 2)
        self.assertEqual(sessions(crashed), {"s1": ("failed", 1600), "s2": ("active", None)})
        self.assertEqual(
            log.texts(LogLevel.warn), ["Session s1 did not end and is marked as failed"]
        )

    def test_settling_is_on_disk(self) -> None:
        """Another program sees a settlement as soon as it is settled."""
        store = self.opened(self.path)
        self.successResultOf(store.add([sample(LOAD, n, n) for n in (1, 2, 3)]))
        rows = self.successResultOf(store.fetch(10, suite.EVER)).rows
        self.successResultOf(store.settle([accept(rows[:1]), reject(rows[1:2], "no", 1)], 7))
        self.assertEqual(
            query(self.path, "SELECT uploaded, batch_id, chunk_index FROM metrics ORDER BY id"),
            [(1, BATCH, 0), (2, BATCH, 1), (0, None, None)],
        )

    def test_two_stores_on_one_file(self) -> None:
        """Should two processes ever write, both store, and each sees what the other stored."""
        one, other = self.opened(self.path), self.opened(self.path, "s2")
        self.assertEqual(self.successResultOf(one.add([sample(LOAD, 1, 1)])), 1)
        self.assertEqual(
            self.successResultOf(other.add([sample(CORE, 2, 2), sample(LOAD, 1, 9)])), 1
        )
        for store in (one, other):
            batch = self.successResultOf(store.fetch(10, suite.EVER))
            self.assertEqual(
                [(ms, batch.series[number], value) for ms, number, value in batch.rows],
                [(2, CORE, 2), (1, LOAD, 1)],
            )


class FailingTransactionTests(InFolder):
    """A transaction that fails leaves the store as it was, and the next one works."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.opened(self.path)
        self.successResultOf(self.store.add([sample(LOAD, 1, 1)]))

    def assert_as_before(self) -> None:
        """Nothing of the failed transaction is left, in the file or in the store's memory.

        A series' id that was remembered from it would now belong to another series, or to none.
        """
        self.assertEqual(self.store.pending, 1)
        late = Series.of("late", "box")
        self.assertEqual(self.successResultOf(self.store.add([sample(late, 2, 2)])), 1)
        self.assertEqual(
            self.successResultOf(self.store.add([sample(CORE, 3, 3), sample(LOAD, 4, 4)])), 2
        )
        self.assertEqual(
            query(self.path, "SELECT metric_name, metric_value FROM metrics ORDER BY id"),
            [(LOAD.name, 1.0), ("late", 2.0), (CORE.name, 3.0), (LOAD.name, 4.0)],
        )
        batch = self.successResultOf(self.store.fetch(10, suite.EVER))
        self.assertEqual(
            [(ms, batch.series[number]) for ms, number, _ in batch.rows],
            [(3, CORE), (1, LOAD), (2, late), (4, LOAD)],
        )
        self.assertEqual(self.store.pending, 4)

    def test_a_statement_fails(self) -> None:
        """One sample that cannot be written: none of its transaction is."""
        fault(self.path, "samples", "NEW.value = 13")
        adding = self.store.add([sample(CORE, 2, 2), sample(LOAD, 3, 13)])
        self.failureResultOf(adding, sqlite3.IntegrityError)
        mend(self.path)
        self.assert_as_before()

    def test_a_failure_holds_no_cursor(self) -> None:
        """The traceback would keep it, and a thread that must not wait might finalise it."""
        seen: list[Any] = []

        def fails(cursor: queries.Cursor) -> None:
            seen.append(cursor)
            raise sqlite3.OperationalError("database is locked")

        self.failureResultOf(self.store.database.transact(fails), sqlite3.OperationalError)
        with self.assertRaisesRegex(sqlite3.ProgrammingError, "closed cursor"):
            seen[0].fetchone()

    def test_a_commit_fails(self) -> None:
        """Everything was written but the commit: nothing counts as stored."""

        def broken(connection: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with mock.patch.object(adbapi.Connection, "commit", broken, create=True):
            adding = self.store.add([sample(CORE, 2, 2)])
        self.failureResultOf(adding, sqlite3.OperationalError)
        self.assert_as_before()

    def test_a_name_that_utf8_cannot_hold(self) -> None:
        """SQLite refuses a lone surrogate: that fails the whole transaction, and no later one."""
        odd = Series.of("m", "box", {"t": "\udcff"})
        adding = self.store.add([sample(CORE, 2, 2), sample(odd, 2, 2)])
        self.failureResultOf(adding, UnicodeEncodeError)
        self.assert_as_before()

    def test_no_id_is_left_for_a_series(self) -> None:
        """A series beyond the last id is refused; known ones of the same tick are stored."""
        with reading(self.path) as connection:
            last = (schema.ID_BASE - 1, "last")
            connection.execute("INSERT INTO series VALUES (?, ?, 'box', '{}', 0)", last)
            connection.commit()
        adding = self.store.add([sample(CORE, 2, 2), sample(LOAD, 2, 2)])
        self.assertEqual(self.successResultOf(adding), 1)
        rows = query(self.path, "SELECT timestamp_ms, metric_name FROM metrics")
        self.assertIn((2, LOAD.name), rows)
        self.assertNotIn((2, CORE.name), rows)

    def test_settling_fails(self) -> None:
        """Settlements that cannot be recorded leave everything pending."""
        fault(self.path, "upload_checkpoints", "NEW.chunk_index = 1")
        self.successResultOf(self.store.add([sample(LOAD, 2, 2)]))
        rows = self.successResultOf(self.store.fetch(10, suite.EVER)).rows
        settling = self.store.settle([accept(rows[:1]), accept(rows[1:], 1)], 9)
        self.failureResultOf(settling, sqlite3.IntegrityError)
        self.assertEqual(self.store.pending, 2)
        self.assertEqual(self.successResultOf(self.store.fetch(10, suite.EVER)).rows, rows)

    def test_what_comes_between_is_not_settled(self) -> None:
        """A sample that is stored while others around it are under way waits for its own turn."""
        self.successResultOf(self.store.add([sample(LOAD, ms, ms) for ms in (2, 4)]))
        batch = self.successResultOf(self.store.fetch(9, suite.EVER))
        self.successResultOf(self.store.add([sample(LOAD, 3, 3)]))
        gone = self.store.database.transact(
            lambda c: c.execute("DELETE FROM samples WHERE value = 4")
        )
        self.successResultOf(gone)
        settlement = replace(accept(batch.rows), as_of=batch.as_of)
        self.successResultOf(self.store.settle([settlement], 9))
        self.assertEqual(self.successResultOf(self.store.fetch(9, suite.EVER)).rows, [(3, 1, 3)])

    def test_another_program_holds_the_lock(self) -> None:
        """When the wait for a lock is over, the write fails cleanly; reading goes on meanwhile."""
        hasty = inline_store(self.path, busy_timeout_ms=1)
        self.successResultOf(Deferred.fromCoroutine(hasty.open("s2", 1000)))
        self.addCleanup(self.close, hasty)
        with reading(self.path) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            error = self.failureResultOf(hasty.add([sample(CORE, 2, 2)]), sqlite3.OperationalError)
            self.assertEqual(str(error.value), "database is locked")
            self.assertEqual(len(self.successResultOf(hasty.fetch(10, suite.EVER)).rows), 1)
        self.assertEqual(hasty.pending, 1)
        self.assertEqual(self.successResultOf(hasty.add([sample(CORE, 2, 2)])), 1)


Steps = Generator["Deferred[Any]", Any, None]


@pytest_twisted.inlineCallbacks
def test_in_a_thread(tmp_path: Path) -> Steps:
    """A life on the real reactor: open, add, fetch, settle, close, and open again."""
    path = tmp_path / "metrics.db"
    store = threaded(path)
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    adding = store.add([sample(LOAD, 1, 1), sample(CORE, 2, 2)])
    assert not adding.called
    assert (yield adding) == 2
    batch = yield store.fetch(1, suite.EVER)
    assert batch.rows == [(2, 2, 2)]
    yield store.settle([accept(batch.rows)], 1500)
    assert store.pending == 1
    yield Deferred.fromCoroutine(store.close(2000))
    assert sessions(path) == {"s1": ("completed", 2000)}
    again = threaded(path)
    yield Deferred.fromCoroutine(again.open("s2", 3000))
    assert again.pending == 1
    batch = yield again.fetch(10, suite.EVER)
    assert [(batch.series[i], value) for _, i, value in batch.rows] == [(LOAD, 1)]
    yield Deferred.fromCoroutine(again.close(4000))


@pytest_twisted.inlineCallbacks
def test_calls_are_done_in_their_order(tmp_path: Path) -> Steps:
    """Calls that are not waited for are done one after the other, as they were made."""
    store = threaded(tmp_path / "metrics.db")
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    many = [Series.of("m", "box", {"n": str(n)}) for n in range(5)]
    adding = [store.add([sample(one, ms, 1) for one in many[: ms % 5 + 1]]) for ms in range(1, 40)]
    reading_all = store.fetch(1000, suite.EVER)
    counts = yield gatherResults(adding)
    assert counts == [ms % 5 + 1 for ms in range(1, 40)]
    batch = yield reading_all
    assert len(batch.rows) == sum(counts) == store.pending
    assert {(ms, batch.series[i]) for ms, i, _ in batch.rows} == {
        (ms, one) for ms in range(1, 40) for one in many[: ms % 5 + 1]
    }
    yield Deferred.fromCoroutine(store.close(2000))


@pytest_twisted.inlineCallbacks
def test_closing_waits_for_what_was_begun(tmp_path: Path) -> Steps:
    """Samples that were added just before closing are on disk."""
    path = tmp_path / "metrics.db"
    store = threaded(path)
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    adding = [store.add([sample(LOAD, ms, 1)]) for ms in range(1, 20)]
    yield Deferred.fromCoroutine(store.close(2000))
    assert all(one.called for one in adding)
    assert query(path, "SELECT count(*) FROM metrics") == [(19,)]


@pytest_twisted.inlineCallbacks
def test_a_lock_is_waited_for(tmp_path: Path) -> Steps:
    """A write waits in its thread while another program holds the lock; the reactor goes on."""
    path = tmp_path / "metrics.db"
    store = threaded(path)
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    with reading(path) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        adding = store.add([sample(LOAD, 1, 1)])
        IReactorTime(reactor).callLater(0.05, blocker.commit)
        assert (yield adding) == 1
    yield Deferred.fromCoroutine(store.close(2000))
