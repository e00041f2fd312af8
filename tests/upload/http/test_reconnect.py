"""The lookout under a clock, with connections that stand or not as they are told."""

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from belatwist.upload.http.reconnect import PATIENCE, SPREAD, Lookout

EVERY = 4.5
"""Seconds; the default."""


class LookoutTests(SynchronousTestCase):
    """When it tries to connect, and when it tells."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.random = 0.0
        self.attempts: list[Deferred[None]] = []
        self.returned = 0
        self.lookout = Lookout(
            self.connect,
            reactor=self.clock,
            every=EVERY,
            random=lambda: self.random,
            returned=self.tell,
        )
        self.lookout.startService()

    def connect(self) -> "Deferred[None]":
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def tell(self) -> None:
        self.returned += 1

    def refuse(self) -> None:
        """Let the last attempt fail."""
        self.attempts[-1].errback(ConnectError())

    def test_nothing_is_done_while_all_is_well(self) -> None:
        """There is not even a timer."""
        self.lookout.tried(True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_tries_until_a_connection_stands(self) -> None:
        """And then tells once, and rests."""
        self.lookout.tried(False)
        for count in range(1, 4):
            self.clock.advance(EVERY - 0.1)
            self.assertEqual(len(self.attempts), count - 1)
            self.clock.advance(0.1)
            self.assertEqual(len(self.attempts), count)
            if count < 3:
                self.refuse()
        self.assertEqual(self.returned, 0)
        self.attempts[-1].callback(None)
        self.assertEqual(self.returned, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_attempts_are_spread(self) -> None:
        """Each comes up to a fifth sooner."""
        self.random = 1.0
        self.lookout.tried(False)
        self.clock.advance(EVERY * (1 - SPREAD))
        self.assertEqual(len(self.attempts), 1)

    def test_silence_is_no_connection(self) -> None:
        """An attempt that comes to nothing ends, and is followed by another."""
        self.lookout.tried(False)
        self.clock.advance(EVERY)
        self.clock.advance(PATIENCE)
        self.clock.advance(EVERY)
        self.assertEqual(len(self.attempts), 2)

    def test_others_attempts_count(self) -> None:
        """One that fails changes nothing, one that stands ends the looking out, untold."""
        self.lookout.tried(False)
        self.clock.advance(EVERY - 0.1)
        self.lookout.tried(False)
        self.clock.advance(0.1)
        self.lookout.tried(False)
        self.assertEqual(len(self.attempts), 1)
        self.refuse()
        self.lookout.tried(True)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.returned, 0)

    def test_a_failure_after_the_return_is_a_new_one(self) -> None:
        """Whoever is told may try at once, and miss: then it is looked out for again, and each
        time half as often, until a connection has stood.
        """
        lookout = Lookout(
            self.connect,
            reactor=self.clock,
            every=EVERY,
            random=lambda: 0.0,
            returned=lambda: lookout.tried(False),
        )
        lookout.startService()
        lookout.tried(False)
        for wait in (1, 2, 4, 8, 16, 16):
            count = len(self.attempts)
            self.clock.advance(EVERY * wait - 0.1)
            self.assertEqual(len(self.attempts), count)
            self.clock.advance(0.1)
            self.assertEqual(len(self.attempts), count + 1)
            self.attempts[-1].callback(None)
        lookout.tried(True)
        lookout.tried(False)
        count = len(self.attempts)
        self.clock.advance(EVERY)
        self.assertEqual(len(self.attempts), count + 1)

    def test_stop(self) -> None:
        """No timer and no attempt is left, whichever there was."""
        self.lookout.tried(False)
        self.lookout.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.lookout.tried(False)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.lookout.startService()
        self.lookout.tried(False)
        self.clock.advance(EVERY)
        self.lookout.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.returned, 0)
