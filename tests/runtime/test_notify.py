"""What systemd is told, on real datagram sockets."""

import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.runtime.systemd import STATUS_EVERY, Answering, Lately, Notifier, Watchdog
from tests.log_events import Captured


class Systemd:
    """The other end: a bound datagram socket.

    :param address: as in ``NOTIFY_SOCKET``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a service."""
        return {"NOTIFY_SOCKET": self.address, **more}

    def heard(self) -> list[str]:
        """Return what came since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(65536).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        """Close the socket, and let a path stay behind."""
        self._socket.close()


def abstract() -> str:
    """Return an abstract address that nobody else has."""
    return f"@belatwist-test-{uuid4()}"


class SystemdTestCase(SynchronousTestCase):
    """With a systemd that listens, and the log captured."""

    def setUp(self) -> None:
        self.systemd = Systemd(abstract())
        self.addCleanup(self.systemd.close)
        self.captured = Captured()
        self.enterContext(self.captured)

    def notifier(self, **more: str) -> Notifier:
        """Make one that this systemd hears."""
        return Notifier.from_environment(self.systemd.environment(**more))

    def events(self, text: str) -> list[LogEvent]:
        """Return the logged events with a text."""
        return [e for e in self.captured.events if e.get("log_format") == text]

    def event(self, text: str) -> tuple[str, dict[str, Any]]:
        """Return the level and the fields of the one event with a text."""
        (one,) = self.events(text)
        fields = {key: value for key, value in one.items() if not key.startswith("log_")}
        return one["log_level"].name, {k: v for k, v in fields.items() if k not in LEGACY}


# Added by trial's own observer, when it has seen an event first.
LEGACY = {"message", "time", "system", "format", "isError"}


class NotifierTests(SystemdTestCase):
    """sd_notify(3)."""

    def test_every_state(self) -> None:
        """Each is one datagram, as the manual page spells it."""
        notifier = self.notifier()
        notifier.ready()
        self.assertTrue(notifier.alive())
        notifier.status("42 samples pending")
        notifier.extend(1.5)
        notifier.stopping()
        self.assertEqual(
            self.systemd.heard(),
            [
                "READY=1",
                "WATCHDOG=1",
                "STATUS=42 samples pending",
                "EXTEND_TIMEOUT_USEC=1500000",
                "STOPPING=1",
            ],
        )

    def test_a_path(self) -> None:
        """The socket may have a path, as systemd's own has."""
        folder = self.enterContext(tempfile.TemporaryDirectory())
        systemd = Systemd(f"{folder}/notify")
        self.addCleanup(systemd.close)
        Notifier.from_environment(systemd.environment()).ready()
        self.assertEqual(systemd.heard(), ["READY=1"])

    def test_nobody_listens(self) -> None:
        """Without a socket, or with one of another kind, nothing is sent, raised or logged."""
        for address in (None, "", "@", "/", "vsock:2:1234", "run/notify"):
            environment = {} if address is None else {"NOTIFY_SOCKET": address}
            notifier = Notifier.from_environment({**environment, "WATCHDOG_USEC": "60000000"})
            self.assertEqual((notifier.enabled, notifier.watchdog), (False, None))
            notifier.ready()
            self.assertFalse(notifier.alive())
            notifier.status("x")
        self.assertEqual(self.captured.events, [])

    def test_status_only_when_it_changes(self) -> None:
        """The same text is sent once."""
        notifier = self.notifier()
        for text in ("a", "a", "b", "a"):
            notifier.status(text)
        self.assertEqual(self.systemd.heard(), ["STATUS=a", "STATUS=b", "STATUS=a"])

    @given(st.text(st.characters(exclude_categories=[])))
    def test_status_is_one_bounded_line(self, text: str) -> None:
        """Whatever the text, no other variable can be smuggled in, and it is UTF-8."""
        self.notifier().status(text)
        for message in self.systemd.heard():
            self.assertTrue(message.startswith("STATUS="))
            self.assertTrue(message.isprintable())
            self.assertLessEqual(len(message), 307)

    def test_a_status_that_was_not_sent_is_sent_again(self) -> None:
        """Only what systemd has heard counts as told."""
        notifier = self.notifier()
        self.systemd.close()
        notifier.status("a")
        self.systemd = Systemd(self.systemd.address)
        notifier.status("a")
        self.assertEqual(self.systemd.heard(), ["STATUS=a"])
        self.systemd.close()

    def test_failures_are_told_once(self) -> None:
        """A systemd that is gone is a warning once, then quiet, and its return is told."""
        notifier = self.notifier()
        self.systemd.close()
        self.assertFalse(notifier.alive())
        level, fields = self.event("Failed to send watchdog ping")
        self.assertEqual(level, "warn")
        self.assertEqual(fields, {"error": "[Errno 111] Connection refused", "state": "WATCHDOG=1"})
        notifier.alive()
        again = self.events("Failed to send watchdog ping")[1]
        self.assertIs(again["log_level"], LogLevel.debug)
        self.systemd = Systemd(self.systemd.address)
        self.addCleanup(self.systemd.close)
        self.assertTrue(notifier.alive())
        self.assertEqual(self.event("Watchdog pings can be sent again"), ("info", {"failures": 2}))
        self.systemd.close()
        notifier.alive()
        last = self.events("Failed to send watchdog ping")[-1]
        self.assertIs(last["log_level"], LogLevel.warn)

    def test_a_full_queue_is_not_waited_for(self) -> None:
        """A systemd that does not read must not hold the reactor up."""
        notifier = self.notifier()
        self.assertIn(False, (notifier.alive() for _ in range(100_000)))
        self.assertIn(
            "temporarily unavailable", self.event("Failed to send watchdog ping")[1]["error"]
        )

    def test_an_address_that_is_too_long(self) -> None:
        """What the kernel would refuse is a failure like any other."""
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/" + "x" * 200})
        notifier.ready()
        self.assertIn("too long", self.event("Failed to send watchdog ping")[1]["error"])


@pytest.mark.parametrize(
    ("variables", "interval"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "1"}, 1e-6),
        ({}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "x"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "1e6"}, None),
        ({"WATCHDOG_USEC": " 1"}, None),
        ({"WATCHDOG_USEC": "60s"}, None),
        ({"WATCHDOG_USEC": "\u0661"}, None),
        ({"WATCHDOG_USEC": str(2**64 - 1)}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
    ],
)
def test_the_watchdogs_interval(variables: Mapping[str, str], interval: float | None) -> None:
    """sd_watchdog_enabled(3): microseconds, for this process; anything else enables nothing."""
    environment = {"NOTIFY_SOCKET": "@x", **variables}
    assert Notifier.from_environment(environment).watchdog == interval


class AnsweringTests(SynchronousTestCase):
    """Whether somebody still answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.asked: list[Deferred[None]] = []
        self.sign: float | None = None
        self.check = self.answering(self._ask)

    def answering(self, ask: Callable[[], Deferred[None]]) -> Answering:
        """Make a check."""
        return Answering(ask, reactor=self.clock, limit=45.0, progress=lambda: self.sign)

    def _ask(self) -> "Deferred[None]":
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_answers(self) -> None:
        """Who answers is asked again each time, and never at fault."""
        for turn in range(1, 4):
            self.assertIsNone(self.check())
            self.assertEqual(len(self.asked), turn)
            self.asked[-1].callback(None)
            self.clock.advance(3600)

    def test_silence(self) -> None:
        """Beyond the limit the question's age is told; it is not put twice."""
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
        """A sign from before the question does not count against the one who is asked."""
        self.sign = self.clock.seconds()
        self.clock.advance(600)
        self.assertIsNone(self.check())
        self.clock.advance(30)
        self.assertIsNone(self.check())

    def test_no_is_an_answer(self) -> None:
        """Whoever fails is alive: a full disk is not healed by a restart."""

        def refuse() -> "Deferred[None]":
            raise RuntimeError

        for ask in (refuse, lambda: fail(RuntimeError())):
            check = self.answering(ask)
            for _ in range(3):
                self.assertIsNone(check())
                self.clock.advance(60)


class ReadyTests(SystemdTestCase):
    """The message on which a start depends."""

    def test_it_is_not_lost(self) -> None:
        """When there is no room for it, it goes before whatever is said next; once."""
        notifier = self.notifier()
        while notifier.alive():
            pass
        notifier.ready()
        self.assertNotIn("READY=1", self.systemd.heard())
        notifier.status("ok")
        notifier.alive()
        self.assertEqual(self.systemd.heard(), ["READY=1", "STATUS=ok", "WATCHDOG=1"])


class LatelyTests(SynchronousTestCase):
    """Whether something has happened lately."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.things: list[tuple[float | None, float]] = []
        self.check = Lately(lambda: self.things, reactor=self.clock, least=45.0)

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
        self.clock = Clock()
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
        """It is an error once, with the reason; that it is over is told. The status goes on."""
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
            self.event("Watchdog pings resumed"), ("info", {"withheld": 3, "seconds": 9.0})
        )
        self.clock.advance(30)
        self.assertEqual(self.systemd.heard(), ["WATCHDOG=1"])

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
        """A systemd that wants no pings is told the status every half minute."""
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
        notifier = Notifier.from_environment({"WATCHDOG_USEC": "60000000"})
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
            check = Answering(
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
