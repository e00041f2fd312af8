"""The uploader under a clock, with a client that has prepared answers."""

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import TEXT, Sample, Series, sample
from belatwist.store import Outcome
from belatwist.upload.delivery import Delivery
from belatwist.upload.jsonl import MAX_AHEAD_MS
from belatwist.upload.policy import Accepted, Backoff, Misconfigured, Retryable
from belatwist.upload.retry import RetryChain
from belatwist.upload.service import GRACE, Uploader
from belatwist.upload.wakeup import Wakeup
from tests.fakes import MemoryStore
from tests.log_events import Captured
from tests.upload.scripted import DeviceClock, ScriptedClient

NOW_MS = 1_800_000_000_000
INTERVAL = 30.0


def samples(count: int, first: int = 0) -> list[Sample]:
    """Make samples of one series, a second apart."""
    series = Series.of("a.b", "device")
    return [sample(series, NOW_MS - 10**6 + 1000 * (first + i), first + i) for i in range(count)]


class UploaderTests(SynchronousTestCase):
    """Samples that are sent and marked, and the failures of a server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.client = ScriptedClient()
        self.device_clock = DeviceClock(NOW_MS)
        self.offset = 1.0

    def uploader(
        self,
        *,
        batch_size: int = 100,
        chunk_size: int = 10,
        level: int | None = 6,
        attempts: int = 1,
        random: Callable[[], float] = lambda: 0.5,
    ) -> Uploader:
        """Start an uploader; without retries, unless a test is about them."""
        backoff = Backoff(attempts, initial=5.0, maximum=60.0, multiplier=3.0, jitter=0.2)
        self.telemetry = Telemetry()
        self.wakeup = Wakeup(self.clock)
        self.delivery = Delivery(
            self.store,
            RetryChain(
                self.client,
                backoff,
                self.wakeup,
                reactor=self.clock,
                random=random,
                telemetry=self.telemetry,
            ),
            self.wakeup,
            reactor=self.clock,
            clock=self.device_clock,
            fresh_every=INTERVAL,
            batch_size=batch_size,
            chunk_size=chunk_size,
            compression_level=level,
            random=random,
            endpoint=self.client.endpoint,
            telemetry=self.telemetry,
        )
        service = Uploader(
            self.delivery,
            self.client,
            self.wakeup,
            reactor=self.clock,
            interval=INTERVAL,
            random=lambda: self.offset,
        )
        service.startService()
        return service

    def accepted(self) -> int:
        """How many samples were recorded as accepted."""
        return sum(len(v.rows) for v in self.store.settlements if v.outcome is Outcome.ACCEPTED)

    def test_cycles_are_an_interval_apart(self) -> None:
        """The first comes within an interval after the start: here, at its end."""
        self.store.add(samples(1))
        self.uploader()
        self.clock.advance(INTERVAL - 1)
        self.assertEqual(self.client.bodies, [])
        self.clock.advance(1)
        self.assertEqual(len(self.client.bodies), 1)
        self.store.add(samples(1, first=1))
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.client.bodies), 2)

    def test_the_first_cycle_comes_at_a_random_moment(self) -> None:
        """Devices that are switched on together do not upload together ever after."""
        self.offset = 0.25
        self.store.add(samples(1))
        self.uploader()
        self.clock.advance(INTERVAL / 4 - 0.1)
        self.assertEqual(self.client.bodies, [])
        self.clock.advance(0.1)
        self.assertEqual(len(self.client.bodies), 1)
        self.store.add(samples(1, first=1))
        self.clock.advance(INTERVAL - 0.1)
        self.assertEqual(len(self.client.bodies), 1)
        self.clock.advance(0.1)
        self.assertEqual(len(self.client.bodies), 2)

    def test_a_wakeup_begins_a_cycle(self) -> None:
        """Between two cycles; the next comes an interval later. Before the first there is none."""
        self.store.add(samples(1))
        service = self.uploader()
        self.wakeup.ring()
        self.assertEqual(self.client.bodies, [])
        self.client.outcomes = [Retryable("refused"), Accepted(204)]
        self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL / 2)
        self.assertEqual(len(self.client.bodies), 1)
        self.wakeup.ring()
        self.assertEqual(len(self.client.bodies), 2)
        self.store.add(samples(1, first=1))
        self.clock.advance(INTERVAL - 0.1)
        self.assertEqual(len(self.client.bodies), 2)
        self.clock.advance(0.1)
        self.assertEqual(len(self.client.bodies), 3)
        self.successResultOf(service.stopService())
        self.wakeup.ring()
        self.assertEqual(len(self.client.bodies), 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_wakeup_within_a_cycle(self) -> None:
        """It ends the wait for the next attempt, and begins no second cycle."""
        self.store.add(samples(1))
        self.uploader(attempts=2)
        self.client.outcomes = [Retryable("refused"), None]
        self.clock.advance(INTERVAL)
        self.wakeup.ring()
        self.assertEqual(len(self.client.bodies), 2)
        self.wakeup.ring()
        self.assertEqual(len(self.client.bodies), 2)
        self.client.waiting.pop().callback(Accepted(204))
        self.assertEqual(self.accepted(), 1)

    def test_a_stop_before_the_first_cycle(self) -> None:
        """Then there is none."""
        self.store.add(samples(1))
        self.successResultOf(self.uploader().stopService())
        self.clock.advance(2 * INTERVAL)
        self.assertEqual(self.client.bodies, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_pending_sends_nothing(self) -> None:
        """Without samples there is no request."""
        self.uploader()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.client.bodies, [])

    def test_everything_arrives_once_and_in_order(self) -> None:
        """Over several batches and chunks, nothing is lost, doubled or out of order."""
        self.store.add(samples(1234))
        self.uploader(batch_size=100, chunk_size=7)
        self.clock.advance(INTERVAL)
        sent = [at for body in self.client.points() for _, at, _ in body]
        self.assertEqual(sent, [one.timestamp_ms for one in samples(1234)])
        self.assertEqual(self.accepted(), 1234)
        self.assertEqual(self.store.pending, 0)

    def test_chunks_grow(self) -> None:
        """Each accepted chunk lets the next be twice as large, up to the batch; and so it stays."""
        self.store.add(samples(200))
        self.uploader(batch_size=100, chunk_size=10)
        self.clock.advance(INTERVAL)
        self.assertEqual([len(body) for body in self.client.points()], [10, 20, 40, 30, 100])
        self.store.add(samples(90, first=200))
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.client.points()[-1]), 90)

    def test_chunks_fall_back(self) -> None:
        """After a failure the next chunk is small again."""
        self.store.add(samples(70))
        self.client.outcomes = [Accepted(204), Accepted(204), Retryable("reset"), Accepted(204)]
        self.uploader(batch_size=100, chunk_size=10)
        self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL)
        self.assertEqual([len(body) for body in self.client.points()], [10, 20, 40, 10, 20, 10])

    def test_each_chunk_has_its_checkpoint(self) -> None:
        """Chunks are numbered within the cycle's batch id; the next cycle has another."""
        self.store.add(samples(30))
        self.uploader(chunk_size=10)
        self.clock.advance(INTERVAL)
        self.store.add(samples(1, first=30))
        self.clock.advance(INTERVAL)
        first, second, third = self.store.settlements
        self.assertEqual([v.chunk_index for v in self.store.settlements], [0, 1, 0])
        self.assertEqual(first.batch_id, second.batch_id)
        self.assertNotEqual(first.batch_id, third.batch_id)

    def test_the_store_learns_when_samples_were_read(self) -> None:
        """A chunk is as of its batch, also when the store was written to since."""
        self.store.add(samples(30))
        self.uploader(chunk_size=10)
        self.clock.advance(INTERVAL)
        self.store.add(samples(1, first=30))
        self.clock.advance(INTERVAL)
        self.assertEqual([v.as_of for v in self.store.settlements], [1, 1, 4])

    def test_refusals_mark_nothing(self) -> None:
        """A server that is busy or refuses marks nothing, and the next cycle sends again."""
        for outcome in (Retryable("HTTP 503", 503), Misconfigured(401, "HTTP 401")):
            with self.subTest(outcome=outcome):
                self.setUp()
                self.store.add(samples(50))
                self.client.outcomes = [Accepted(204), outcome, Accepted(204)]
                self.uploader(chunk_size=10)
                self.clock.advance(INTERVAL)
                self.assertEqual(self.accepted(), 10)
                self.assertEqual(len(self.client.bodies), 2)
                self.clock.advance(INTERVAL)
                self.assertEqual(self.accepted(), 50)

    def test_a_resent_chunk_is_the_same_bytes(self) -> None:
        """A body that is sent again after a lost answer can be recognised."""
        self.store.add(samples(5))
        self.client.outcomes = [Retryable("reset"), Accepted(204)]
        self.uploader()
        self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.client.bodies[0], self.client.bodies[1])

    def test_never_two_uploads_at_a_time(self) -> None:
        """A cycle that lasts longer than the interval delays the next one."""
        self.store.add(samples(5))
        self.client.outcomes = [None]
        self.uploader()
        self.clock.advance(INTERVAL)
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(len(self.client.bodies), 1)

    def test_a_failing_store_does_not_end_the_uploads(self) -> None:
        """An error within a cycle is logged, and the next cycle comes."""
        self.store.add(samples(5))
        self.store.fail_next(OSError("disk"))
        self.uploader()
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.accepted(), 5)

    def test_what_the_server_would_drop_is_rejected_here(self) -> None:
        """It is recorded with the reason and not sent; the others are."""
        long = Series.of("a.b", "device", {"tag": "x" * 5000})
        self.store.add([sample(long, NOW_MS, 1.0), *samples(3)])
        self.uploader()
        with Captured() as log:
            self.clock.advance(INTERVAL)
        rejected = [v for v in self.store.settlements if v.outcome is Outcome.REJECTED]
        self.assertEqual([len(v.rows) for v in rejected], [1])
        self.assertIn("5000 bytes", str(rejected[0].reason))
        self.assertEqual(self.accepted(), 3)
        self.assertEqual(self.store.pending, 0)
        self.assertEqual(len(log.texts(LogLevel.warn)), 1)

    def test_too_far_ahead_waits(self) -> None:
        """A sample that is too far in the future stays here, and delays no other."""
        ahead = Series.of("a.b", "device", priority=0)
        self.store.add([sample(ahead, NOW_MS + MAX_AHEAD_MS + 1, 1.0), *samples(3)])
        self.uploader()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.accepted(), 3)
        self.assertEqual(self.store.pending, 1)

    def test_an_untrusted_clock_holds_everything(self) -> None:
        """Nothing is sent while the clock is not trusted; the log says why."""
        self.store.add(samples(3))
        self.device_clock.wrong = "it differs from the server's by 7200.0 s"
        self.uploader()
        with Captured() as log:
            self.clock.advance(INTERVAL)
        self.assertEqual(self.client.bodies, [])
        self.assertIn("7200.0 s", log.texts(LogLevel.info)[0])
        self.device_clock.wrong = None
        self.clock.advance(INTERVAL)
        self.assertEqual(self.accepted(), 3)

    def test_texts_are_not_sent(self) -> None:
        """A text is neither pending nor sent."""
        text = Series.of("a.text", "device", value_type=TEXT)
        self.store.add([Sample(text, NOW_MS, "up"), *samples(1)])
        self.uploader()
        self.clock.advance(INTERVAL)
        self.assertEqual([len(body) for body in self.client.points()], [1])

    def test_plain_bodies(self) -> None:
        """Without compression the body is the lines themselves."""
        self.store.add(samples(1))
        self.uploader(level=None)
        self.clock.advance(INTERVAL)
        self.assertTrue(self.client.bodies[0].startswith(b'{"metric":'))

    def test_a_dead_uplink_does_not_flood_the_log(self) -> None:
        """The first failure is a warning, repetitions are not; the recovery is logged."""
        self.store.add(samples(1))
        self.client.outcomes = [Retryable("refused")] * 5 + [Accepted(204)]
        self.uploader()
        with Captured() as log:
            self.clock.pump([INTERVAL] * 6)
        self.assertEqual(len(log.texts(LogLevel.warn)), 1)
        self.assertIn("refused", log.texts(LogLevel.warn)[0])
        self.assertIn(
            f"Uploads to {self.client.endpoint} recovered, after 150 s and 5 failures",
            log.texts(LogLevel.info),
        )

    def test_stop_when_idle(self) -> None:
        """Stopping between two cycles is immediate, closes the client and leaves no timer."""
        service = self.uploader()
        self.successResultOf(service.stopService())
        self.assertTrue(self.client.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_lets_the_request_in_flight_finish(self) -> None:
        """Its answer is recorded; no further chunk is begun."""
        self.store.add(samples(50))
        self.client.outcomes = [None]
        service = self.uploader(chunk_size=10)
        self.clock.advance(INTERVAL)
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.client.waiting.pop().callback(Accepted(204))
        self.successResultOf(stopped)
        self.assertEqual(self.accepted(), 10)
        self.assertEqual(len(self.client.bodies), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_does_not_wait_for_ever(self) -> None:
        """A request that is not answered is given up after a grace, with nothing marked."""
        self.store.add(samples(5))
        self.client.outcomes = [None]
        service = self.uploader()
        self.clock.advance(INTERVAL)
        stopped = service.stopService()
        self.clock.advance(GRACE)
        self.successResultOf(stopped)
        self.assertEqual(self.client.cancelled, 1)
        self.assertEqual(self.store.settlements, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_the_store_answers(self) -> None:
        """A stop between the server's answer and its record waits for the record."""
        self.store.add(samples(5))
        self.client.outcomes = [None]
        service = self.uploader()
        self.clock.advance(INTERVAL)
        self.store.hold()
        self.client.waiting.pop().callback(Accepted(204))
        stopped = service.stopService()
        self.assertNoResult(stopped)
        self.store.release()
        self.successResultOf(stopped)
        self.assertEqual(self.accepted(), 5)
