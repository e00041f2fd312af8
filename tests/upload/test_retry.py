"""The retry chain and its waits, under a clock."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from belatwist.metrics.telemetry import Telemetry
from belatwist.upload.policy import (
    MAX_RETRY_AFTER,
    Accepted,
    Backoff,
    Misconfigured,
    OnHold,
    Rejected,
    Retryable,
)
from belatwist.upload.retry import RetryChain, Sent
from belatwist.upload.wakeup import Wakeup
from tests.upload.scripted import ScriptedClient

BACKOFF = Backoff(attempts=3, initial=5.0, maximum=60.0, multiplier=3.0, jitter=0.2)


class BackoffTests(SynchronousTestCase):
    """How long a wait is."""

    def test_schedule(self) -> None:
        """5 s, 15 s, 45 s, and then the maximum."""
        waits = [BACKOFF.wait(n, asked=0.0, random=0.5) for n in range(1, 7)]
        self.assertEqual(waits, [5.0, 15.0, 45.0, 60.0, 60.0, 60.0])

    def test_jitter(self) -> None:
        """Each wait varies by the jitter, up and down."""
        self.assertAlmostEqual(BACKOFF.wait(1, asked=0.0, random=0.0), 4.0)
        self.assertAlmostEqual(BACKOFF.wait(1, asked=0.0, random=1.0), 6.0)

    def test_the_server_may_ask_for_more(self) -> None:
        """``Retry-After`` is the least, also beyond the maximum; a shorter time changes nothing."""
        self.assertEqual(BACKOFF.wait(1, asked=300.0, random=0.5), 300.0)
        self.assertEqual(BACKOFF.wait(2, asked=1.0, random=0.5), 15.0)

    @given(
        st.integers(1, 10_000),
        st.floats(0, MAX_RETRY_AFTER),
        st.floats(0, 1),
        st.floats(1, 100),
        st.floats(0, 1),
    )
    def test_bounds(
        self, attempt: int, asked: float, random: float, multiplier: float, jitter: float
    ) -> None:
        """For any numbers, a wait is at least ``Retry-After``, and at most an hour or so."""
        backoff = Backoff(20, 5.0, 60.0, multiplier, jitter)
        wait = backoff.wait(attempt, asked=asked, random=random)
        self.assertGreaterEqual(wait, asked)
        self.assertLessEqual(wait, max(asked, 120.0))


class ChainTests(SynchronousTestCase):
    """Which results lead to another attempt, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.client = ScriptedClient()
        self.wrong: str | None = None
        self.told: list[tuple[str, int, float]] = []
        self.telemetry = Telemetry()
        self.wakeup = Wakeup(self.clock)
        self.chain = RetryChain(
            self.client,
            BACKOFF,
            self.wakeup,
            reactor=self.clock,
            random=lambda: 0.5,
            telemetry=self.telemetry,
        )

    def send(self) -> "Deferred[Sent]":
        """Send a body."""

        def retrying(outcome: Retryable, attempt: int, wait: float) -> None:
            self.told.append((outcome.reason, attempt, wait))

        async def check() -> str | None:
            return self.wrong

        return Deferred.fromCoroutine(self.chain.send(b"body", retrying, check))

    def test_final_answers_are_final(self) -> None:
        """Accepted, rejected and misconfigured bodies are not sent again."""
        for outcome in (Accepted(204), Rejected(400, "bad"), Misconfigured(401, "token")):
            self.client.outcomes = [outcome]
            self.assertEqual(self.successResultOf(self.send()), Sent(outcome, 1))
        self.assertEqual(len(self.client.bodies), 3)

    def test_attempts_and_waits(self) -> None:
        """The same bytes three times, 5 s and 15 s apart; each wait is reported; then the end."""
        self.client.outcomes = [Retryable("reset")]
        done = self.send()
        self.clock.advance(4.9)
        self.assertEqual(len(self.client.bodies), 1)
        self.clock.advance(0.1)
        self.assertEqual(len(self.client.bodies), 2)
        self.assertNoResult(done)
        self.clock.advance(15.0)
        self.assertEqual(self.client.bodies, [b"body"] * 3)
        self.assertEqual(self.successResultOf(done), Sent(Retryable("reset"), 3))
        self.assertEqual(self.told, [("reset", 1, 5.0), ("reset", 2, 15.0)])

    def test_success_after_a_failure(self) -> None:
        """The result is the last attempt's, and comes with its number."""
        self.client.outcomes = [Retryable("reset"), Accepted(204)]
        done = self.send()
        self.clock.advance(5.0)
        self.assertEqual(self.successResultOf(done), Sent(Accepted(204), 2))

    def test_each_request_is_timed(self) -> None:
        """Without the wait before it, also when it fails; a request that is not made has none."""
        self.client.outcomes = [None]
        done = self.send()
        self.clock.advance(3.0)
        self.client.waiting.pop().callback(Retryable("reset"))
        self.clock.advance(5.0)
        self.clock.advance(0.25)
        self.client.waiting.pop().callback(Accepted(204))
        self.assertEqual(self.successResultOf(done), Sent(Accepted(204), 2, 0.25))
        self.wrong = "the clock"
        self.successResultOf(self.send())
        value = self.telemetry.registry.get_sample_value
        self.assertEqual(value("uploader_upload_duration_seconds_count"), 2)
        self.assertEqual(value("uploader_upload_duration_seconds_sum"), 3.25)

    def test_checked_before_each_attempt(self) -> None:
        """A reason against sending ends the chain, at once and after a wait alike."""
        self.wrong = "the clock"
        self.assertEqual(self.successResultOf(self.send()), Sent(OnHold("the clock"), 1))
        self.assertEqual(self.client.bodies, [])
        self.wrong = None
        self.client.outcomes = [Retryable("reset")]
        done = self.send()
        self.wrong = "the clock"
        self.clock.advance(5.0)
        self.assertEqual(self.successResultOf(done), Sent(OnHold("the clock"), 2))
        self.assertEqual(len(self.client.bodies), 1)

    def test_retry_after(self) -> None:
        """The server's wish is waited for."""
        self.client.outcomes = [Retryable("busy", 429, 100.0), Accepted(204)]
        done = self.send()
        self.clock.advance(99.9)
        self.assertNoResult(done)
        self.clock.advance(0.1)
        self.successResultOf(done)

    def test_a_wakeup_ends_a_wait(self) -> None:
        """The next attempt comes at once, and is the second; without a wait nothing happens."""
        self.client.outcomes = [Retryable("refused"), None]
        self.wakeup.ring()
        done = self.send()
        self.wakeup.ring()
        self.assertEqual(len(self.client.bodies), 2)
        self.wakeup.ring()
        self.client.waiting.pop().callback(Accepted(204))
        self.assertEqual(self.successResultOf(done), Sent(Accepted(204), 2))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_wakeup_leaves_a_wait_that_the_server_has_asked_for(self) -> None:
        """A server that asked for time can be reached already."""
        self.client.outcomes = [Retryable("busy", 429, 100.0), Accepted(204)]
        done = self.send()
        self.wakeup.ring()
        self.clock.advance(99.9)
        self.assertNoResult(done)
        self.clock.advance(0.1)
        self.successResultOf(done)

    def test_stop_ends_a_wait_at_once(self) -> None:
        """No timer is left, no further attempt is made."""
        self.client.outcomes = [Retryable("reset")]
        done = self.send()
        self.wakeup.stop()
        self.assertEqual(self.successResultOf(done), Sent(OnHold("stopping"), 2))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.client.bodies), 1)

    def test_stop_leaves_a_request_in_flight_alone(self) -> None:
        """Its answer counts, but a failure is not followed by a wait."""
        self.client.outcomes = [None]
        done = self.send()
        self.wakeup.stop()
        self.assertNoResult(done)
        self.client.waiting.pop().callback(Retryable("reset"))
        self.assertEqual(self.successResultOf(done), Sent(Retryable("reset"), 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])
