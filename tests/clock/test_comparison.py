"""Comparisons with the server's clock: their events, and their moments."""

from email.utils import formatdate

from twisted.internet.defer import Deferred, fail, succeed

from belatwist.errors import BelaError
from belatwist.log.throttle import REPEAT_AFTER
from tests.clock.wrong_clock import LIMIT_MS, WrongClockCase
from tests.log_events import Captured, levels, logged

MEASURED = "Clock skew measured"
LARGE = "Large clock skew detected"
FAILED = "Failed to detect clock skew"
RECOVERED = "Clock comparison with {clock_skew_url} recovered"


class ComparisonTests(WrongClockCase):
    """A small or large skew, and a server that does not say."""

    def test_a_small_difference(self) -> None:
        """The first comparison is logged at info, with both URLs; the next ones at debug."""
        with Captured() as log:
            self.run_keeper()
            self.reactor.advance(300)
        first, second = logged(log, MEASURED)
        expected = {
            "event": "clock.skew_measured",
            "skew_ms": -500,
            "direction": "behind the server's clock",
            "clock_skew_url": "http://server/health",
            "ingest_url": "http://server/api/v1/import",
            "server_address": "192.0.2.7:8428",
        }
        self.assertEqual(first, ("info", expected))
        self.assertEqual(second, ("debug", expected))
        self.assertEqual(logged(log, LARGE), [])

    def test_a_large_difference(self) -> None:
        """The warning names both URLs and the address that answered; it comes every ten minutes."""
        self.wrong_ms = 5000
        with Captured() as log:
            self.run_keeper()
            self.reactor.pump([300] * 2)
        first, second, third = logged(log, LARGE)
        expected = {
            "event": "clock.skew_large",
            "skew_ms": 4500,
            "threshold_ms": LIMIT_MS,
            "direction": "ahead of the server's clock",
            "clock_skew_url": "http://server/health",
            "ingest_url": "http://server/api/v1/import",
            "server_address": "192.0.2.7:8428",
        }
        self.assertEqual(first, ("warn", expected))
        self.assertEqual(second, ("debug", expected))
        again = {**expected, "failures": 3, "seconds": 600.0}
        self.assertEqual(third, ("warn", again))
        self.assertEqual(levels(log, MEASURED), ["info", "debug", "info"])

    def test_a_difference_that_grows_and_shrinks(self) -> None:
        """Each change between small and large is logged at once, in a clock that is slewed."""
        self.kernel = True
        with Captured() as log:
            self.run_keeper()
            for wrong in (400, 800, 1200, 1600, 2000, 2400, 2800, 3200, 2800, 2400, 2000):
                self.wrong_ms = wrong
                self.reactor.advance(300)
        self.assertEqual(levels(log, "Wall clock was stepped"), [])
        skews = [(level, f["skew_ms"]) for level, f in logged(log, MEASURED) if level == "info"]
        self.assertEqual(skews, [("info", -500), ("info", 2300), ("info", 2300), ("info", 1900)])
        self.assertEqual(levels(log, LARGE), ["warn", "debug", "warn"])
        self.assertEqual(levels(log, "Clock skew is within"), ["info"])

    def test_after_a_step_the_comparison_is_logged(self) -> None:
        """After the step the clock is another one, and this is its first comparison."""
        self.run_keeper()
        with Captured() as log:
            self.wrong_ms = 600
            self.reactor.advance(300)
        self.assertEqual(levels(log, MEASURED), ["info"])

    def test_a_query_is_not_logged(self) -> None:
        """It may hold a secret."""
        self.stop()
        self.start(url="http://server/health?key=s3cret")
        with Captured() as log:
            self.run_keeper()
            self.server = fail(BelaError("refused"))
            self.reactor.advance(300)
        for message in (MEASURED, FAILED):
            ((_, fields),) = logged(log, message)
            self.assertEqual(fields["clock_skew_url"], "http://server/health")
            self.assertNotIn("s3cret", str(fields))

    def test_a_server_that_cannot_be_asked(self) -> None:
        """The first failure is a warning, the next one is not; the recovery has a summary."""
        with Captured() as log:
            for _ in range(2):
                self.server = fail(BelaError("ConnectionRefusedError: 111"))
                if self.asked:
                    self.reactor.advance(300)
                else:
                    self.run_keeper()
            self.server = None
            self.reactor.advance(300)
        fields = {
            "event": "clock.comparison_failed",
            "error": "ConnectionRefusedError: 111",
            "clock_skew_url": "http://server/health",
        }
        expected = [("warn", fields), ("debug", fields)]
        self.assertEqual(logged(log, FAILED), expected)
        self.assertEqual(
            logged(log, RECOVERED),
            [
                (
                    "info",
                    {
                        "event": "clock.comparison_recovered",
                        "seconds": 600.0,
                        "failures": 2,
                        "clock_skew_url": "http://server/health",
                    },
                )
            ],
        )
        self.reactor.advance(REPEAT_AFTER)
        with Captured() as log:
            self.server = fail(BelaError("refused"))
            self.reactor.advance(300)
        self.assertEqual(levels(log, FAILED), ["warn"])

    def test_a_link_that_comes_and_goes_does_not_flood(self) -> None:
        """An untrusted clock is compared before each upload. Comparisons that fail now and then are
        logged every ten minutes, with how often they did.
        """
        self.wrong_ms = 5000
        with Captured() as log:
            self.run_keeper()
            for turn in range(200):
                self.server = None if turn % 2 else fail(BelaError("refused"))
                self.reactor.advance(10)
                self.hold_reason()
        first, *others = [fields for level, fields in logged(log, FAILED) if level == "warn"]
        self.assertNotIn("flips", first)
        self.assertEqual(len(others), 3)
        self.assertTrue(all(fields["flips"] > 20 for fields in others))
        self.assertEqual(levels(log, RECOVERED).count("info"), 1)

    def test_a_server_without_a_clock(self) -> None:
        """An answer without a time, or with something else for it, is a failure as well."""
        for date, words in ((None, "no Date"), ("\x1b[31msoon", "an unreadable Date")):
            with self.subTest(date=date):
                self.stop()
                self.start()
                self.server = succeed(date)
                with Captured() as log:
                    self.run_keeper()
                ((level, fields),) = logged(log, FAILED)
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
        (event,) = logged(log, "Clock comparison discarded")
        fields = {
            "event": "clock.comparison_discarded",
            "clock_skew_url": "http://server/health",
            "round_trip_ms": 2100.0,
        }
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

    def test_compared_again_at_intervals(self) -> None:
        """A comparison that fails does not end them."""
        self.server = fail(BelaError("no route"))
        self.run_keeper()
        self.assertIsNone(self.keeper.skew)
        self.server = None
        self.reactor.advance(300)
        self.assertIsNotNone(self.keeper.skew)

    def test_a_comparison_that_is_under_way_is_waited_for(self) -> None:
        """The first upload may come right after the start: the server is asked once, for both."""
        self.server = Deferred()
        self.run_keeper()
        held = Deferred.fromCoroutine(self.keeper.hold_reason())
        self.assertNoResult(held)
        self.server.callback(formatdate(self.wall() // 1000, usegmt=True))
        self.assertIsNone(self.successResultOf(held))
        self.assertEqual(self.asked, 1)

    def test_also_where_all_is_well(self) -> None:
        """A trusted clock is compared at each interval, too."""
        self.kernel = True
        self.run_keeper()
        self.assertEqual(self.asked, 1)
        for _ in range(5):
            self.assertIsNone(self.hold_reason())
            self.reactor.advance(300)
        self.assertEqual(self.asked, 6)

    def test_an_untrusted_clock_is_not_compared_before_each_request(self) -> None:
        """A comparison of the same second is recent enough, but not after a step."""
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
