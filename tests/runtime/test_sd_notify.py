"""The messages for systemd, on real datagram sockets."""

import os
import tempfile
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel

from belatwist.log.throttle import REPEAT_AFTER
from belatwist.runtime.sd_notify import Notifier
from tests.runtime.fake_systemd import Systemd, SystemdTestCase


class NotifierTests(SystemdTestCase):
    """sd_notify(3)."""

    def test_every_state(self) -> None:
        """Each is one datagram, as the manual page spells it."""
        notifier = self.notifier()
        notifier.ready()
        self.assertTrue(notifier.ping())
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
        self.notifier_of(systemd.environment()).ready()
        self.assertEqual(systemd.heard(), ["READY=1"])

    def test_nobody_listens(self) -> None:
        """Without a socket, or with one of another kind, nothing is sent, raised or logged."""
        for address in (None, "", "@", "/", "vsock:2:1234", "run/notify"):
            environment = {} if address is None else {"NOTIFY_SOCKET": address}
            notifier = self.notifier_of({**environment, "WATCHDOG_USEC": "60000000"})
            self.assertEqual((notifier.enabled, notifier.watchdog), (False, None))
            notifier.ready()
            self.assertFalse(notifier.ping())
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
        """No text can add another variable, and the message is UTF-8."""
        self.notifier().status(text)
        for message in self.systemd.heard():
            self.assertTrue(message.startswith("STATUS="))
            self.assertTrue(message.isprintable())
            self.assertLessEqual(len(message), 307)

    def test_a_status_that_was_not_sent_is_sent_again(self) -> None:
        """A status counts as sent only when systemd has it."""
        notifier = self.notifier()
        self.systemd.close()
        notifier.status("a")
        self.systemd = Systemd(self.systemd.address)
        notifier.status("a")
        self.assertEqual(self.systemd.heard(), ["STATUS=a"])
        self.systemd.close()

    def test_failures_are_logged_once(self) -> None:
        """A systemd that is gone is a warning once, then at debug; its return is logged."""
        notifier = self.notifier()
        self.systemd.close()
        self.assertFalse(notifier.ping())
        level, fields = self.event("Failed to send watchdog ping")
        self.assertEqual(level, "warn")
        self.assertEqual(fields, {"error": "[Errno 111] Connection refused", "state": "WATCHDOG=1"})
        self.clock.advance(30)
        notifier.ping()
        again = self.events("Failed to send watchdog ping")[1]
        self.assertIs(again["log_level"], LogLevel.debug)
        self.systemd = Systemd(self.systemd.address)
        self.addCleanup(self.systemd.close)
        self.assertTrue(notifier.ping())
        self.assertEqual(
            self.event("Watchdog pings can be sent again"),
            ("info", {"failures": 2, "seconds": 30.0}),
        )
        self.systemd.close()
        self.clock.advance(REPEAT_AFTER)
        notifier.ping()
        last = self.events("Failed to send watchdog ping")[-1]
        self.assertIs(last["log_level"], LogLevel.warn)

    def test_a_full_queue_is_not_waited_for(self) -> None:
        """A systemd that does not read must not hold the reactor up."""
        notifier = self.notifier()
        self.assertIn(False, (notifier.ping() for _ in range(100_000)))
        self.assertIn(
            "temporarily unavailable", self.event("Failed to send watchdog ping")[1]["error"]
        )

    def test_an_address_that_is_too_long(self) -> None:
        """An address that the kernel refuses is a failure like any other."""
        notifier = self.notifier_of({"NOTIFY_SOCKET": "/" + "x" * 200})
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
    assert Notifier.from_environment(environment, seconds=float).watchdog == interval


class ReadyTests(SystemdTestCase):
    """The message on which a start depends."""

    def test_it_is_not_lost(self) -> None:
        """When the queue is full, READY goes before the next message; once."""
        notifier = self.notifier()
        while notifier.ping():
            pass
        notifier.ready()
        self.assertNotIn("READY=1", self.systemd.heard())
        notifier.status("ok")
        notifier.ping()
        self.assertEqual(self.systemd.heard(), ["READY=1", "STATUS=ok", "WATCHDOG=1"])
