"""Collectors that are services, to which events come."""

from collections.abc import Sequence
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from belatwist.collectors.contract import Collector, HiddenError, State
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series, sample
from belatwist.scheduler.service import DEADLINE, GATHER, CollectorScheduler
from tests.log_events import Captured, levels
from tests.scheduler.test_service import FakeCollector, ThreadlessReactor, Threads, enabled


class Links(Service):
    """Keeps the events of links until they are collected, each with its own time.

    :ivar said: what was done with it, by whom.
    :ivar fails: what starting it raises.
    :ivar stops: what stopping it returns, or raises.
    """

    def __init__(self, said: list[str]) -> None:
        self.said = said
        self.fails: Exception | None = None
        self.stops: Deferred[None] | Exception = succeed(None)
        self._events: list[Sample] = []
        self._series = Series.of("test.links", "device")

    def startService(self) -> None:
        self.said.append("start")
        if self.fails is not None:
            raise self.fails
        super().startService()

    def stopService(self) -> "Deferred[None]":
        self.said.append("stop")
        super().stopService()
        if isinstance(self.stops, Exception):
            raise self.stops
        return self.stops

    def event(self, at_ms: int, value: float) -> None:
        """Take an event, as a netlink socket or a bus would bring it."""
        self._events.append(sample(self._series, at_ms, value))

    async def collect(self, now_ms: int) -> Sequence[Sample]:
        self.said.append("collect")
        events, self._events = self._events, []
        return events


class PushedTests(SynchronousTestCase):
    """Their start and stop, and what a bad one costs."""

    def setUp(self) -> None:
        self.clock = ThreadlessReactor()
        self.clock.advance(86400.0)
        self.said: list[str] = []
        self.links = Links(self.said)
        self.other = FakeCollector("other", self.clock)
        self.ticks: list[Sequence[Sample]] = []

    def store(self, samples: Sequence[Sample]) -> "Deferred[int]":
        self.said.append(f"store {len(samples)}")
        self.ticks.append(samples)
        return succeed(len(samples))

    def scheduler(self, **collectors: Collector) -> CollectorScheduler:
        service = CollectorScheduler(
            [enabled(name, collector, 1.0) for name, collector in collectors.items()],
            reactor=self.clock,  # type: ignore[arg-type] # a Clock is all that is used of it
            wall_ms=self.now_ms,
            sink=self.store,
            telemetry=Telemetry(),
            session_id="run",
            verbose=True,
            in_thread=Threads(),
        )
        service.startService()
        self.step(0.0)
        return service

    def now_ms(self) -> int:
        return round(self.clock.seconds() * 1000)

    def step(self, seconds: float) -> None:
        """Let time pass, and then the tick begin whose loops have fired meanwhile."""
        self.clock.advance(seconds)
        self.clock.advance(GATHER)

    def stopped(self, service: CollectorScheduler) -> "Deferred[None]":
        stopping = service.stopService()
        self.addCleanup(self.assertEqual, self.clock.getDelayedCalls(), [])
        return stopping

    def test_it_starts_before_and_stops_after_its_collections(self) -> None:
        """The last thing that happens is its stop, when all samples are stored."""
        assert verifyObject(IService, self.links)
        service = self.scheduler(links=self.links)
        self.links.event(self.now_ms(), 1.0)
        self.step(1.0)
        self.successResultOf(self.stopped(service))
        self.assertEqual(self.said, ["start", "collect", "collect", "store 1", "stop"])
        self.assertFalse(self.links.running)

    def test_events_have_their_own_time(self) -> None:
        """They come with the next tick, and say when they were."""
        service = self.scheduler(links=self.links, other=self.other)
        self.ticks.clear()
        expected = []
        for value in (0.0, 1.0):
            self.clock.advance(0.2)
            expected.append((self.now_ms(), value))
            self.links.event(*expected[-1])
        self.step(0.6)
        ((*events, _),) = self.ticks
        self.assertEqual([(one.timestamp_ms, one.value) for one in events], expected)
        self.successResultOf(self.stopped(service))

    def test_one_that_cannot_start_costs_itself(self) -> None:
        """It is failing with the reason, tried again when it is due, and not collected before."""
        self.links.fails = OSError("no such bus")
        with Captured() as log:
            service = self.scheduler(links=self.links, other=self.other)
            self.step(1.0)
        job = service.jobs[0]
        self.assertEqual((job.state, job.error), (State.FAILING, "no such bus"))
        self.assertEqual(levels(log, "Collection failed"), ["error", "debug"])
        self.assertEqual(self.said, ["start", "store 1", "start", "store 1"])
        # For the watchdog it has run.
        self.assertIsNotNone(job.ended_at)
        self.said.clear()
        self.links.fails = None
        self.step(1.0)
        self.assertEqual(self.said, ["start", "collect", "store 1"])
        self.assertEqual((job.state, job.error), (State.OK, None))
        self.successResultOf(self.stopped(service))

    def test_one_that_may_not_start_is_hidden(self) -> None:
        """A start says so as a collection does."""
        self.links.fails = HiddenError("AF_NETLINK is not allowed", "install the drop-in")
        service = self.scheduler(links=self.links)
        (job,) = service.jobs
        self.assertEqual((job.state, job.cure), (State.HIDDEN, "install the drop-in"))
        self.successResultOf(self.stopped(service))
        # It was never started.
        self.assertEqual(self.said, ["start"])

    def test_a_stop_that_fails_is_logged(self) -> None:
        """The agent goes on stopping."""
        self.links.stops = OSError("no such bus")
        service = self.scheduler(links=self.links)
        with Captured() as log:
            self.successResultOf(self.stopped(service))
        (text,) = log.texts(LogLevel.error)
        self.assertEqual(text, "Collector test.links did not stop cleanly: no such bus")
        self.flushLoggedErrors(OSError)

    def test_a_stop_that_hangs_is_given_up(self) -> None:
        """At the deadline of collectors, for all of them together."""
        other = Links([])
        self.links.stops, other.stops = Deferred(), Deferred()
        service = self.scheduler(links=self.links, other=other)
        stopping = self.stopped(service)
        self.clock.advance(DEADLINE - 0.1)
        self.assertNoResult(stopping)
        with Captured() as log:
            self.clock.advance(0.1)
        self.successResultOf(stopping)
        self.assertEqual(len(log.texts(LogLevel.error)), 2)
        self.flushLoggedErrors(Exception)

    def test_it_can_start_again(self) -> None:
        """With the scheduler, whose service can be started again."""
        service = self.scheduler(links=self.links)
        self.successResultOf(service.stopService())
        service.startService()
        self.step(0.0)
        self.successResultOf(service.stopService())
        self.assertEqual(self.said, ["start", "collect", "stop"] * 2)


def test_a_plain_collector_is_no_service() -> None:
    """Only what can be started is."""
    plain: Any = FakeCollector("plain", ThreadlessReactor())
    assert not enabled("plain", plain, 1.0).pushed
    assert enabled("links", Links([]), 1.0).pushed
