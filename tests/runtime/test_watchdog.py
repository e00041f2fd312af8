"""When the watchdog gives signs of life, and the checks on which they depend."""

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.runtime.watchdog import STATUS_EVERY, RecencyCheck, ResponsivenessCheck, Watchdog
from tests.runtime.fake_systemd import Systemd, SystemdTestCase


class ResponsivenessCheckTests(SynchronousTestCase):
    """Whether the database still answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.asked: list[Deferred[None]] = []
        self.sign: float | None = None
        self.check = self.answering(self._ask)

    def answering(self, ask: Callable[[], Deferred[None]]) -> ResponsivenessCheck:
        """Make a check."""
        return ResponsivenessCheck(ask, reactor=self.clock, limit=45.0, progress=lambda: self.sign)

    def _ask(self) -> "Deferred[None]":
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_answers(self) -> None:
        """A database that answers is asked again each time, and is never at fault."""
        for turn in range(1, 4):
            self.assertIsNone(self.check())
            self.assertEqual(len(self.asked), turn)
            self.asked[-1].callback(None)
            self.clock.advance(3600)

    def test_silence(self) -> None:
        """Beyond the limit the fault has the request's age; no second request is made."""
        self.assertIsNone(self.check())
        self.clock.advance(45)
        self.assertIsNone(self.check())
        self.clock.advance(1)
        self.assertEqual(self.check(), "the database has not answered for 46 s")
        self.assertEqual(len(self.asked), 1)
        self.asked[0].callback(None)
        self.assertIsNone(self.check())
        self.assertEqual(len(self.asked), 2)

    def test_progress(self) -> None:
        """Long work with signs of life is no silence; when they end, it is."""
        self.check()
        for _ in range(10):
            self.clock.advance(30)
            self.sign = self.clock.seconds()
            self.assertIsNone(self.check())
        self.clock.advance(46)
        self.assertEqual(self.check(), "the database has not answered for 46 s")

    def test_an_old_sign_of_life(self) -> None:
        """Progress from before the request does not shorten the limit."""
        self.sign = self.clock.seconds()
        self.clock.advance(600)
        self.assertIsNone(self.check())
        self.clock.advance(30)
        self.assertIsNone(self.check())

    def test_no_is_an_answer(self) -> None:
        """An error is an answer: a restart does not heal a full disk."""

        def refuse() -> "Deferred[None]":
            raise RuntimeError

        for ask in (refuse, lambda: fail(RuntimeError())):
            check = self.answering(ask)
            for _ in range(3):
                self.assertIsNone(check())
                self.clock.advance(60)


class RecencyCheckTests(SynchronousTestCase):
    """Whether a collector has run recently."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.things: list[tuple[float | None, float]] = []
        self.check = RecencyCheck(lambda: self.things, reactor=self.clock, minimum=45.0)

    def test_one_thing(self) -> None:
        """It has three of its intervals from the last time, or from the first question."""
        self.things = [(None, 20.0)]
        self.assertIsNone(self.check())
        self.clock.advance(60)
        self.assertIsNone(self.check())
        self.clock.advance(1)
        self.assertEqual(self.check(), "collection has not run for 61 s")
        self.things = [(self.clock.seconds(), 20.0)]
        self.assertIsNone(self.check())
        self.clock.advance(61)
        self.assertEqual(self.check(), "collection has not run for 61 s")

    def test_short_intervals_have_a_minimum(self) -> None:
        """A collector that runs each second is not given three seconds only."""
        self.things = [(None, 1.0)]
        self.check()
        self.clock.advance(45)
        self.assertIsNone(self.check())
        self.clock.advance(1)
        self.assertIsNotNone(self.check())

    def test_one_that_goes_on_is_enough(self) -> None:
        """However slow it is: a fast one that hangs must not have the whole agent restarted."""
        self.things = [(None, 10.0), (None, 600.0)]
        self.check()
        self.clock.advance(1800)
        self.assertIsNone(self.check())
        self.clock.advance(1)
        self.assertEqual(self.check(), "collection has not run for 1801 s")

    def test_nothing_is_well(self) -> None:
        """Without collectors there is nothing to watch."""
        self.check()
        self.clock.advance(10**6)
        self.assertIsNone(self.check())


class WatchdogTests(SystemdTestCase):
    """Signs of life, at half the interval and while all is well."""

    def setUp(self) -> None:
        super().setUp()
        self.reason: str | None = None
        self.status = "ok"

    def watchdog(self, **more: str) -> Watchdog:
        """Start one; by default with an interval of a minute."""
        watchdog = Watchdog(
            self.notifier(**(more or {"WATCHDOG_USEC": "60000000"})),
            reactor=self.clock,
            checks=[lambda: None, lambda: self.reason],
            status=lambda: self.status,
        )
        watchdog.startService()
        return watchdog

    def test_pings(self) -> None:
        """One at once and one each half interval; the status at first, and when it changes."""
        watchdog = self.watchdog()
        self.assertEqual(
            self.event("Systemd watchdog enabled"),
            ("info", {"watchdog_interval": 60.0, "ping_interval": 30.0}),
        )
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1", "STATUS=ok"])
        self.clock.advance(29)
        self.assertEqual(self.systemd.heard(), [])
        self.clock.advance(1)
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1"])
        self.status = "degraded"
        self.clock.advance(30)
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1", "STATUS=degraded"])
        watchdog.stopService()
        self.assertEqual(self.event("Watchdog pinger stopping"), ("info", {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_check_that_fails_withholds_the_ping(self) -> None:
        """It is an error once, with the reason, and its end is logged. The status continues."""
        self.watchdog()
        self.systemd.heard()
        self.reason, self.status = "the database has not answered for 46 s", "error"
        self.clock.pump([30, 3, 3])
        self.assertEqual(self.systemd.heard(), ["STATUS=error"])
        texts = [e["log_level"].name for e in self.events("Watchdog ping withheld")]
        self.assertEqual(texts, ["error", "debug", "debug"])
        self.assertEqual(self.events("Watchdog ping withheld")[0]["reason"], self.reason)
        self.reason = None
        self.clock.advance(3)
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1"])
        self.assertEqual(
            self.event("Watchdog pings resumed"), ("info", {"failures": 3, "seconds": 9.0})
        )
        self.clock.advance(30)
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1"])

    def test_another_fault_is_logged_at_once(self) -> None:
        """The first one does not hide it; the growing number of seconds is no other fault."""
        faults: list[str | None] = ["the database has not answered for 46 s", None]
        watchdog = Watchdog(
            self.notifier(WATCHDOG_USEC="60000000"),
            reactor=self.clock,
            checks=[lambda: faults[0], lambda: faults[1]],
            status=lambda: "error",
        )
        watchdog.startService()
        faults[0] = "the database has not answered for 49 s"
        self.clock.advance(3)
        faults[1] = "collection has not run for 46 s"
        self.clock.advance(3)
        logged = [
            e["reason"]
            for e in self.events("Watchdog ping withheld")
            if e["log_level"] is LogLevel.error
        ]
        self.assertEqual(
            logged,
            [
                "the database has not answered for 46 s",
                "the database has not answered for 49 s; collection has not run for 46 s",
            ],
        )

    def test_every_check_is_asked_each_time(self) -> None:
        """One that fails does not let another's question grow old."""
        asked = []
        watchdog = Watchdog(
            self.notifier(WATCHDOG_USEC="60000000"),
            reactor=self.clock,
            checks=[lambda: "a", lambda: asked.append(1), lambda: "b"],
            status=lambda: "",
        )
        watchdog.startService()
        self.assertEqual(asked, [1])
        self.assertEqual(self.event("Watchdog ping withheld"), ("error", {"reason": "a; b"}))

    def test_a_ping_that_is_not_sent_is_tried_again_soon(self) -> None:
        """A full queue costs seconds, not half an interval."""
        self.watchdog()
        self.systemd.close()
        self.clock.advance(30)
        self.systemd = Systemd(self.systemd.address)
        self.addCleanup(self.systemd.close)
        self.clock.advance(3)
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1"])

    def test_status_without_a_watchdog(self) -> None:
        """A systemd that expects no pings gets the status every half minute."""
        watchdog = self.watchdog(WATCHDOG_USEC="0")
        self.assertEqual(self.event("Systemd watchdog not enabled"), ("info", {}))
        self.assertEqual(self.systemd.heard(), ["STATUS=ok"])
        self.status = "degraded"
        self.clock.advance(STATUS_EVERY)
        self.assertEqual(self.systemd.heard(), ["STATUS=degraded"])
        watchdog.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.events("Watchdog pinger stopping"), [])

    def test_without_systemd_there_is_no_timer(self) -> None:
        """And neither checks nor status are asked for."""
        notifier = self.notifier_of({"WATCHDOG_USEC": "60000000"})
        watchdog = Watchdog(notifier, reactor=self.clock, checks=[self.fail], status=self.fail)
        watchdog.startService()
        self.assertEqual(self.event("Systemd watchdog not enabled"), ("info", {}))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        watchdog.stopService()

    def test_a_check_that_raises_is_not_satisfied(self) -> None:
        """The watchdog must not end by the fault that it is there for."""

        def check() -> str | None:
            raise IndexError("no such row")

        watchdog = Watchdog(
            self.notifier(WATCHDOG_USEC="60000000"),
            reactor=self.clock,
            checks=[check],
            status=lambda: "ok",
        )
        watchdog.startService()
        self.assertEqual(self.systemd.heard(), ["STATUS=ok"])
        self.assertEqual(
            self.event("Watchdog ping withheld")[1]["reason"],
            "a check failed: IndexError: no such row",
        )
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_status_that_raises(self) -> None:
        """It is logged once, and the pings go on."""

        def status() -> str:
            raise ValueError(self.status)

        watchdog = Watchdog(
            self.notifier(WATCHDOG_USEC="60000000"), reactor=self.clock, checks=(), status=status
        )
        watchdog.startService()
        self.clock.pump([30, 30])
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1"] * 3)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_the_shortest_interval(self) -> None:
        """An absurd interval does not make the reactor spin."""
        self.watchdog(WATCHDOG_USEC="2")
        (timer,) = self.clock.getDelayedCalls()
        self.assertGreaterEqual(timer.getTime(), 0.05)

    def test_a_hung_database_ends_the_pings_within_two_intervals(self) -> None:
        """With the limit that is advised, and whenever it hangs."""
        for hangs in range(60, 91, 5):
            clock = Clock()
            check = ResponsivenessCheck(
                partial(_answer, clock, hangs), reactor=clock, limit=45.0, progress=lambda: None
            )
            watchdog = Watchdog(
                self.notifier(WATCHDOG_USEC="60000000"),
                reactor=clock,
                checks=[check],
                status=lambda: "",
            )
            watchdog.startService()
            last = 0.0
            for _ in range(300):
                if "WATCHDOG=1" in self.systemd.heard():
                    last = clock.seconds()
                clock.advance(1)
            killed = last + 60
            self.assertGreaterEqual(killed - hangs, 90)
            self.assertLessEqual(killed - hangs, 120)


def _answer(clock: Clock, hangs: float) -> "Deferred[None]":
    """Answer at once, until it hangs."""
    return Deferred() if clock.seconds() >= hangs else succeed(None)
