"""The reconnect probe under a clock, with connections that the test lets succeed or fail."""

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from belatwist.upload.http.reconnect import PROBE_TIMEOUT, SPREAD, ReconnectProbe

INTERVAL = 4.5
"""Seconds; the default."""


class ReconnectProbeTests(SynchronousTestCase):
    """The moments at which it tries to connect, and at which it reports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.random = 0.0
        self.attempts: list[Deferred[None]] = []
        self.reports = 0
        self.probe = ReconnectProbe(
            self.connect,
            reactor=self.clock,
            interval=INTERVAL,
            random=lambda: self.random,
            reached=self.report,
        )
        self.probe.startService()

    def connect(self) -> "Deferred[None]":
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def report(self) -> None:
        self.reports += 1

    def refuse(self) -> None:
        """Let the last attempt fail."""
        self.attempts[-1].errback(ConnectError())

    def test_nothing_is_done_while_all_is_well(self) -> None:
        """There is not even a timer."""
        self.probe.connection_attempted(True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_probes_until_a_connection_succeeds(self) -> None:
        """Then it reports once, and rests."""
        self.probe.connection_attempted(False)
        for count in range(1, 4):
            self.clock.advance(INTERVAL - 0.1)
            self.assertEqual(len(self.attempts), count - 1)
            self.clock.advance(0.1)
            self.assertEqual(len(self.attempts), count)
            if count < 3:
                self.refuse()
        self.assertEqual(self.reports, 0)
        self.attempts[-1].callback(None)
        self.assertEqual(self.reports, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_attempts_are_spread(self) -> None:
        """Each comes up to a fifth sooner."""
        self.random = 1.0
        self.probe.connection_attempted(False)
        self.clock.advance(INTERVAL * (1 - SPREAD))
        self.assertEqual(len(self.attempts), 1)

    def test_silence_is_no_connection(self) -> None:
        """An attempt that comes to nothing ends, and is followed by another."""
        self.probe.connection_attempted(False)
        self.clock.advance(INTERVAL)
        self.clock.advance(PROBE_TIMEOUT)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.attempts), 2)

    def test_others_attempts_count(self) -> None:
        """A failed attempt changes nothing; a successful one ends the probing, without a report."""
        self.probe.connection_attempted(False)
        self.clock.advance(INTERVAL - 0.1)
        self.probe.connection_attempted(False)
        self.clock.advance(0.1)
        self.probe.connection_attempted(False)
        self.assertEqual(len(self.attempts), 1)
        self.refuse()
        self.probe.connection_attempted(True)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reports, 0)

    def test_a_failure_after_the_return(self) -> None:
        """The upload after a report may fail: then probes come again, each time half as often,
        until a connection has succeeded.
        """
        probe = ReconnectProbe(
            self.connect,
            reactor=self.clock,
            interval=INTERVAL,
            random=lambda: 0.0,
            reached=lambda: probe.connection_attempted(False),
        )
        probe.startService()
        probe.connection_attempted(False)
        for wait in (1, 2, 4, 8, 16, 16):
            count = len(self.attempts)
            self.clock.advance(INTERVAL * wait - 0.1)
            self.assertEqual(len(self.attempts), count)
            self.clock.advance(0.1)
            self.assertEqual(len(self.attempts), count + 1)
            self.attempts[-1].callback(None)
        probe.connection_attempted(True)
        probe.connection_attempted(False)
        count = len(self.attempts)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.attempts), count + 1)

    def test_stop(self) -> None:
        """No timer and no attempt is left, whichever there was."""
        self.probe.connection_attempted(False)
        self.probe.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.probe.connection_attempted(False)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.probe.startService()
        self.probe.connection_attempted(False)
        self.clock.advance(INTERVAL)
        self.probe.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reports, 0)
