"""Samples are stamped, moved, held and sent while the clock is wrong, and when it is corrected."""

import sqlite3
from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import fail, succeed
from twisted.logger import LogLevel

from belatwist.errors import BelaError
from tests.clock.wrong_clock import TRUE_MS, WrongClockCase
from tests.log_events import Captured, levels, logged

HOUR_MS = 3_600_000


class TimekeeperTests(WrongClockCase):
    """Steps, trust and eras."""

    def test_a_clock_that_was_good_and_is_not(self) -> None:
        """The reason for the trust was wrong: samples stored from then on wait, and move."""
        self.run_keeper()
        self.assertIsNone(self.hold_reason())
        first = self.collect()
        # The server, or what answered for it, has another clock now.
        self.server = succeed(formatdate(self.wall() // 1000 + 3 * 86400, usegmt=True))
        self.reactor.advance(300)
        self.assertFalse(self.keeper.trusted)
        self.assertIn("differs from the server's", str(self.hold_reason()))
        second = self.collect()
        self.wrong_ms = 3 * 86_400_000
        self.collect()
        self.assertEqual(self.stamps()[:2], [first, second + 3 * 86_400_000])

    def test_the_kernel_does_not_vouch_for_days(self) -> None:
        """At two days from its own time the server would drop the samples, and acknowledge them."""
        self.kernel = True
        self.server = succeed(formatdate(self.wall() // 1000 + 3 * 86400, usegmt=True))
        self.run_keeper()
        self.keeper.now_ms()
        self.assertFalse(self.keeper.trusted)
        self.assertIn("differs from the server's", str(self.hold_reason()))

    def test_a_synchronised_kernel_is_trusted(self) -> None:
        """Nothing is held, and nothing is moved afterwards."""
        self.kernel = True
        self.server = fail(BelaError("refused"))
        self.run_keeper()
        happened = self.collect()
        self.assertIsNone(self.hold_reason())
        self.wrong_ms = HOUR_MS
        self.collect()
        self.assertEqual(self.stamps()[0], happened)

    def test_agreement_with_the_server_is_trusted(self) -> None:
        """Where nobody keeps the clock, the server's will do."""
        self.run_keeper()
        self.assertIsNone(self.hold_reason())
        self.assertTrue(self.keeper.trusted)
        self.assertLess(abs(self.keeper.skew or 0), 1000)

    def test_put_right_by_a_step(self) -> None:
        """Samples that were stamped before move to their true time, and only then are sent."""
        for wrong in (-2 * HOUR_MS, 2 * HOUR_MS, 50 * 365 * 24 * HOUR_MS, -TRUE_MS, -15_000):
            with self.subTest(wrong=wrong):
                self.stop()
                self.folder = self.folder / "next"
                self.wrong_ms = wrong
                self.start()
                self.run_keeper()
                happened = [self.collect() for _ in range(20)]
                self.assertIn("differs", str(self.hold_reason()))
                self.wrong_ms = 0
                happened += [self.collect() for _ in range(20)]
                self.assertEqual(self.stamps(), happened)
                self.assertIsNone(self.hold_reason())
                self.assertEqual(self.keeper.steps, 1)

    def test_stepped_away_and_back(self) -> None:
        """A trusted clock jumps: samples stamped before stay, samples stamped after move back."""
        self.run_keeper()
        self.assertIsNone(self.hold_reason())
        happened = [self.collect() for _ in range(5)]
        self.wrong_ms = -2 * HOUR_MS
        happened += [self.collect() for _ in range(5)]
        self.assertIn("differs", str(self.hold_reason()))
        self.wrong_ms = 0
        happened += [self.collect() for _ in range(5)]
        self.assertEqual(self.stamps(), happened)
        self.assertIsNone(self.hold_reason())
        self.assertEqual(self.keeper.steps, 2)

    def test_a_slow_drift_is_no_step(self) -> None:
        """Clocks that part slowly are being slewed; nothing is moved, nothing logged."""
        self.run_keeper()
        with Captured() as log:
            for _ in range(100):
                self.wrong_ms += 5
                self.collect()
        self.assertEqual(self.keeper.steps, 0)
        self.assertEqual(log.texts(LogLevel.warn), [])

    def test_put_right_while_the_agent_was_down(self) -> None:
        """A restart within the boot measures the step, and moves the last run's samples."""
        self.server = fail(BelaError("no route"))
        self.wrong_ms = -2 * HOUR_MS
        self.run_keeper()
        happened = [self.collect() for _ in range(5)]
        self.stop()
        self.wrong_ms = 0
        self.server = None
        self.start()
        self.run_keeper()
        self.assertEqual(self.stamps(), happened)
        self.assertIsNone(self.hold_reason())

    def test_an_earlier_boot_is_left_alone(self) -> None:
        """After a reboot nothing is known of how wrong the clock was: its samples stay."""
        self.server = fail(BelaError("no route"))
        self.wrong_ms = -2 * HOUR_MS
        self.run_keeper()
        stamped = [self.collect() + self.wrong_ms for _ in range(3)]
        self.stop()
        self.boot = "boot-2"
        self.wrong_ms = 0
        self.server = None
        self.start()
        self.run_keeper()
        self.assertEqual(self.stamps(), stamped)

    def test_a_restart_remembers_a_good_clock(self) -> None:
        """Within the same boot and without a step, samples need not wait for the server again."""
        self.run_keeper()
        self.assertIsNone(self.hold_reason())
        self.stop()
        self.start()
        self.server = fail(BelaError("no route"))
        self.run_keeper()
        self.assertIsNone(self.hold_reason())

    def test_after_a_while_samples_are_sent_all_the_same(self) -> None:
        """Where nothing ever confirms the clock, the wait is bounded, and its end logged once."""
        self.server = fail(BelaError("no route"))
        self.run_keeper()
        self.reactor.advance(1)
        self.server = fail(BelaError("no route"))
        self.assertIn("could not be compared with the server's: no route", str(self.hold_reason()))
        self.reactor.advance(601)
        self.reactor.advance(1)
        with Captured() as log:
            self.server = fail(BelaError("no route"))
            self.assertIsNone(self.hold_reason())
            self.reactor.advance(1)
            self.server = fail(BelaError("no route"))
            self.assertIsNone(self.hold_reason())
        self.assertEqual(levels(log, "Samples are sent with an untrusted clock"), ["warn", "debug"])

    def test_a_hopeless_clock_is_waited_for(self) -> None:
        """Samples that the server would acknowledge and drop are held without end."""
        self.wrong_ms = 50 * 365 * 24 * HOUR_MS
        self.run_keeper()
        self.reactor.advance(10_000)
        self.assertIn("differs", str(self.hold_reason()))
        self.wrong_ms = 0
        self.keeper.now_ms()
        self.assertIsNone(self.hold_reason())

    def test_steps_are_counted(self) -> None:
        """In the agent's own metrics, too."""
        self.run_keeper()
        for wrong in (5000, 0, -700):
            self.wrong_ms = wrong
            self.keeper.now_ms()
        value = self.telemetry.registry.get_sample_value("time_clock_steps_total")
        self.assertEqual((value, self.keeper.steps), (3, 3))

    def test_steps_are_logged(self) -> None:
        """A step and the trust after it, at once and with their figures."""
        self.wrong_ms = -2 * HOUR_MS
        self.run_keeper()
        self.collect()
        self.wrong_ms = 0
        with Captured() as log:
            self.assertIsNone(self.hold_reason())
        step = {"event": "clock.stepped", "step_ms": 2 * HOUR_MS, "steps": 1}
        self.assertEqual(logged(log, "Wall clock was stepped"), [("warn", step)])
        moved = {"event": "clock.samples_restamped", "count": 1, "dropped": 0}
        self.assertEqual(logged(log, "Moved {count} pending samples"), [("info", moved)])
        self.assertEqual(levels(log, "Clock trusted"), ["info"])

    def test_a_clock_that_keeps_jumping_does_not_flood(self) -> None:
        """Two programs that set it by turns are a line in ten minutes, with how often it jumped."""
        self.run_keeper()
        with Captured() as log:
            for turn in range(360):
                self.wrong_ms = 1000 * (turn % 2)
                self.collect()
                self.assertIsNone(self.hold_reason())
        loud = [
            fields for level, fields in logged(log, "Wall clock was stepped") if level == "warn"
        ]
        self.assertEqual(len(loud), 6)
        self.assertEqual(sum(fields.get("flips", 0) for fields in loud), 5 * 59)
        self.assertEqual(levels(log, "Clock trusted").count("info"), 1)
        self.assertLessEqual(levels(log, "Clock skew measured").count("info"), 6)
        self.assertLessEqual(levels(log, "Moved").count("info"), 6)

    def test_a_clock_that_has_ceased_to_jump(self) -> None:
        """After ten minutes the log says that the clock is trusted."""
        self.run_keeper()
        for turn in range(20):
            self.wrong_ms = 1000 * (turn % 2)
            self.reactor.advance(10)
            self.assertIsNone(self.hold_reason())
        with Captured() as log:
            self.reactor.advance(600)
            self.keeper.now_ms()
        (said,) = [text for text in log.texts(LogLevel.info) if text.startswith("Clock trusted")]
        self.assertIn("; it failed and recovered ", said)

    def test_a_store_that_cannot_take_note_of_any_step(self) -> None:
        """It is logged once, and so is its recovery."""
        self.run_keeper()
        working = self.buffer.step_clock
        self.buffer.step_clock = lambda *_: fail(ValueError("fault"))  # type: ignore[method-assign]
        with Captured() as log:
            for turn in range(20):
                self.wrong_ms = 1000 * (turn % 2)
                self.keeper.now_ms()
            self.buffer.step_clock = working  # type: ignore[method-assign]
            self.wrong_ms = 5000
            self.keeper.now_ms()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(levels(log, "State of the clock is stored again"), ["info"])

    def test_the_store_cannot_take_note(self) -> None:
        """The service goes on, and learns from the server whether to trust the clock."""
        self.buffer.enter_era = lambda *_: fail(sqlite3.OperationalError("disk"))  # type: ignore[method-assign]
        self.run_keeper()
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        self.assertIsNone(self.hold_reason())


@given(
    st.lists(st.integers(-50_000, 50_000).filter(lambda step: abs(step) >= 500), max_size=6),
    st.integers(1, 5),
)
def test_any_steps_before_the_first_synchronisation(steps: list[int], runs: int) -> None:
    """However often the clock jumps meanwhile, in the end everything lies where it happened."""
    case = TimekeeperTests("hold_reason")
    case.setUp()
    case.server = fail(BelaError("no route"))
    case.wrong_ms = 1_000_000
    case.run_keeper()
    happened = [case.collect() for _ in range(runs)]
    for step in steps:
        case.wrong_ms += step
        happened += [case.collect() for _ in range(runs)]
    case.wrong_ms = 0
    case.keeper.now_ms()
    assert sorted(case.stamps()) == happened
    case.stop()
    case.doCleanups()
