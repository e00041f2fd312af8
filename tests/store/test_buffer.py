"""The memory between the scheduler and the store: its waiting and dropped samples, and its log."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series, sample
from belatwist.store.batch_write import BATCH_SIZE, MAX_FAILURES
from belatwist.store.buffer import WRITE_TIMEOUT, WriteBuffer
from belatwist.store.sql.eras import Restamped
from tests.log_events import Captured
from tests.store.databases import CORE, LOAD
from tests.store.stores import InFolder, counted, query

NOTHING_MOVED = Restamped(0, 0, None, more=False)
FULL = sqlite3.OperationalError("database or disk is full")


class ScriptedStore:
    """Stores its samples, unless a test has it fail or hang.

    :ivar stored: what was stored, in order.
    :ivar calls: what it was asked to do, in order.
    :ivar broken: makes every call fail.
    :ivar bad: tells samples that make their transaction fail.
    :ivar moves: what each portion of what is to be moved comes to.
    """

    def __init__(self) -> None:
        self.stored: list[Sample] = []
        self.calls: list[str | int] = []
        self.broken: Exception | None = None
        self.bad: Callable[[Sample], bool] = lambda _: False
        self.hanging: list[Deferred[None]] | None = None
        self.moves: list[Restamped] = []

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        self.calls.append(len(samples))
        return self._answer(lambda: self._add(samples))

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        self.calls.append("enter")
        return self._answer(lambda: True)

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[None]":
        self.calls.append("step")
        return self._answer(lambda: None)

    def restamp_samples(self) -> "Deferred[Restamped]":
        self.calls.append("move")
        return self._answer(lambda: self.moves.pop(0) if self.moves else NOTHING_MOVED)

    def trust_clock(self) -> "Deferred[None]":
        self.calls.append("trust")
        return self._answer(lambda: None)

    def release(self) -> None:
        """Let the calls that hang go on, and no more hang."""
        hanging, self.hanging = self.hanging or [], None
        for one in hanging:
            one.callback(None)

    def _add(self, samples: Sequence[Sample]) -> int:
        if any(self.bad(one) for one in samples):
            raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
        self.stored += samples
        return len(samples)

    def _answer(self, act: Callable[[], Any]) -> "Deferred[Any]":
        def go(_: object) -> Any:
            if self.broken is not None:
                raise self.broken
            return act()

        if self.hanging is None:
            return succeed(None).addCallback(go)
        waiting: Deferred[None] = Deferred()
        self.hanging.append(waiting)
        return waiting.addCallback(go)


def tick(at: int, count: int = 3) -> list[Sample]:
    """Make a tick's samples."""
    return [sample(LOAD, at * 1000 + n, n) for n in range(count)]


class WriteBufferTests(SynchronousTestCase):
    """One write at a time; what fails is tried again at the next tick."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = ScriptedStore()
        self.buffer = self.made()

    def made(self, **options: Any) -> WriteBuffer:
        """Make a buffer on the store, running."""
        self.telemetry = Telemetry()
        buffer = WriteBuffer(
            self.store, seconds=self.clock.seconds, telemetry=self.telemetry, **options
        )
        buffer.startService()
        return buffer

    def lost(self) -> float:
        """Return how many samples were lost, as the agent's own metrics have it."""
        return counted(self.telemetry, "storage_metrics_dropped_total")

    def failures(self) -> float:
        """Return how many writes failed, as the agent's own metrics have it."""
        return counted(self.telemetry, "storage_write_failures_total")

    def test_a_tick_goes_straight_through(self) -> None:
        """While all is well, a tick is one transaction, done at once, and nothing is logged."""
        with Captured() as log:
            self.assertEqual(self.successResultOf(self.buffer.add(tick(1))), 3)
        self.assertEqual(self.store.stored, tick(1))
        self.assertEqual(self.store.calls, [3])
        self.assertEqual((self.buffer.waiting, self.buffer.error), (0, None))
        self.assertEqual(log.events, [])

    def test_a_full_disk(self) -> None:
        """Samples that cannot be stored wait, and the next tick stores all of them, in order. The
        log has a line for each change of state.
        """
        self.store.broken = FULL
        with Captured() as log:
            for at in range(5):
                self.assertEqual(self.successResultOf(self.buffer.add(tick(at))), 0)
                self.clock.advance(10)
        self.assertEqual((self.buffer.waiting, self.buffer.error), (15, str(FULL)))
        self.assertEqual((self.failures(), self.lost(), self.buffer.lost_at), (5, 0, None))
        self.assertEqual(
            log.texts(LogLevel.error),
            ["Samples cannot be stored and wait in memory: database or disk is full"],
        )
        self.assertEqual(len(log.texts(LogLevel.debug)), 4)
        self.store.broken = None
        with Captured() as log:
            self.assertEqual(self.successResultOf(self.buffer.add(tick(5))), 3)
        self.assertEqual(self.store.stored, [one for at in range(6) for one in tick(at)])
        self.assertEqual((self.buffer.waiting, self.buffer.error), (0, None))
        self.assertEqual(
            log.texts(LogLevel.info),
            ["Samples are stored again (18 had waited, 0 were dropped), after 50 s and 5 failures"],
        )

    def test_another_failure_is_logged_at_once(self) -> None:
        """A database that is locked after the disk was full is another kind of failure."""
        self.store.broken = FULL
        locked = sqlite3.OperationalError("database is locked")
        locked.sqlite_errorname = "SQLITE_BUSY"
        with Captured() as log:
            self.buffer.add(tick(1))
            self.buffer.add(tick(2))
            self.store.broken = locked
            self.clock.advance(10)
            self.buffer.add(tick(3))
            self.buffer.add(tick(4))
        self.assertEqual(
            [
                (e["sqlite_error"], e["waiting"])
                for e in log.events
                if e["log_level"] > LogLevel.info
            ],
            [(None, 3), ("SQLITE_BUSY", 9)],
        )
        self.assertIn("database is locked; 3 failures in 10 s", log.texts(LogLevel.error)[1])

    def test_samples_that_the_store_goes_on_refusing(self) -> None:
        """All are counted; the log names one of them every ten minutes."""
        odd = Series.of("odd", "box", {"t": "\udcff"})
        self.store.bad = lambda one: one.series is odd
        with Captured() as log:
            for at in range(61):
                self.buffer.add([*tick(at), sample(odd, at, 1)])
                self.clock.advance(10)
        self.assertEqual(self.lost(), 61)
        self.assertEqual(len(log.texts(LogLevel.error)), 2)

    def test_every_failure_of_the_database_keeps_the_samples(self) -> None:
        """Full, broken, locked, read-only, damaged: any error of the database itself."""
        for error in (
            sqlite3.OperationalError("disk I/O error"),
            sqlite3.OperationalError("database is locked"),
            sqlite3.OperationalError("attempt to write a readonly database"),
            sqlite3.DatabaseError("database disk image is malformed"),
        ):
            self.store.broken = error
            self.store.calls.clear()
            self.buffer.add(tick(1))
            self.assertEqual(len(self.store.calls), 1)
            self.assertEqual(self.buffer.error, str(error))
        self.assertEqual(self.buffer.waiting, 12)

    def test_the_oldest_are_dropped(self) -> None:
        """Beyond the limit the oldest samples go, to the sample, and are counted."""
        self.buffer = self.made(limit=10)
        self.store.broken = FULL
        for at in range(5):
            self.clock.advance(1)
            self.buffer.add(tick(at))
        self.assertEqual((self.buffer.waiting, self.lost()), (10, 5))
        self.assertEqual((self.failures(), self.buffer.lost_at), (5, 5.0))
        self.store.broken = None
        with Captured() as log:
            self.buffer.add(tick(5))
        everything = [one for at in range(6) for one in tick(at)]
        self.assertEqual(self.store.stored, everything[-10:])
        self.assertIn("10 had waited, 8 were dropped", log.texts(LogLevel.info)[0])
        self.buffer.add(tick(6, 25))
        self.assertEqual(self.store.stored[10:], tick(6, 25)[-10:])

    def test_ticks_pile_up_behind_a_slow_write(self) -> None:
        """Only one write is in flight; what came meanwhile is written together after it."""
        self.store.hanging = []
        telling = [self.buffer.add(tick(at)) for at in range(5)]
        self.assertEqual(self.store.calls, [3])
        self.assertEqual(self.buffer.waiting, 15)
        self.store.release()
        self.assertEqual(self.store.calls, [3, 12])
        self.assertEqual([self.successResultOf(one) for one in telling], [3] * 5)
        self.assertEqual(self.store.stored, [one for at in range(5) for one in tick(at)])

    def test_transactions_are_bounded(self) -> None:
        """However much waits, a transaction takes a batch; a larger tick is cut."""
        self.store.hanging = []
        for at in range(40):
            self.buffer.add(tick(at, 200))
        self.buffer.add(tick(100, BATCH_SIZE + 1))
        self.store.release()
        self.assertEqual(
            sum(c for c in self.store.calls if isinstance(c, int)), 8000 + BATCH_SIZE + 1
        )
        self.assertLessEqual(max(c for c in self.store.calls if isinstance(c, int)), BATCH_SIZE)
        self.assertEqual(self.store.stored[-1], tick(100, BATCH_SIZE + 1)[-1])

    def test_a_write_that_does_not_end(self) -> None:
        """It counts as a failure after a while, until it ends; and memory stays bounded."""
        self.buffer = self.made(limit=12)
        self.store.hanging = []
        self.buffer.add(tick(0))
        with Captured() as log:
            for at in range(1, 10):
                self.clock.advance(WRITE_TIMEOUT / 4)
                self.buffer.add(tick(at))
        self.assertEqual(len(log.texts(LogLevel.error)), 1)
        self.assertIn("has not answered", self.buffer.error or "")
        self.assertEqual((self.buffer.waiting, self.lost()), (12, 18))
        with Captured() as log:
            self.store.release()
        self.assertEqual((self.buffer.waiting, self.buffer.error), (0, None))
        self.assertEqual(len(log.texts(LogLevel.info)), 1)

    def test_a_sample_that_the_store_refuses(self) -> None:
        """It is found, dropped and named; all others are stored, in their order."""
        odd = Series.of("odd", "box", {"t": "\udcff"})
        self.store.bad = lambda one: one.series is odd
        samples = tick(1, 50)
        samples[20] = sample(odd, 1, 1)
        with Captured() as log:
            self.assertEqual(self.successResultOf(self.buffer.add(samples)), 49)
        self.assertEqual(self.store.stored, samples[:20] + samples[21:])
        self.assertEqual((self.lost(), self.buffer.error), (1, None))
        (said,) = log.texts(LogLevel.error)
        self.assertIn("1 sample dropped, the database refuses them: 'utf-8' codec", said)
        self.assertIn("odd", said)
        said.encode()
        with Captured() as log:
            self.buffer.add(tick(2))
        (said,) = log.texts(LogLevel.info)
        self.assertTrue(said.startswith("The database takes all samples again"), said)

    def test_a_fault_at_each_tick(self) -> None:
        """It is logged once, with its traceback."""
        with (
            patch("belatwist.store.buffer.BatchWrite", side_effect=TypeError("fault")),
            Captured() as log,
        ):
            for at in range(10):
                self.buffer.add(tick(at))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(
            log.texts(LogLevel.critical), ["Writing samples failed unexpectedly: fault"]
        )

    def test_a_store_that_refuses_everything(self) -> None:
        """Then it is not the samples' fault: none is dropped, and attempts are bounded."""
        self.store.bad = lambda _: True
        self.buffer.add(tick(1, 500))
        self.assertEqual((self.buffer.waiting, self.lost()), (500, 0))
        self.assertLessEqual(len(self.store.calls), MAX_FAILURES + 1)
        self.assertIn("codec", self.buffer.error or "")
        self.store.bad = lambda _: False
        self.buffer.add(tick(2))
        self.assertEqual(self.store.stored, tick(1, 500) + tick(2))

    def test_a_refused_sample_alone_waits_for_another(self) -> None:
        """By itself it cannot be done from a store that refuses everything; with others it can."""
        self.store.bad = lambda one: one.timestamp_ms == 1000
        self.buffer.add(tick(1, 1))
        self.assertEqual((self.buffer.waiting, self.lost()), (1, 0))
        self.buffer.add(tick(2, 1))
        self.assertEqual((self.buffer.waiting, self.lost()), (0, 1))
        self.assertEqual(self.store.stored, tick(2, 1))
        self.assertIsNone(self.buffer.error)

    def test_very_many_refused_samples(self) -> None:
        """They are found over several ticks, and hold nobody up for ever."""
        self.store.bad = lambda one: one.timestamp_ms % 2 == 0 and one.timestamp_ms < 2000
        self.buffer.add(tick(1, 300))
        for at in range(2, 12):
            self.buffer.add(tick(at))
        self.assertEqual((self.buffer.waiting, self.lost()), (0, 150))
        expected = [one for one in tick(1, 300) if not self.store.bad(one)]
        self.assertEqual(self.store.stored[:150], expected)

    def test_the_clock_keeps_its_turn(self) -> None:
        """What becomes known of the clock is noted after what was stamped before it."""
        self.store.broken = FULL
        self.buffer.add(tick(1))
        stepping = self.buffer.step_clock("boot", 5, 6)
        self.buffer.add(tick(2))
        self.assertNoResult(stepping)
        self.assertNotIn("step", self.store.calls)
        self.store.broken = None
        self.store.calls.clear()
        trusting = self.buffer.trust_clock()
        self.assertEqual(self.store.calls, [3, "step", 3, "trust", "move"])
        self.assertEqual(self.successResultOf(stepping), (0, 0))
        self.assertIsNone(self.successResultOf(trusting))
        self.assertTrue(self.successResultOf(self.buffer.enter_era("boot", 5)))

    def test_samples_are_moved_in_portions(self) -> None:
        """What was collected meanwhile is stored between two of them; all done is their sum."""
        self.store.moves = [
            Restamped(7, 1, None, more=True),
            Restamped(4, 0, None, more=True),
            Restamped(2, 3, None, more=False),
        ]
        self.store.hanging = []
        stepping = self.buffer.step_clock("boot", 5, 6)
        for at in range(7):
            if at % 2 == 0:
                self.buffer.add(tick(at, 1))
            self.assertNoResult(stepping)
            self.store.hanging.pop(0).callback(None)
        self.assertEqual(self.store.calls[:7], ["step", 1, "move", 1, "move", 1, "move"])
        self.assertEqual(self.successResultOf(stepping), (13, 4))
        self.store.release()

    def test_what_an_earlier_run_has_left_is_moved_first(self) -> None:
        """The boot's clock is looked up, and only known when nothing stands at a wrong time."""
        self.store.moves = [Restamped(1, 0, None, more=True)]
        self.store.hanging = []
        entering = self.buffer.enter_era("boot", 5)
        for _ in range(3):
            self.assertNoResult(entering)
            self.store.hanging.pop(0).callback(None)
        self.assertEqual(self.store.calls, ["enter", "move", "move"])
        self.assertTrue(self.successResultOf(entering))

    def test_a_portion_that_fails_is_tried_again(self) -> None:
        """At the next tick, as everything else; nobody is done before it is done."""
        self.store.hanging = []
        stepping = self.buffer.step_clock("boot", 5, 6)
        self.store.hanging.pop(0).callback(None)
        self.store.broken = FULL
        self.store.release()
        self.buffer.add(tick(1))
        self.assertEqual(self.store.calls, ["step", "move", "move"])
        self.assertNoResult(stepping)
        self.store.broken = None
        self.buffer.add(tick(2))
        self.assertEqual(self.store.calls[3:], ["move", 6])
        self.assertEqual(self.successResultOf(stepping), (0, 0))

    def test_stopping_leaves_what_is_not_moved(self) -> None:
        """However much there is, the present portion is the last one; what waits is stored."""
        self.store.moves = [Restamped(1, 0, None, more=True) for _ in range(100)]
        self.store.hanging = []
        self.buffer.step_clock("boot", 5, 6)
        self.store.hanging.pop(0).callback(None)
        self.buffer.add(tick(1))
        stopping = self.buffer.stopService()
        self.store.release()
        self.successResultOf(stopping)
        self.assertEqual(self.store.calls, ["step", "move", 3])

    def test_a_note_that_fails_by_itself(self) -> None:
        """It is its caller's to see, and holds nobody up."""
        self.store.broken = ValueError("no")
        self.failureResultOf(self.buffer.trust_clock(), ValueError)
        self.store.broken = None
        self.assertEqual(self.successResultOf(self.buffer.add(tick(1))), 3)

    def test_stopping(self) -> None:
        """A last attempt is made; what it stores is stored."""
        self.store.broken = FULL
        self.buffer.add(tick(1))
        self.store.broken = None
        with Captured() as log:
            self.successResultOf(self.buffer.stopService())
        self.assertEqual(self.store.stored, tick(1))
        self.assertEqual(log.texts(LogLevel.error), [])

    def test_stopping_in_vain(self) -> None:
        """What cannot be stored at the end is counted in the log."""
        self.store.broken = FULL
        self.buffer.add(tick(1))
        with Captured() as log:
            self.successResultOf(self.buffer.stopService())
        self.assertEqual(
            log.texts(LogLevel.error),
            ["3 samples lost at shutdown, they could not be stored: database or disk is full"],
        )
        self.assertEqual((self.lost(), self.buffer.lost_at), (3, 0.0))

    def test_stopping_waits_for_the_write_in_flight(self) -> None:
        """And for what waits behind it."""
        self.store.hanging = []
        self.buffer.add(tick(1))
        self.buffer.add(tick(2))
        stopping = self.buffer.stopService()
        self.assertNoResult(stopping)
        self.store.release()
        self.successResultOf(stopping)
        self.assertEqual(self.store.stored, tick(1) + tick(2))

    @settings(max_examples=200)
    @given(
        st.lists(
            st.tuples(st.integers(1, 9), st.sampled_from(["", "full", "refuse", "hang", "go"])),
            max_size=30,
        ),
        st.integers(5, 60),
    )
    def test_whatever_happens(self, steps: list[tuple[int, str]], limit: int) -> None:
        """Every sample is stored once and in order, or counted: as dropped, as refused."""
        store = ScriptedStore()
        telemetry = Telemetry()
        buffer = WriteBuffer(store, seconds=Clock().seconds, telemetry=telemetry, limit=limit)
        store.bad = lambda one: one.series is CORE
        given_in = []
        for at, (count, what) in enumerate(steps, start=1):
            store.broken = FULL if what == "full" else None
            if what == "hang" and store.hanging is None:
                store.hanging = []
            elif what == "go":
                store.release()
            samples = tick(at, count)
            if what == "refuse":
                samples[-1] = sample(CORE, at, 1)
            given_in += samples
            buffer.add(samples)
            self.assertLessEqual(buffer.waiting, limit + 9)
        store.release()
        store.broken = None
        buffer.add(tick(1000, 1))
        given_in += tick(1000, 1)
        buffer.stopService()
        order = {one: n for n, one in enumerate(given_in)}
        places = [order[one] for one in store.stored]
        self.assertEqual(places, sorted(set(places)))
        self.assertEqual(buffer.waiting, 0)
        lost = counted(telemetry, "storage_metrics_dropped_total")
        self.assertEqual(len(store.stored) + lost, len(given_in))
        self.assertEqual(buffer.lost_at is not None, lost > 0)


class OnDiskTests(InFolder):
    """The buffer on the real store."""

    def test_a_name_that_sqlite_refuses(self) -> None:
        """A lone surrogate in a tag costs its sample, and no other one."""
        store = self.opened(self.path)
        buffer = WriteBuffer(store, seconds=Clock().seconds, telemetry=Telemetry())
        odd = Series.of("m", "box", {"t": "\udcff"})
        self.assertEqual(
            self.successResultOf(
                buffer.add([sample(CORE, 2, 2), sample(odd, 2, 2), sample(LOAD, 2, 3)])
            ),
            2,
        )
        self.assertEqual(query(self.path, "SELECT count(*) FROM metrics"), [(2,)])

    def test_an_id_that_is_beyond_sqlite(self) -> None:
        """A time that 64 bits cannot hold costs its sample, and no other one."""
        store = self.opened(self.path)
        telemetry = Telemetry()
        buffer = WriteBuffer(store, seconds=Clock().seconds, telemetry=telemetry)
        buffer.add([sample(CORE, 2, 2), sample(LOAD, 2**70, 2), sample(LOAD, 2, 3)])
        self.assertEqual(query(self.path, "SELECT count(*) FROM metrics"), [(2,)])
        lost = counted(telemetry, "storage_metrics_dropped_total")
        self.assertEqual((lost, store.pending), (1, 2))


class FailingDiskTests(SynchronousTestCase):
    """A disk that SQLite finds full."""

    def test_page_limit(self) -> None:
        """SQLite's own limit of pages fails as a full disk does; nothing is lost on the way."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "metrics.db"
            connection = sqlite3.connect(path)
            connection.execute("CREATE TABLE samples (at INTEGER, value BLOB)")
            connection.execute("PRAGMA max_page_count = 20")

            class FullStore(ScriptedStore):
                def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
                    try:
                        with connection:
                            connection.executemany(
                                "INSERT INTO samples VALUES (?, zeroblob(2000))",
                                [(one.timestamp_ms,) for one in samples],
                            )
                    except sqlite3.Error as error:
                        return fail(error)
                    return succeed(len(samples))

            buffer = WriteBuffer(FullStore(), seconds=Clock().seconds, telemetry=Telemetry())
            for at in range(30):
                buffer.add(tick(at))
            self.assertEqual(buffer.error, "database or disk is full")
            self.assertGreater(buffer.waiting, 0)
            connection.execute("PRAGMA max_page_count = 2000")
            buffer.add(tick(30))
            found = [row[0] for row in connection.execute("SELECT at FROM samples")]
            connection.close()
        self.assertEqual(found, [one.timestamp_ms for at in range(31) for one in tick(at)])
