"""Clocks, skew, eras, and the timekeeper, all on made-up time."""

import sqlite3
import tempfile
from email.utils import formatdate
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist import clock
from belatwist.clock import Clocks
from belatwist.errors import BelaError
from belatwist.model import Series, sample
from belatwist.skew import skew_ms
from belatwist.timekeeper import Timekeeper
from tests.fakes import inline_store
from tests.logs import Captured

HOUR_MS = 3_600_000
TRUE_MS = 1_800_000_000_000
LIMIT_MS = 2000


def test_the_system_answers() -> None:
    """The real clocks are read, and the kernel is asked without an error."""
    wall, offset = Clocks().read()
    assert abs(wall - clock.wall_ms()) < 1000
    assert abs(wall - clock.boot_ms() - offset) < 1000
    assert clock.kernel_synchronised() in {True, False, None}
    assert len(clock.boot_id()) in {0, 36}


def test_an_unreadable_boot_id_is_unknown(tmp_path: Path) -> None:
    """Where the kernel does not say, it is empty."""
    assert clock.boot_id(tmp_path / "none") == ""


class SkewTests(SynchronousTestCase):
    """The arithmetic of a comparison."""

    def test_sign_and_correction(self) -> None:
        """Positive is ahead; the header's cut is made up for; half the round trip is the way."""
        date = formatdate(1_800_000_000, usegmt=True)
        self.assertEqual(skew_ms(date, TRUE_MS + 500, 0.0, LIMIT_MS), 0)
        self.assertEqual(skew_ms(date, TRUE_MS + 7200_500, 0.0, LIMIT_MS), 7_200_000)
        self.assertEqual(skew_ms(date, TRUE_MS - 10_000, 0.0, LIMIT_MS), -10_500)
        self.assertEqual(skew_ms(date, TRUE_MS + 400, 200.0, LIMIT_MS), 0)

    def test_what_says_nothing(self) -> None:
        """No header, an unreadable one, or a round trip longer than the limit."""
        date = formatdate(1_800_000_000, usegmt=True)
        for header, trip in ((None, 0.0), ("yesterday", 0.0), ("", 0.0), (date, LIMIT_MS + 1.0)):
            self.assertIsNone(skew_ms(header, TRUE_MS, trip, LIMIT_MS))

    @given(st.text(), st.integers(0, 10**15), st.floats(0, 5000))
    def test_any_header(self, header: str, sent: int, trip: float) -> None:
        """Whatever a server says, there is a number or nothing."""
        self.assertIsInstance(skew_ms(header, sent, trip, LIMIT_MS), int | None)


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
        self.boot = "boot-1"
        self.asked = 0
        self.start()

    def wall(self) -> int:
        """The device's clock: the true time, and by how much it is wrong."""
        return TRUE_MS + round(self.reactor.seconds() * 1000) + self.wrong_ms

    async def date_of(self, _url: str) -> str | None:
        self.asked += 1
        if self.server is None:
            return formatdate((self.wall() - self.wrong_ms) // 1000, usegmt=True)
        return await self.server

    def start(self) -> None:
        """Start as the agent does, on what an earlier run has left."""
        self.store = inline_store(self.folder / "metrics.db")
        self.successResultOf(Deferred.fromCoroutine(self.store.open(str(id(self.store)), 0)))
        self.keeper = Timekeeper(
            self.store,
            Clocks(
                self.wall,
                lambda: round(self.reactor.seconds() * 1000),
                lambda: self.kernel,
                lambda: self.boot,
            ),
            reactor=self.reactor,
            date_of=self.date_of,
            url="http://server/health",
            ingest_url="http://server/api/v1/import",
            limit_ms=LIMIT_MS,
            interval=300.0,
            hold=600.0,
        )

    def run_keeper(self) -> None:
        """Start the service."""
        self.keeper.startService()

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
        self.successResultOf(self.store.add([sample(series, self.keeper.now_ms(), 1.0)]))
        return self.wall() - self.wrong_ms

    def stamps(self) -> list[int]:
        """Return the times of what is pending."""
        return [row[0] for row in self.successResultOf(self.store.fetch(1000, 2**60)).rows]

    def doubt(self) -> str | None:
        """Ask whether to send."""
        return self.successResultOf(Deferred.fromCoroutine(self.keeper.doubt()))

    def test_a_synchronised_kernel_is_trusted(self) -> None:
        """Nothing is held, and nothing is moved afterwards."""
        self.kernel = True
        self.server = fail(BelaError("refused"))
        self.run_keeper()
        happened = self.collect()
        self.assertIsNone(self.doubt())
        self.wrong_ms = HOUR_MS
        self.collect()
        self.assertEqual(self.stamps()[0], happened)

    def test_agreement_with_the_server_is_trusted(self) -> None:
        """Where nobody keeps the clock, the server's will do."""
        self.run_keeper()
        self.assertIsNone(self.doubt())
        self.assertTrue(self.keeper.good)
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
                self.assertIn("differs", str(self.doubt()))
                self.wrong_ms = 0
                happened += [self.collect() for _ in range(20)]
                self.assertEqual(self.stamps(), happened)
                self.assertIsNone(self.doubt())
                self.assertEqual(self.keeper.steps, 1)

    def test_stepped_away_and_back(self) -> None:
        """A good clock that jumps: what was stamped before stays, what came after comes back."""
        self.run_keeper()
        self.assertIsNone(self.doubt())
        happened = [self.collect() for _ in range(5)]
        self.wrong_ms = -2 * HOUR_MS
        happened += [self.collect() for _ in range(5)]
        self.assertIn("differs", str(self.doubt()))
        self.wrong_ms = 0
        happened += [self.collect() for _ in range(5)]
        self.assertEqual(self.stamps(), happened)
        self.assertIsNone(self.doubt())
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
        self.assertIsNone(self.doubt())

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
        self.assertIsNone(self.doubt())
        self.stop()
        self.start()
        self.server = fail(BelaError("no route"))
        self.run_keeper()
        self.assertIsNone(self.doubt())

    def test_after_a_while_samples_are_sent_all_the_same(self) -> None:
        """Nobody ever vouches for the clock: the wait is bounded, and said once."""
        self.server = fail(BelaError("no route"))
        self.run_keeper()
        self.reactor.advance(1)
        self.server = fail(BelaError("no route"))
        self.assertIn("no server", str(self.doubt()))
        self.reactor.advance(601)
        self.reactor.advance(1)
        with Captured() as log:
            self.server = fail(BelaError("no route"))
            self.assertIsNone(self.doubt())
            self.reactor.advance(1)
            self.server = fail(BelaError("no route"))
            self.assertIsNone(self.doubt())
        held = [t for t in log.texts(LogLevel.warn) if "all the same" in t]
        self.assertEqual(len(held), 1)

    def test_a_doubtful_clock_is_not_compared_before_each_request(self) -> None:
        """Asked about again at once, what is known is good enough; after a step it is not."""
        self.wrong_ms = 10_000
        self.run_keeper()
        self.reactor.advance(10)
        self.doubt()
        asked = self.asked
        for _ in range(10):
            self.doubt()
        self.assertEqual(self.asked, asked)
        self.wrong_ms = 0
        self.assertIsNone(self.doubt())
        self.assertEqual(self.asked, asked + 1)

    def test_a_hopeless_clock_is_waited_for(self) -> None:
        """What the server would drop while it says that it has it is not sent, however long."""
        self.wrong_ms = 50 * 365 * 24 * HOUR_MS
        self.run_keeper()
        self.reactor.advance(10_000)
        self.assertIn("differs", str(self.doubt()))
        self.wrong_ms = 0
        self.keeper.now_ms()
        self.assertIsNone(self.doubt())

    def test_a_warning_names_both_urls(self) -> None:
        """Whoever reads it sees which clocks were compared."""
        self.wrong_ms = 5000
        with Captured() as log:
            self.run_keeper()
        (warning,) = log.texts(LogLevel.warn)
        self.assertIn("http://server/health", warning)
        self.assertIn("http://server/api/v1/import", warning)

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
        self.store.enter_era = lambda *_: fail(sqlite3.OperationalError("disk"))  # type: ignore[method-assign]
        self.run_keeper()
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        self.assertIsNone(self.doubt())


@given(
    st.lists(st.integers(-50_000, 50_000).filter(lambda step: abs(step) >= 500), max_size=6),
    st.integers(1, 5),
)
def test_any_steps_before_the_first_synchronisation(steps: list[int], runs: int) -> None:
    """However often the clock jumps meanwhile, in the end everything lies where it happened."""
    case = TimekeeperTests("doubt")
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
