"""The upload loop's sleep under a clock."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from belatwist.upload.wakeup import Wakeup


class WakeupTests(SynchronousTestCase):
    """The moment at which a sleep ends, and its result."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wakeup = Wakeup(self.clock)

    def sleep(self, *, can_ring: bool = True) -> "Deferred[bool]":
        """Sleep for ten seconds."""
        return Deferred.fromCoroutine(self.wakeup.sleep(10.0, can_ring=can_ring))

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_sleep_ends_when_its_time_is_over(self) -> None:
        """Not before, and nothing has ended it early."""
        slept = self.sleep()
        self.clock.advance(9.9)
        self.assertNoResult(slept)
        self.clock.advance(0.1)
        self.assertIs(self.successResultOf(slept), False)

    def test_ringing_ends_a_sleep(self) -> None:
        """At once, and only the present one."""
        slept = self.sleep()
        self.wakeup.ring()
        self.assertIs(self.successResultOf(slept), True)
        self.wakeup.ring()
        again = self.sleep()
        self.assertNoResult(again)
        self.clock.advance(10)
        self.assertIs(self.successResultOf(again), False)

    def test_some_sleeps_are_not_ended_by_ringing(self) -> None:
        """They last as long as they were meant to."""
        slept = self.sleep(can_ring=False)
        self.wakeup.ring()
        self.assertNoResult(slept)
        self.clock.advance(10)
        self.assertIs(self.successResultOf(slept), False)

    def test_stopping_ends_every_sleep(self) -> None:
        """The present sleep, of either kind, and those to come."""
        slept = self.sleep(can_ring=False)
        self.wakeup.stop()
        self.assertIs(self.successResultOf(slept), False)
        self.assertIs(self.successResultOf(self.sleep()), False)
        self.wakeup.ring()
        self.wakeup.stop()

    def test_cancelling_leaves_no_timer(self) -> None:
        """A coroutine that is cancelled while it sleeps ends there."""
        slept = self.sleep()
        slept.cancel()
        self.failureResultOf(slept, CancelledError)
        self.wakeup.ring()
