"""Upload cycles against a model of a server: every good sample arrives, for any faults."""

import random
from collections.abc import Iterable
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series, sample
from belatwist.store import Outcome
from belatwist.upload.delivery import MAX_SINGLE_RETRIES, Delivery
from belatwist.upload.policy import Backoff
from belatwist.upload.quarantine import WHOLE_SERIES_AFTER
from belatwist.upload.retry import RetryChain
from belatwist.upload.wakeup import Wakeup
from tests.fakes import MemoryStore
from tests.log_events import Captured
from tests.upload.model import ASKED, Fault, ModelServer, Point
from tests.upload.scripted import DeviceClock

NOW_MS = 1_800_000_000_000
NAMES = ("a", "b", "c", "d", "e")


class World:
    """A store, a server's model, and a delivery from the one to the other."""

    def __init__(self, *, batch_size: int = 40, chunk_size: int = 5, attempts: int = 2) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.server = ModelServer()
        self.device_clock = DeviceClock(NOW_MS)
        self.telemetry = Telemetry()
        self.wakeup = Wakeup(self.clock)
        self.delivery = Delivery(
            self.store,
            RetryChain(
                self.server,
                Backoff(attempts, initial=1.0, maximum=10.0, multiplier=2.0, jitter=0.0),
                self.wakeup,
                reactor=self.clock,
                random=lambda: 0.5,
                telemetry=self.telemetry,
            ),
            self.wakeup,
            reactor=self.clock,
            clock=self.device_clock,
            fresh_every=30.0,
            batch_size=batch_size,
            chunk_size=chunk_size,
            compression_level=None,
            random=random.Random(0).random,
            endpoint=self.server.endpoint,
            telemetry=self.telemetry,
        )

    def collect(self, ticks: Iterable[int], names: Iterable[str] = NAMES) -> None:
        """Store a sample of each series at each tick."""
        series = [Series.of(name, "device") for name in names]
        rows: list[Sample] = [sample(s, NOW_MS - 10**6 + t, 1.0) for t in ticks for s in series]
        self.store.add(rows)

    def cycle(self) -> None:
        """Run a cycle to its end, however long it waits."""
        done: list[object] = []
        Deferred.fromCoroutine(self.delivery.run()).addBoth(done.append)
        for _ in range(10_000):
            if done:
                assert done == [None]
                return
            self.clock.advance(1.0)
        raise AssertionError("a cycle does not end")

    def settle(self, cycles: int = 50) -> None:
        """Run cycles until nothing is pending, with a fresh tick before each, as in life."""
        for i in range(cycles):
            if not self.store.pending:
                return
            self.collect([900_000 + i], names=["fresh"])
            self.clock.advance(30.0)
            self.cycle()

    def rejected(self) -> set[Point]:
        """Return the samples that were marked as rejected."""
        return self._points(Outcome.REJECTED)

    def accepted(self) -> set[Point]:
        """Return the samples that were marked as accepted."""
        return self._points(Outcome.ACCEPTED)

    def _points(self, outcome: Outcome) -> set[Point]:
        batch = self.store.everything()
        return {
            (batch[row[1]].name, row[0])
            for settlement in self.store.settlements
            if settlement.outcome is outcome
            for row in settlement.rows
        }


faults = st.lists(st.sampled_from(Fault), max_size=60)
bad_points = st.sets(st.tuples(st.sampled_from(NAMES), st.integers(0, 9)), max_size=6)


class DeliveryProperties(SynchronousTestCase):
    """Nothing lost, nothing given up without reason, nothing stuck."""

    @settings(max_examples=300)
    @given(bad_points, st.sets(st.sampled_from(NAMES), max_size=2), st.integers(1, 12))
    def test_each_sample_gets_what_it_deserves(
        self, bad: set[tuple[str, int]], bad_series: set[str], chunk_size: int
    ) -> None:
        """Bad samples and bad series are marked rejected, every other sample is there, once."""
        world = World(chunk_size=chunk_size)
        world.collect(range(10))
        condemned = {(name, NOW_MS - 10**6 + at) for name, at in bad}
        world.server.bad = lambda point: point in condemned or point[0] in bad_series
        world.settle()
        self.assertEqual(world.store.pending, 0)
        everything = {(n, NOW_MS - 10**6 + t) for n in NAMES for t in range(10)}
        deserved = {p for p in everything if world.server.bad(p)}
        self.assertEqual(world.rejected(), deserved)
        self.assertLessEqual(everything - deserved, world.accepted())
        self.assertEqual(set(world.server.taken.values()), {1})

    @settings(max_examples=300)
    @given(faults, st.integers(1, 12), st.integers(1, 3))
    def test_whatever_the_sequence_of_faults(
        self, sequence: list[Fault], chunk_size: int, attempts: int
    ) -> None:
        """Lost requests, lost answers, 503, 401: in the end all is there, and nothing rejected.

        What was taken twice was taken again after a lost answer, with the same time and value.
        """
        world = World(chunk_size=chunk_size, attempts=attempts)
        world.collect(range(10))
        world.server.faults = [f for f in sequence if f is not Fault.SLOW]
        world.settle(cycles=100)
        self.assertEqual(world.store.pending, 0)
        self.assertEqual(world.rejected(), set())
        self.assertEqual(set(world.server.taken), world.accepted())
        if Fault.CUT not in sequence:
            self.assertEqual(set(world.server.taken.values()), {1})

    @settings(max_examples=300)
    @given(faults, bad_points)
    def test_faults_and_bad_samples(self, sequence: list[Fault], bad: set[tuple[str, int]]) -> None:
        """With both, every good sample arrives and every bad one is rejected, and no good one is.

        A 400 without reason comes at most once in a row of requests. If the same lone sample met it
        in two cycles, nobody could distinguish it from a true one.
        """
        world = World()
        world.collect(range(10))
        condemned = {(name, NOW_MS - 10**6 + at) for name, at in bad}
        world.server.bad = condemned.__contains__
        slow = [i for i, fault in enumerate(sequence) if fault is Fault.SLOW][1:]
        world.server.faults = [f for i, f in enumerate(sequence) if i not in slow]
        world.settle(cycles=200)
        self.assertEqual(world.store.pending, 0)
        self.assertEqual(world.rejected(), condemned)
        self.assertEqual(set(world.server.taken), world.accepted())


class DeliveryTests(SynchronousTestCase):
    """The requests that refusals cost, and the samples that they must not reject."""

    def test_one_bad_sample_costs_a_bisection(self) -> None:
        """Everything else arrives in the same cycle."""
        world = World(batch_size=64, chunk_size=64)
        world.collect(range(8), names=[f"n{i}" for i in range(8)])
        bad = ("n3", NOW_MS - 10**6 + 5)
        world.server.bad = bad.__eq__
        world.cycle()
        self.assertEqual(world.store.pending, 1)
        self.assertLessEqual(len(world.server.sizes), 2 * 6 + 1)
        self.assertEqual(world.rejected(), set())
        world.collect([100], names=["n9"])
        world.cycle()
        self.assertEqual(world.rejected(), {bad})

    def test_a_bad_series_costs_no_bisection_each_time(self) -> None:
        """Once the series is known, a cycle takes one request for it and one for the others."""
        world = World(batch_size=100, chunk_size=100)
        world.server.bad = lambda point: point[0] == "b"
        for tick in range(2 * WHOLE_SERIES_AFTER + 2):
            world.collect([tick])
            world.cycle()
        requests = len(world.server.sizes)
        for tick in range(100, 110):
            world.collect([tick])
            world.cycle()
        self.assertEqual(len(world.server.sizes) - requests, 20)
        self.assertEqual({name for name, _ in world.rejected()}, {"b"})
        self.assertLessEqual(world.store.pending, 1)

    def test_questions_are_bounded(self) -> None:
        """Many pending samples of a quarantined series do not make as many requests in a cycle."""
        world = World(batch_size=400, chunk_size=400)
        world.collect([0])
        world.server.bad = lambda point: point[0] == "b"
        world.cycle()
        world.collect(range(1, 61))
        requests = len(world.server.sizes)
        world.cycle()
        self.assertLessEqual(len(world.server.sizes) - requests, MAX_SINGLE_RETRIES + 10)
        self.assertEqual({name for name, _ in world.accepted()}, set(NAMES) - {"b"})

    def test_a_server_that_refuses_everything_costs_no_sample(self) -> None:
        """A wrong path answers 400 to everything: nothing is rejected, the log names the key."""
        world = World()
        world.collect(range(10))
        world.server.refuses_everything = True
        with Captured() as log:
            for _ in range(20):
                world.cycle()
        self.assertEqual(world.store.pending, 50)
        self.assertEqual(world.store.settlements, [])
        self.assertEqual(log.texts(LogLevel.warn), [])
        self.assertEqual(len(log.texts(LogLevel.error)), 1)
        self.assertIn("remote.url", log.texts(LogLevel.error)[0])
        requests = len(world.server.sizes)
        world.cycle()
        self.assertEqual(world.server.sizes[requests:], [1])
        world.server.refuses_everything = False
        world.cycle()
        self.assertEqual(world.store.pending, 0)

    def test_a_bad_series_at_the_head_of_the_queue_blocks_nothing(self) -> None:
        """Also when everything that a cycle meets first is refused."""
        world = World(batch_size=10, chunk_size=5)
        world.collect(range(40), names=["b"])
        world.collect(range(50, 60), names=["a"])
        world.server.bad = lambda point: point[0] == "b"
        world.cycle()
        self.assertEqual(len(world.accepted()), 10)

    def test_a_server_that_asks_for_time_is_left_alone(self) -> None:
        """Also when the request for time came with a chain's last attempt: the next cycle waits."""
        world = World(attempts=2)
        world.collect([1])
        world.server.faults = [Fault.ASKS, Fault.ASKS]
        world.cycle()
        asked = len(world.server.sizes)
        self.assertEqual(asked, 2)
        world.clock.advance(ASKED - 2)
        world.cycle()
        self.assertEqual(len(world.server.sizes), asked)
        world.clock.advance(2)
        world.cycle()
        self.assertEqual(world.store.pending, 0)

    def test_a_clock_that_goes_wrong_stops_the_cycle(self) -> None:
        """In the middle of a drain, or of a chain's waits: no further sample is sent."""
        for fault in (Fault.NONE, Fault.BUSY):
            with self.subTest(fault=fault):
                world = World(batch_size=10, chunk_size=10, attempts=3)
                world.collect(range(20))
                post = world.server.post
                world.server.faults = [fault] * 3

                def goes_wrong(body: bytes, world: World = world, post: Any = post) -> Any:
                    world.device_clock.wrong = "there is no server to compare with"
                    return post(body)

                world.server.post = goes_wrong  # type: ignore[method-assign]
                world.cycle()
                self.assertEqual(len(world.server.sizes), 1)
                world.device_clock.wrong = None
                world.server.faults = []
                world.cycle()
                self.assertEqual(world.store.pending, 80 if fault is Fault.NONE else 90)

    def test_what_a_step_has_moved_is_read_anew(self) -> None:
        """Samples that were read before a step are not sent with the times that they had."""
        world = World(batch_size=50, chunk_size=10)
        world.collect(range(10))
        post = world.server.post

        def steps(body: bytes) -> Any:
            if len(world.server.sizes) == 1:
                world.device_clock.steps += 1
            return post(body)

        world.server.post = steps  # type: ignore[method-assign]
        world.cycle()
        self.assertEqual(len(world.server.sizes), 2)
        world.cycle()
        self.assertEqual(world.store.pending, 0)

    def test_a_backlog_drains_in_one_cycle(self) -> None:
        """A cycle goes on while there is more, as long as chunks are accepted."""
        world = World(batch_size=50, chunk_size=5)
        world.collect(range(500))
        world.cycle()
        self.assertEqual(world.store.pending, 0)

    def test_fresh_samples_go_first_from_time_to_time(self) -> None:
        """While a backlog is drained over a slow link, the newest do not wait for its end."""
        world = World(batch_size=50, chunk_size=50)
        world.collect(range(1000))
        post = world.server.post
        order: list[bool] = []

        def slow(body: bytes) -> object:
            world.clock.advance(10.0)
            order.append(b'"fresh"' in body)
            if len(order) == 2:
                world.collect([5000], names=["fresh"])
            return post(body)

        world.server.post = slow  # type: ignore[method-assign,assignment]
        world.cycle()
        self.assertIn(True, order[:8])
        self.assertGreater(len(order), 90)
        self.assertEqual(world.store.pending, 0)
        self.assertEqual(set(world.server.taken.values()), {1})

    def test_a_settlement_that_cannot_be_recorded(self) -> None:
        """The cycle ends; nothing is sent until the samples that the server has are recorded.

        With a full disk the same samples would be sent again at each interval.
        """
        world = World()
        world.collect(range(10))
        settle = world.store.settle
        full = OSError("database or disk is full")
        for _ in range(3):
            with mock.patch.object(world.store, "settle", return_value=fail(full)):
                failed: list[object] = []
                Deferred.fromCoroutine(world.delivery.run()).addErrback(failed.append)
            self.assertEqual(len(failed), 1)
        self.assertEqual(len(world.server.sizes), 1)
        self.assertEqual(world.store.pending, 50)
        self.assertEqual(world.store.settle, settle)
        world.cycle()
        self.assertEqual(world.store.pending, 0)
        self.assertEqual(set(world.server.taken.values()), {1})
        self.assertEqual(world.accepted(), set(world.server.taken))
