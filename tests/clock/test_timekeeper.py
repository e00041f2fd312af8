"""Clocks, skew, eras, and the timekeeper, all on made-up time."""

import sqlite3
import tempfile
import time
from email.utils import formatdate
from pathlib import Path
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.clock import sources
from belatwist.clock.skew import skew_ms
from belatwist.clock.sources import Clocks
from belatwist.clock.timekeeper import Timekeeper
from belatwist.errors import BelaError
from belatwist.log.throttle import CALM
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Series, sample
from belatwist.store.buffer import WriteBuffer
from tests.fakes import inline_store
from tests.log_events import Captured, levels, told

HOUR_MS = 3_600_000
TRUE_MS = 1_800_000_000_000
LIMIT_MS = 2000

MEASURED = "Clock skew measured"
LARGE = "Large clock skew detected"
FAILED = "Failed to detect clock skew"


def test_the_system_answers() -> None:
    """The real clocks are read, and the kernel is asked without an error."""
    wall, offset = Clocks().read()
    assert abs(wall - sources.wall_ms()) < 1000
    assert abs(wall - sources.boot_ms() - offset) < 1000
    assert sources.kernel_synchronised() in {True, False, None}
    assert len(sources.boot_id()) in {0, 36}


def test_an_unreadable_boot_id_is_unknown(tmp_path: Path) -> None:
    """Where the kernel does not say, it is empty."""
    assert sources.boot_id(tmp_path / "none") == ""


class SkewTests(SynchronousTestCase):
    """The arithmetic of a comparison."""

    def test_sign_and_correction(self) -> None:
        """Positive is ahead; the header's cut is made up for; half the round trip is the way."""
        date = formatdate(1_800_000_000, usegmt=True)
        self.assertEqual(skew_ms(date, TRUE_MS + 500, 0.0), 0)
        self.assertEqual(skew_ms(date, TRUE_MS + 7200_500, 0.0), 7_200_000)
        self.assertEqual(skew_ms(date, TRUE_MS - 10_000, 0.0), -10_500)
        self.assertEqual(skew_ms(date, TRUE_MS + 400, 200.0), 0)

    def test_what_says_nothing(self) -> None:
        """No header, or an unreadable one."""
        for header in (None, "yesterday", ""):
            self.assertIsNone(skew_ms(header, TRUE_MS, 0.0))

    def test_dates_are_utc_wherever_the_device_is(self) -> None:
        """Also in the format that names no zone (RFC 9110, section 5.6.7)."""
        with mock.patch.dict("os.environ", TZ="UTC-5:30"):
            time.tzset()
            self.assertEqual(skew_ms("Fri Jan 15 08:00:00 2027", TRUE_MS + 500, 0.0), 0)
        time.tzset()

    @given(st.text(), st.integers(0, 10**15), st.floats(0, 5000))
    def test_any_header(self, header: str, sent: int, trip: float) -> None:
        """Whatever a server says, there is a number or nothing."""
        self.assertIsInstance(skew_ms(header, sent, trip), int | None)


class TimekeeperTests(SynchronousTestCase):
    """What is stamped, moved, held and sent when the clock is wrong, and when it is put right."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.reactor = Clock()
        self.reactor.advance(5000)
        self.wrong_ms = 0
        self.kernel: bool | None = False
        self.server: Deferred[str | None] | None = None
        self.address = "192.0.2.7:8428"
        self.boot = "boot-1"
        self.asked = 0
        self.start()

    def wall(self) -> int:
        """The device's clock: the true time, and by how much it is wrong."""
        return TRUE_MS + round(self.reactor.seconds() * 1000) + self.wrong_ms

    async def date_of(self, _url: str) -> tuple[str | None, str]:
        self.asked += 1
        if self.server is None:
            date = formatdate((self.wall() - self.wrong_ms) // 1000, usegmt=True)
            return date, self.address
        return await self.server, self.address

    def start(self, url: str = "http://server/health") -> None:
        """Start as the agent does, on what an earlier run has left."""
        self.store = inline_store(self.folder / "metrics.db")
        self.successResultOf(Deferred.fromCoroutine(self.store.open(str(id(self.store)), 0)))
        self.telemetry = Telemetry()
        self.buffer = WriteBuffer(
            self.store, seconds=self.reactor.seconds, telemetry=self.telemetry
        )
        self.keeper = Timekeeper(
            self.buffer,
            Clocks(
                self.wall,
                lambda: round(self.reactor.seconds() * 1000),
                lambda: self.kernel,
                lambda: self.boot,
            ),
            reactor=self.reactor,
            date_of=self.date_of,
            url=url,
            ingest_url="http://server/api/v1/import",
            limit_ms=LIMIT_MS,
            interval=300.0,
            hold=600.0,
            telemetry=self.telemetry,
        )

    def run_keeper(self) -> None:
        """Start the service."""
        self.keeper.startService()

    def test_a_clock_that_was_good_and_is_not(self) -> None:
        """What vouched for it was wrong: what is stored from then on waits, and moves."""
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
        """Two days from the server's, whoever is right: it would drop the samples."""
        self.kernel = True
        self.server = succeed(formatdate(self.wall() // 1000 + 3 * 86400, usegmt=True))
        self.run_keeper()
        self.keeper.now_ms()
        self.assertFalse(self.keeper.trusted)
        self.assertIn("differs from the server's", str(self.hold_reason()))

    def test_a_comparison_that_is_under_way_is_waited_for(self) -> None:
        """The first upload may come right after the start: the server is asked once, for both."""
        self.server = Deferred()
        self.run_keeper()
        doubt = Deferred.fromCoroutine(self.keeper.hold_reason())
        self.assertNoResult(doubt)
        self.server.callback(formatdate(self.wall() // 1000, usegmt=True))
        self.assertIsNone(self.successResultOf(doubt))
        self.assertEqual(self.asked, 1)

    def stop(self) -> None:
        """Stop as the agent does."""
        self.keeper.stopService()
        self.successResultOf(Deferred.fromCoroutine(self.store.close(0)))

    def tearDown(self) -> None:
        self.stop()

    def collect(self) -> int:
        """Store a sample, stamped now; return the true time."""
        self.reactor.advance(10)
        series = Series.of("a", "device")
        self.successResultOf(self.buffer.add([sample(series, self.keeper.now_ms(), 1.0)]))
        return self.wall() - self.wrong_ms

    def stamps(self) -> list[int]:
        """Return the times of what is pending."""
        return [row[0] for row in self.successResultOf(self.store.fetch(1000, 2**60)).rows]

    def hold_reason(self) -> str | None:
        """Ask whether to send."""
        return self.successResultOf(Deferred.fromCoroutine(self.keeper.hold_reason()))

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
        """What was stamped before is moved to when it happened, and only then sent."""
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
        """A good clock that jumps: what was stamped before stays, what came after comes back."""
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
        """A restart within the boot finds out by how much, and moves what the last run stored."""
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
        """Nobody ever vouches for the clock: the wait is bounded, and said once."""
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
        held = [t for t in log.texts(LogLevel.warn) if "all the same" in t]
        self.assertEqual(len(held), 1)

    def test_a_doubtful_clock_is_not_compared_before_each_request(self) -> None:
        """Asked about again at once, what is known is good enough; after a step it is not."""
        self.wrong_ms = 10_000
        self.run_keeper()
        self.reactor.advance(10)
        self.hold_reason()
        asked = self.asked
        for _ in range(10):
            self.hold_reason()
        self.assertEqual(self.asked, asked)
        self.wrong_ms = 0
        self.assertIsNone(self.hold_reason())
        self.assertEqual(self.asked, asked + 1)

    def test_a_hopeless_clock_is_waited_for(self) -> None:
        """What the server would drop while it says that it has it is not sent, however long."""
        self.wrong_ms = 50 * 365 * 24 * HOUR_MS
        self.run_keeper()
        self.reactor.advance(10_000)
        self.assertIn("differs", str(self.hold_reason()))
        self.wrong_ms = 0
        self.keeper.now_ms()
        self.assertIsNone(self.hold_reason())

    def test_a_small_difference(self) -> None:
        """The first comparison is told, with both URLs; what follows is for those who debug."""
        with Captured() as log:
            self.run_keeper()
            self.reactor.advance(300)
        first, second = told(log, MEASURED)
        expected = {
            "skew_ms": -500,
            "direction": "behind the server's clock",
            "clock_skew_url": "http://server/health",
            "ingest_url": "http://server/api/v1/import",
            "server_address": "192.0.2.7:8428",
        }
        self.assertEqual(first, ("info", expected))
        self.assertEqual(second, ("debug", expected))
        self.assertEqual(told(log, LARGE), [])

    def test_a_large_difference(self) -> None:
        """It is a warning that names both URLs and who has answered; while it lasts, once."""
        self.wrong_ms = 5000
        with Captured() as log:
            self.run_keeper()
            self.reactor.advance(300)
        first, second = told(log, LARGE)
        expected = {
            "skew_ms": 4500,
            "threshold_ms": LIMIT_MS,
            "direction": "ahead of the server's clock",
            "clock_skew_url": "http://server/health",
            "ingest_url": "http://server/api/v1/import",
            "server_address": "192.0.2.7:8428",
        }
        self.assertEqual(first, ("warn", expected))
        self.assertEqual(second, ("debug", expected))
        self.assertEqual(levels(log, MEASURED), ["info", "debug"])

    def test_a_difference_that_grows_and_shrinks(self) -> None:
        """Each change between small and large is told, in a clock that is slewed, and no other."""
        self.kernel = True
        with Captured() as log:
            self.run_keeper()
            for wrong in (400, 800, 1200, 1600, 2000, 2400, 2800, 3200, 2800, 2400, 2000):
                self.wrong_ms = wrong
                self.reactor.advance(300)
        self.assertEqual(levels(log, "the wall clock was stepped"), [])
        skews = [(level, f["skew_ms"]) for level, f in told(log, MEASURED) if level == "info"]
        self.assertEqual(skews, [("info", -500), ("info", 2300), ("info", 1900)])
        self.assertEqual(levels(log, LARGE), ["warn", "debug", "debug"])

    def test_after_a_step_the_comparison_is_told(self) -> None:
        """It is the first of a clock that is another one."""
        self.run_keeper()
        with Captured() as log:
            self.wrong_ms = 600
            self.reactor.advance(300)
        self.assertEqual(levels(log, MEASURED), ["info"])

    def test_a_query_is_not_told(self) -> None:
        """It may hold a secret."""
        self.start(url="http://server/health?key=s3cret")
        with Captured() as log:
            self.run_keeper()
            self.server = fail(BelaError("refused"))
            self.reactor.advance(300)
        for message in (MEASURED, FAILED):
            ((_, fields),) = told(log, message)
            self.assertEqual(fields["clock_skew_url"], "http://server/health")
            self.assertNotIn("s3cret", str(fields))

    def test_a_server_that_cannot_be_asked(self) -> None:
        """It is a warning at first; then it is quiet, until a summary when it is over."""
        with Captured() as log:
            for _ in range(3):
                self.server = fail(BelaError("ConnectionRefusedError: 111"))
                if self.asked:
                    self.reactor.advance(300)
                else:
                    self.run_keeper()
            self.server = None
            self.reactor.advance(300)
        fields = {
            "error": "ConnectionRefusedError: 111",
            "clock_skew_url": "http://server/health",
        }
        expected = [("warn", fields), ("debug", fields), ("debug", fields)]
        self.assertEqual(told(log, FAILED), expected)
        self.assertEqual(
            told(log, "the clock can be compared again"),
            [
                (
                    "info",
                    {"seconds": 900.0, "failures": 3, "clock_skew_url": "http://server/health"},
                )
            ],
        )
        self.reactor.advance(CALM)
        with Captured() as log:
            self.server = fail(BelaError("refused"))
            self.reactor.advance(300)
        self.assertEqual(levels(log, FAILED), ["warn"])

    def test_a_link_that_comes_and_goes_does_not_flood(self) -> None:
        """A doubtful clock is compared before each upload; what fails now and then is told once,
        and again when it lasts.
        """
        self.wrong_ms = 5000
        with Captured() as log:
            self.run_keeper()
            for turn in range(40):
                self.server = None if turn % 2 else fail(BelaError("refused"))
                self.reactor.advance(10)
                self.hold_reason()
            self.assertEqual(levels(log, FAILED).count("warn"), 1)
            self.assertEqual(levels(log, "the clock can be compared again").count("info"), 1)
            for _ in range(10):
                self.server = fail(BelaError("refused"))
                self.reactor.advance(10)
                self.hold_reason()
        self.assertEqual(levels(log, FAILED).count("warn"), 2)

    def test_a_server_without_a_clock(self) -> None:
        """An answer without a time, or with something else for it, is a failure as well."""
        for date, words in ((None, "no Date"), ("\x1b[31msoon", "an unreadable Date")):
            with self.subTest(date=date):
                self.stop()
                self.start()
                self.server = succeed(date)
                with Captured() as log:
                    self.run_keeper()
                ((level, fields),) = told(log, FAILED)
                self.assertEqual((level, fields["error"]), ("warn", f"{words} in the answer"))
                self.assertIsNone(self.keeper.skew)

    def test_an_answer_that_took_long(self) -> None:
        """It says nothing, for or against: neither a comparison nor a failure."""
        self.run_keeper()
        compared = self.keeper.skew, self.keeper.skew_at
        self.server = Deferred()
        self.reactor.advance(300)
        with Captured() as log:
            self.reactor.advance(2.1)
            self.server.callback(formatdate(self.wall() // 1000, usegmt=True))
        (event,) = told(log, "a comparison of the clock took")
        fields = {"clock_skew_url": "http://server/health", "round_trip_ms": 2100.0}
        self.assertEqual(event, ("debug", fields))
        self.assertEqual(len(log.events), 1)
        self.assertEqual((self.keeper.skew, self.keeper.skew_at), compared)

    def test_when_it_was_compared(self) -> None:
        """The moment is that of the last comparison that said something; a step undoes it."""
        self.assertIsNone(self.keeper.skew_at)
        self.run_keeper()
        began = self.reactor.seconds()
        self.assertEqual(self.keeper.skew_at, began)
        self.server = fail(BelaError("refused"))
        self.reactor.advance(300)
        self.assertEqual(self.keeper.skew_at, began)
        self.server = None
        self.reactor.advance(300)
        self.assertEqual(self.keeper.skew_at, began + 600)
        self.wrong_ms = 5000
        self.keeper.now_ms()
        self.assertIsNone(self.keeper.skew_at)

    def test_steps_are_counted(self) -> None:
        """In the agent's own metrics, too."""
        self.run_keeper()
        for wrong in (5000, 0, -700):
            self.wrong_ms = wrong
            self.keeper.now_ms()
        value = self.telemetry.registry.get_sample_value("time_clock_steps_total")
        self.assertEqual((value, self.keeper.steps), (3, 3))

    def test_also_where_all_is_well(self) -> None:
        """A clock that is known to be good is compared at each interval all the same."""
        self.kernel = True
        self.run_keeper()
        self.assertEqual(self.asked, 1)
        for _ in range(5):
            self.assertIsNone(self.hold_reason())
            self.reactor.advance(300)
        self.assertEqual(self.asked, 6)

    def test_compared_again_at_intervals(self) -> None:
        """A comparison that fails does not end them."""
        self.server = fail(BelaError("no route"))
        self.run_keeper()
        self.assertIsNone(self.keeper.skew)
        self.server = None
        self.reactor.advance(300)
        self.assertIsNotNone(self.keeper.skew)

    def test_the_store_cannot_take_note(self) -> None:
        """The clock then stays doubtful; the service goes on."""
        self.buffer.enter_era = lambda *_: fail(sqlite3.OperationalError("disk"))  # type: ignore[method-assign]
        self.run_keeper()
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        self.assertIsNone(self.hold_reason())


@settings(deadline=None)
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
