"""The write-ahead log is kept short: on simulated time, and with a reader in the way."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest_twisted
from constantly import NamedConstant
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from belatwist.model import sample
from belatwist.store.checkpointer import RETRY, Checkpointer
from belatwist.store.sql import wal
from tests.log_events import Captured
from tests.store.databases import LOAD, accept
from tests.store.stores import InFolder, query, threaded
from tests.store.suite import EVER
from tests.store.test_sqlite import Steps

HOUR = 3600.0
TWISTED = {
    *("log_level", "log_format", "log_namespace", "log_source", "log_logger", "log_time"),
    *("log_legacy", "log_system", "log_text", "log_failure"),
    *("message", "time", "system", "format", "isError", "failure", "event"),
}
"""Keys of an event that are not its own."""
COMPLETED = "WAL checkpoint completed"
AGAIN = "WAL checkpoint works again"


class Reading:
    """Another program that reads, and keeps its transaction open until the test ends it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("BEGIN")
        self._connection.execute("SELECT count(*) FROM samples").fetchall()

    def end(self) -> None:
        """Let go."""
        self._connection.close()


class CheckpointerTests(InFolder):
    """When the log is written back, and what comes of it."""

    def setUp(self) -> None:
        super().setUp()
        self.store = self.opened(self.path)
        self.clock = Clock()
        self.log = Captured()
        self.log.__enter__()
        self.addCleanup(self.log.__exit__, None, None, None)

    def start(self, interval: float = HOUR, limit: int = 1 << 30) -> Checkpointer:
        """Start; it is stopped after the test."""
        service = Checkpointer(
            self.store.database, reactor=self.clock, interval=interval, limit=limit
        )
        service.startService()
        self.addCleanup(self.stop, service)
        return service

    def stop(self, service: Checkpointer) -> None:
        """Stop; it must be done at once. What still runs after the test is stopped then."""
        if service.running:
            self.successResultOf(service.stopService())

    def fill(self, ms: int = 1, count: int = 100) -> None:
        """Store samples."""
        self.successResultOf(self.store.add([sample(LOAD, ms + n, n) for n in range(count)]))

    def logged(self, text: str) -> list[tuple[NamedConstant, dict[str, Any]]]:
        """Return level and fields of each event with a text."""
        return [
            (event["log_level"], {k: v for k, v in event.items() if k not in TWISTED})
            for event in self.log.events
            if event.get("log_format") == text
        ]

    def whys(self) -> list[str]:
        """Return why each checkpoint was made that was completed."""
        return [fields["why"] for _, fields in self.logged(COMPLETED)]

    def levels(self, text: str) -> list[NamedConstant]:
        """Return the level of each event with a text."""
        return [level for level, _ in self.logged(text)]

    def test_at_its_interval(self) -> None:
        """However small the log is, it is emptied once in each interval."""
        service = self.start()
        for _ in range(3):
            self.fill(int(self.clock.seconds()) + 1)
            assert wal.size(self.path) > 0
            self.clock.advance(HOUR - 1)
            assert wal.size(self.path) > 0
            self.clock.advance(1)
            assert wal.size(self.path) == 0
        found = service.last
        assert found is not None
        assert not found.busy
        assert found.bytes_reclaimed == found.old_size > 0
        assert found.log_frames == found.frames_checkpointed > 0
        assert found.duration_ms > 0
        assert self.whys() == ["its time has come"] * 3
        assert not service.blocked

    def test_what_is_said(self) -> None:
        """The events of a quiet life, each with all of its fields, and nothing else."""
        service = self.start(interval=HOUR, limit=64 << 20)
        assert self.logged("WAL checkpoint routine started") == [
            (LogLevel.info, {"interval": HOUR, "size_limit_mb": 64.0})
        ]
        self.fill(count=5000)
        size = wal.size(self.path)
        self.clock.advance(HOUR)
        sizes = {"wal_size_mb": round(size / 2**20, 1), "wal_size_bytes": size, "limit_mb": 64.0}
        assert self.logged("WAL size check") == [(LogLevel.debug, sizes)]
        found = service.last
        assert found is not None
        expected = {
            "duration_ms": round(found.duration_ms, 1),
            "old_size_mb": round(size / 2**20, 1),
            "new_size_mb": 0.0,
            "bytes_reclaimed": size,
            "reduction_percent": 100.0,
            "busy": False,
            "log_frames": found.log_frames,
            "frames_checkpointed": found.log_frames,
            "why": "its time has come",
        }
        assert self.logged(COMPLETED) == [(LogLevel.info, expected)]
        self.stop(service)
        assert self.logged("Running final WAL checkpoint before shutdown") == [(LogLevel.info, {})]
        assert self.logged(COMPLETED)[1][1]["reduction_percent"] == 0.0
        assert [event["event"] for event in self.log.events] == [
            "wal.routine_started",
            "wal.size_checked",
            "wal.checkpoint_completed",
            "wal.final_checkpoint",
            "wal.checkpoint_completed",
        ]

    def test_it_is_said_that_the_log_is_large(self) -> None:
        """With its size and the limit, before it is written back."""
        self.start(limit=1 << 20)
        self.fill(count=40_000)
        ((level, fields),) = self.logged("WAL size exceeds threshold, running checkpoint")
        assert level is LogLevel.info
        (_, completed) = self.logged(COMPLETED)[0]
        assert fields == {
            "wal_size_mb": completed["old_size_mb"],
            "wal_size_bytes": completed["bytes_reclaimed"],
            "limit_mb": 1.0,
        }
        assert fields["wal_size_bytes"] > 1 << 20

    def test_when_it_is_large(self) -> None:
        """The first write that finds it beyond its limit has it emptied, adding or settling."""
        self.start(limit=100_000)
        self.fill(count=100)
        assert wal.size(self.path) > 0
        self.fill(1000, count=5000)
        assert wal.size(self.path) == 0
        rows = self.successResultOf(self.store.fetch(10_000, EVER)).rows
        self.successResultOf(self.store.settle([accept(rows)], 1))
        assert wal.size(self.path) == 0
        self.fill(20_000, count=1)
        assert self.whys() == ["too large"] * 2

    def test_it_begins_anew_after_each(self) -> None:
        """After one for the size the next regular one comes an interval later."""
        self.start(limit=100_000)
        self.clock.advance(HOUR / 2)
        self.fill(count=5000)
        self.clock.advance(HOUR - 1)
        assert len(self.whys()) == 1
        self.clock.advance(1)
        assert len(self.whys()) == 2
        assert len(self.clock.getDelayedCalls()) == 1

    def test_a_checkpoint_waits_for_no_lock(self) -> None:
        """SQLite is not to wait while the log is written back, and waits as before afterwards."""
        statements: list[str] = []
        (connection,) = self.store.database._pool.connections.values()
        connection.set_trace_callback(statements.append)
        self.successResultOf(self.store.database.checkpoint())
        assert statements == [
            "PRAGMA busy_timeout=0",
            "PRAGMA wal_checkpoint(PASSIVE)",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "PRAGMA busy_timeout=5000",
        ]

    def test_a_reader_in_the_way(self) -> None:
        """No checkpoint waits for it; a blocked one is logged once, and tried again ever later."""
        service = self.start()
        self.fill()
        reader = Reading(self.path)
        self.addCleanup(reader.end)
        self.fill(1000)
        self.clock.advance(HOUR)
        assert service.last is not None
        assert service.last.busy
        assert service.blocked
        assert service.last.frames_checkpointed < service.last.log_frames
        for waited in (RETRY, 2 * RETRY, 4 * RETRY):
            (call,) = self.clock.getDelayedCalls()
            assert call.getTime() - self.clock.seconds() == waited
            self.clock.advance(waited)
        assert self.levels(COMPLETED) == [LogLevel.warn, *[LogLevel.debug] * 3]
        assert [fields["busy"] for _, fields in self.logged(COMPLETED)] == [True] * 4
        assert self.logged(AGAIN) == []
        reader.end()
        self.clock.advance(8 * RETRY)
        assert not service.last.busy
        assert not service.blocked
        assert self.levels(COMPLETED)[-1] is LogLevel.info
        said = {"seconds": 15 * RETRY, "failures": 4}
        assert self.logged(AGAIN) == [(LogLevel.info, said)]
        assert wal.size(self.path) == 0
        (call,) = self.clock.getDelayedCalls()
        assert call.getTime() - self.clock.seconds() == HOUR

    def test_a_large_log_that_is_blocked_is_not_tried_at_each_write(self) -> None:
        """Only when its time has come."""
        self.start(limit=100_000)
        self.fill()
        reader = Reading(self.path)
        self.addCleanup(reader.end)
        self.fill(1000, count=5000)
        for n in range(5):
            self.fill(10_000 + n, count=1)
        assert self.levels(COMPLETED) == [LogLevel.warn]
        reader.end()
        self.clock.advance(RETRY)
        assert wal.size(self.path) == 0

    def test_it_fails(self) -> None:
        """A failing disk is logged once, and the next attempt comes soon."""
        service = self.start()
        broken = sqlite3.OperationalError("disk I/O error")
        with mock.patch.object(self.store.database, "checkpoint", side_effect=lambda: fail(broken)):
            self.clock.advance(HOUR)
            self.clock.advance(RETRY)
        said = {
            "error": "disk I/O error",
            "error_type": "OperationalError",
            "why": "its time has come",
        }
        failed = self.logged("WAL checkpoint failed")
        assert failed == [(LogLevel.error, said), (LogLevel.debug, said)]
        self.clock.advance(2 * RETRY)
        assert service.last is not None
        assert self.logged(AGAIN) == [(LogLevel.info, {"seconds": 3 * RETRY, "failures": 2})]

    def test_it_fails_in_a_way_of_its_own(self) -> None:
        """A failure of another kind is logged with its traceback."""
        self.start()
        with mock.patch.object(
            self.store.database, "checkpoint", side_effect=lambda: fail(ValueError("x"))
        ):
            self.clock.advance(HOUR)
        (failure,) = self.flushLoggedErrors(ValueError)
        assert self.logged("WAL checkpoint failed")[0][1]["error_type"] == "ValueError"
        assert failure.getErrorMessage() == "x"

    def test_blocked_and_then_failing(self) -> None:
        """What goes wrong in another way is logged at once, and the first way not again so soon."""
        self.start()
        self.fill()
        reader = Reading(self.path)
        self.addCleanup(reader.end)
        self.fill(1000)
        self.clock.advance(HOUR)
        broken = sqlite3.OperationalError("disk I/O error")
        with mock.patch.object(self.store.database, "checkpoint", side_effect=lambda: fail(broken)):
            self.clock.advance(RETRY)
        self.clock.advance(2 * RETRY)
        assert self.levels("WAL checkpoint failed") == [LogLevel.error]
        assert self.levels(COMPLETED) == [LogLevel.warn, LogLevel.debug]

    def test_two_at_a_time(self) -> None:
        """Whoever asks for one while one is under way waits for that one."""
        service = self.start()
        under_way: Deferred[wal.Checkpoint] = Deferred()
        with mock.patch.object(self.store.database, "checkpoint", return_value=under_way):
            self.clock.advance(HOUR)
            waiting = Deferred.fromCoroutine(service.run("asked"))
            self.store.database.wal_bytes = 1 << 40
            self.fill()
        self.assertNoResult(waiting)
        under_way.callback(wal.Checkpoint(1.0, 10, 0, False, 1, 1))
        self.successResultOf(waiting)
        assert len(self.whys()) == 1

    def test_stopping(self) -> None:
        """The write-ahead log is emptied, which is logged, and no timer remains."""
        service = self.start()
        self.fill()
        self.stop(service)
        assert wal.size(self.path) == 0
        assert self.whys()[-1] == "stopping"
        assert self.clock.getDelayedCalls() == []
        self.fill(1000)

    def test_stopping_waits_for_the_one_under_way(self) -> None:
        """And does its own after it."""
        service = self.start()
        under_way: Deferred[wal.Checkpoint] = Deferred()
        with mock.patch.object(self.store.database, "checkpoint", return_value=under_way):
            self.clock.advance(HOUR)
            stopping = service.stopService()
        self.assertNoResult(stopping)
        under_way.callback(wal.Checkpoint(1.0, 10, 10, True, 1, 0))
        self.successResultOf(stopping)
        assert self.clock.getDelayedCalls() == []
        assert self.whys()[-1] == "stopping"


def test_a_database_without_a_log(tmp_path: Path) -> None:
    """Its log's size is 0."""
    assert wal.size(tmp_path / "none.db") == 0


@pytest_twisted.inlineCallbacks
def test_a_reader_does_not_hold_up_collection(tmp_path: Path) -> Steps:
    """With the real thread: while a reader stays, a checkpoint ends and samples are stored."""
    path = tmp_path / "metrics.db"
    store = threaded(path)
    yield Deferred.fromCoroutine(store.open("s1", 1000))
    yield store.add([sample(LOAD, 1, 1)])
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM samples").fetchall() == [(1,)]
        yield store.add([sample(LOAD, 2, 1)])
        service = Checkpointer(store.database, reactor=reactor, interval=HOUR, limit=1)
        service.startService()
        adding = [store.add([sample(LOAD, ms, 1)]) for ms in range(3, 20)]
        yield gatherResults(adding)
        yield Deferred.fromCoroutine(service.run("now"))
        assert service.last is not None
        assert service.last.busy
        assert reader.execute("SELECT count(*) FROM samples").fetchall() == [(1,)]
    yield service.stopService()
    assert not service.last.busy
    assert wal.size(path) == 0
    yield Deferred.fromCoroutine(store.close(2000))
    assert query(path, "SELECT count(*) FROM samples") == [(19,)]
