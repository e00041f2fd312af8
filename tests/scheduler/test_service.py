"""The scheduler under a clock of the test's own: no thread, no waiting."""

import math
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.contract import (
    GAUGE,
    AbsentError,
    Collector,
    EnabledSource,
    HiddenError,
    Metric,
    Source,
    State,
)
from belatwist.errors import ParseError
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series, sample
from belatwist.scheduler.examination import MAX_SAMPLES
from belatwist.scheduler.service import (
    GATHER,
    SLOW_AFTER,
    CollectorScheduler,
)
from tests.log_events import Captured, levels


class FakeCollector:
    """Yields one sample at each run, or raises an exception of the test's.

    :ivar at: the reactor's time of each run.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.at: list[float] = []
        self.raises: Exception | None = None
        self._clock = clock
        self._series = Series.of(f"test.{name}", "device")

    def collect(self, now_ms: int) -> Sequence[Sample]:
        self.at.append(self._clock.seconds())
        if self.raises is not None:
            raise self.raises
        return [sample(self._series, now_ms, len(self.at))]


class AskingCollector:
    """Asks somebody, who answers when the test does.

    :ivar asked: fires with the value, by the questions that were put.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Deferred[float]] = []
        self.cancelled = 0
        self._series = Series.of(f"test.{name}", "device")

    async def collect(self, now_ms: int) -> Sequence[Sample]:
        answer: Deferred[float] = Deferred(lambda _: self._cancel())
        self.asked.append(answer)
        return [Sample(self._series, now_ms, await answer)]

    def _cancel(self) -> None:
        self.cancelled += 1


class ThreadlessReactor(Clock):
    """A clock that takes calls from threads, of which it has none."""

    def callFromThread(self, callable: Callable[..., object], *args: object) -> None:  # noqa: A002
        callable(*args)


class Threads:
    """Runs what is to run on a thread at once, or keeps it until the test lets it go."""

    def __init__(self) -> None:
        self.kept: list[Callable[[], None]] = []
        self.keep = False

    def __call__(self, function: Callable[[], None]) -> None:
        if self.keep:
            self.kept.append(function)
        else:
            function()


def enabled(name: str, collector: Collector, every: float, *more: Metric) -> EnabledSource:
    """Make an enabled source whose only metric has its name."""
    metric = Metric(f"test.{name}", GAUGE, "things", "A number.")
    source = Source(f"test.{name}", every, lambda *_: collector, (metric, *more))
    return EnabledSource(source, collector, every)


class SchedulerTests(SynchronousTestCase):
    """The times of collectors, the samples of a tick, and the limits of a bad collector."""

    def setUp(self) -> None:
        self.clock = ThreadlessReactor()
        # As a monotonic clock that has been running for a while; not a whole number.
        self.clock.advance(86400.123456789)
        self.start = self.clock.seconds()
        self.threads = Threads()
        self.telemetry = Telemetry()
        self.verbose = True
        self.ticks: list[Sequence[Sample]] = []
        self.sink: Callable[[Sequence[Sample]], Deferred[int]] = self.store

    def store(self, samples: Sequence[Sample]) -> "Deferred[int]":
        self.ticks.append(samples)
        return succeed(len(samples))

    def scheduler(self, *jobs: tuple[FakeCollector | AskingCollector, float]) -> CollectorScheduler:
        service = CollectorScheduler(
            [enabled(collector.name, collector, every) for collector, every in jobs],
            reactor=self.clock,  # type: ignore[arg-type] # a Clock is all that is used of it
            wall_ms=lambda: round(self.clock.seconds() * 1000),
            sink=lambda samples: self.sink(samples),  # noqa: PLW0108 - tests replace self.sink
            telemetry=self.telemetry,
            session_id="run",
            verbose=self.verbose,
            in_thread=self.threads,
            deadline=5.0,
        )
        service.startService()
        self.addCleanup(service.stopService)
        self.clock.advance(0)
        return service

    def step(self, seconds: float) -> None:
        """Let time pass; a tick begins as soon as its loops have fired."""
        self.clock.advance(seconds)

    def names(self, tick: Sequence[Sample]) -> list[str]:
        return [one.series.name.removeprefix("test.") for one in tick]

    def test_first_run_is_at_once(self) -> None:
        """Every collector runs when the service starts, on one tick."""
        a, b = FakeCollector("a", self.clock), FakeCollector("b", self.clock)
        self.scheduler((a, 5.0), (b, 30.0))
        self.assertEqual([self.names(tick) for tick in self.ticks], [["a", "b"]])

    def test_due_together_is_one_tick(self) -> None:
        """Collectors that are due at the same moment share a tick; the others have their own."""
        a, b = FakeCollector("a", self.clock), FakeCollector("b", self.clock)
        self.scheduler((a, 0.1), (b, 0.3))
        for _ in range(6):
            self.step(0.1)
        self.assertEqual(
            [self.names(tick) for tick in self.ticks],
            [["a", "b"], ["a"], ["a"], ["a", "b"], ["a"], ["a"], ["a", "b"]],
        )

    def test_loops_that_fire_a_little_apart_are_one_tick(self) -> None:
        """However their floats are rounded: over an hour, no moment has two ticks."""
        intervals = (0.1, 0.3, 0.7, 1.1, 2.3)
        self.scheduler(*((FakeCollector(f"c{i}", self.clock), n) for i, n in enumerate(intervals)))
        steps = 36_000
        for _ in range(steps):
            self.clock.advance(0.1 - GATHER)
            self.clock.advance(GATHER)
        times = [tick[0].timestamp_ms for tick in self.ticks]
        self.assertGreater(len(times), steps - 2)
        self.assertGreater(min(b - a for a, b in pairwise(times)), 90)

    def test_twenty_sources_make_no_more_ticks_than_eight(self) -> None:
        """Whether they answer from threads or from a network, fast or slowly."""

        def ticks(sources: int) -> int:
            self.ticks.clear()
            started: list[FakeCollector | AskingCollector] = [
                AskingCollector(f"s{n}") if n % 2 else FakeCollector(f"s{n}", self.clock)
                for n in range(sources)
            ]
            service = self.scheduler(
                *((one, (5.0, 10.0, 30.0, 60.0)[n % 4]) for n, one in enumerate(started))
            )
            for second in range(600):
                for n, one in enumerate(started):
                    if isinstance(one, AskingCollector):
                        for answer in one.asked:
                            if (second + n) % 3:
                                answer.callback(1.0)
                        one.asked = [answer for answer in one.asked if not answer.called]
                self.clock.advance(1.0 - GATHER)
                self.clock.advance(GATHER)
            self.successResultOf(service.stopService())
            return len(self.ticks)

        self.assertLessEqual(ticks(20), ticks(8))

    def test_no_drift(self) -> None:
        """After 100,000 runs at an interval that no float holds exactly, it is still in step."""
        self.verbose = False
        a = FakeCollector("a", self.clock)
        self.scheduler((a, 0.1))
        for _ in range(100_000):
            self.clock.advance(0.1)
        expected = self.start + 0.1 * (len(a.at) - 1)
        self.assertGreater(len(a.at), 99_998)
        self.assertLess(abs(a.at[-1] - expected), 0.11)

    def test_late_timer_does_not_shift_the_grid(self) -> None:
        """A busy reactor delays a run, and not the runs after it."""
        a = FakeCollector("a", self.clock)
        self.scheduler((a, 10.0))
        self.step(13.0)
        self.step(7.0)
        self.assertEqual([round(at - self.start) for at in a.at], [0, 13, 20])

    def test_missed_runs_are_not_made_up(self) -> None:
        """After a stop of the whole process a collector runs once, then keeps its interval."""
        a = FakeCollector("a", self.clock)
        self.scheduler((a, 10.0))
        self.step(57.0)
        self.step(3.0)
        self.assertEqual([round(at - self.start) for at in a.at], [0, 57, 60])

    def test_samples_carry_the_time_of_the_tick(self) -> None:
        """All samples of a tick have one timestamp."""
        a, b = FakeCollector("a", self.clock), FakeCollector("b", self.clock)
        self.scheduler((a, 1.0), (b, 1.0))
        self.step(1.0)
        stamps = {one.timestamp_ms for one in self.ticks[1]}
        self.assertEqual(stamps, {round(self.clock.seconds() * 1000)})

    def test_impossible_times_are_set_to_now(self) -> None:
        """A source that stamps by itself is believed within limits; beyond, it is now."""
        a = FakeCollector("a", self.clock)
        series = Series.of("test.a", "device")
        given: list[int] = []

        def stamped(now_ms: int) -> Sequence[Sample]:
            given.extend(now_ms + late for late in (300_000, 300_001, -3_600_000, -3_600_001, 0))
            return [sample(series, at, 1.0) for at in given]

        a.collect = stamped  # type: ignore[method-assign]
        with Captured() as log:
            self.scheduler((a, 10.0))
        now = given[-1]
        times = [one.timestamp_ms for one in self.ticks[0]]
        self.assertEqual(times, [now + 300_000, now, now - 3_600_000, now, now])
        (event,) = [e for e in log.events if e["log_level"] is LogLevel.warn]
        fields = ("count", "collector", "original_ts", "clamped_ts", "skew_ms")
        self.assertEqual([event[one] for one in fields], [2, "test.a", now + 300_001, now, 300_001])

    def test_a_failing_collector_leaves_the_others_alone(self) -> None:
        """It is tried again at each tick; the others' samples are stored all the same."""
        bad, good = FakeCollector("bad", self.clock), FakeCollector("good", self.clock)
        bad.raises = ValueError("no such sensor")
        self.scheduler((bad, 1.0), (good, 1.0))
        self.step(1.0)
        self.step(1.0)
        self.assertEqual(len(bad.at), 3)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["good"]] * 3)

    def test_what_cannot_be_stored_costs_itself(self) -> None:
        """A NaN, a wrong type, an undeclared metric: the collector's other samples are stored."""
        a = FakeCollector("a", self.clock)
        good = Series.of("test.a", "device")
        wrong: list[tuple[Any, str]] = [
            (Sample(good, 1, math.nan), "test.a is nan"),
            (Sample(good, 1, -math.inf), "test.a is -inf"),
            (Sample(good, 1, "text"), "test.a has a value of type str"),
            (Sample(good, 1, True), "test.a has a value of type bool"),
            (Sample(good, 1, 2**63), "test.a is an integer of more than 64 bits"),
            (Sample(good, 1, -(10**400)), "test.a is an integer of more than 64 bits"),
            (Sample(good, "1", 1.0), "test.a has a time of type str"),  # type: ignore[arg-type]
            (Sample(good, math.nan, 1.0), "test.a has a time of type float"),  # type: ignore[arg-type]
            (Sample("test.a", 1, 1.0), "Sample is no sample"),  # type: ignore[arg-type]
            (Sample(Series.of("test.other", "device"), 1, 1.0), "test.other is not declared"),
            ((good, 1, 1.0), "tuple is no sample"),
            (None, "NoneType is no sample"),
        ]
        for bad, error in wrong:
            a.collect = lambda now_ms, bad=bad: [  # type: ignore[method-assign,misc]
                sample(good, now_ms, 1.0),
                bad,
                sample(good, now_ms, 2.0),
            ]
            self.ticks.clear()
            with Captured() as log:
                service = self.scheduler((a, 1.0))
            (job,) = service.jobs
            self.assertEqual([one.value for one in self.ticks[0]], [1.0, 2.0])
            self.assertEqual(job.state, State.FAILING)
            self.assertEqual(job.error, f"1 sample left out: {error}")
            (event,) = [e for e in log.events if e["log_level"] is LogLevel.error]
            self.assertEqual((event["collector"], event["count"]), ("test.a", 1))
            self.successResultOf(service.stopService())
        self.assertEqual(self.counted("collector_metrics_failed_total", "a"), len(wrong))

    def test_a_collection_without_end_is_cut(self) -> None:
        """It yields as many samples as there may be series; what follows is refused."""
        endless, good = FakeCollector("endless", self.clock), FakeCollector("good", self.clock)
        series = Series.of("test.endless", "device")
        samples: Any = (sample(series, 1_000, n) for n in count())
        endless.collect = lambda now_ms: samples  # type: ignore[method-assign]
        service = self.scheduler((endless, 1.0), (good, 1.0))
        (tick,) = self.ticks
        self.assertEqual(len(tick), MAX_SAMPLES + 1)
        self.assertEqual(service.jobs[0].error, "1 sample left out: more than 10,000 samples")

    def test_what_is_no_collection_is_a_failure(self) -> None:
        """A collector that returns nothing, or something else, fails; the others go on."""
        for result in (None, 5, 1.5):
            bad, good = FakeCollector("bad", self.clock), FakeCollector("good", self.clock)
            bad.collect = lambda _, result=result: result  # type: ignore[method-assign,misc]
            self.ticks.clear()
            service = self.scheduler((bad, 1.0), (good, 1.0))
            self.assertEqual([self.names(tick) for tick in self.ticks], [["good"]])
            self.assertEqual(service.jobs[0].state, State.FAILING)
            self.successResultOf(service.stopService())

    def test_absent_is_no_fault(self) -> None:
        """A machine without such a thing yields nothing, and nothing is counted.

        It is logged once, as the first collection would be.
        """
        a = FakeCollector("a", self.clock)
        a.raises = AbsentError("no UPS is configured")
        with Captured() as log:
            service = self.scheduler((a, 1.0))
            self.step(1.0)
        (job,) = service.jobs
        self.assertEqual((job.state, job.error), (State.ABSENT, "no UPS is configured"))
        self.assertEqual(levels(log, "Collector {collector} has nothing"), ["info", "debug"])
        self.assertEqual([e for e in log.events if e["log_level"] > LogLevel.info], [])
        self.assertEqual(self.counted("collector_metrics_failed_total", "a"), 0)
        a.raises = None
        self.step(1.0)
        self.assertEqual((job.state, job.error), (State.OK, None))

    def test_a_failure_that_ends_in_absence(self) -> None:
        """The log does not say that the collection works again: there is nothing to collect."""
        a = FakeCollector("a", self.clock)
        a.raises = OSError("no answer")
        with Captured() as log:
            self.scheduler((a, 1.0))
            a.raises = AbsentError("no UPS is configured")
            self.step(1.0)
        said = (
            "Collector test.a has nothing to collect: no UPS is configured, after 1 s and 1 failure"
        )
        self.assertEqual(log.texts(LogLevel.info), [said])

    def test_hidden_says_by_what_and_the_cure(self) -> None:
        """It is not absent, and not a failure either; the log has it once."""
        a = FakeCollector("a", self.clock)
        a.raises = HiddenError("/dev/video0 is hidden by PrivateDevices=", "install the drop-in")
        with Captured() as log:
            service = self.scheduler((a, 1.0))
            self.step(1.0)
        (job,) = service.jobs
        self.assertEqual(
            (job.state, job.error, job.cure),
            (State.HIDDEN, "/dev/video0 is hidden by PrivateDevices=", "install the drop-in"),
        )
        (event,) = [e for e in log.events if e["log_level"] is LogLevel.warn]
        self.assertEqual((event["event"], event["cure"]), ("collector.hidden", job.cure))
        self.assertTrue(formatEvent(event).endswith("PrivateDevices=; install the drop-in"))
        self.assertEqual(self.counted("collector_metrics_failed_total", "a"), 0)

    def test_what_is_left_out_is_a_list_of_names(self) -> None:
        """Whatever a collector has there, health can show it; one without it leaves nothing out."""
        a = FakeCollector("a", self.clock)
        (job,) = self.scheduler((a, 1.0)).jobs
        self.assertEqual(list(job.left_out), [])
        for given, expected in (
            (["x"], ["x"]),
            (("x", 5), ["x", "5"]),
            (None, []),
            (7, []),
            ("xy", []),
        ):
            vars(a)["left_out"] = given
            self.assertEqual(list(job.left_out), expected)

    def counted(self, name: str, collector: str) -> float:
        """Return a counter of a collector."""
        values = {(name, labels): value for name, labels, value in self.telemetry.values()}
        return values[name, (("collector", f"test.{collector}"),)]

    def test_a_collection_is_an_event(self) -> None:
        """It has its fields. The first is at INFO; later ones are made only where the log is
        verbose.
        """
        for self.verbose in (True, False):
            a = FakeCollector("a", self.clock)
            with Captured() as log:
                service = self.scheduler((a, 1.0))
                self.step(1.0)
            self.successResultOf(service.stopService())
            events = [e for e in log.events if e["log_format"] == "Metrics collected"]
            levels = [e["log_level"] for e in events]
            self.assertEqual(levels, [LogLevel.info, LogLevel.debug][: 1 + self.verbose])
            for event in events:
                fields = {key: event[key] for key in ("collector", "count", "session_id")}
                self.assertEqual(fields, {"collector": "test.a", "count": 1, "session_id": "run"})
                self.assertIsInstance(event["duration_ms"], float)

    def failures(self, log: Captured) -> list[dict[str, Any]]:
        """Return the events of failed collections."""
        return [e for e in log.events if str(e["log_format"]).startswith("Collection failed")]

    def test_failure_is_loud_once_and_so_is_recovery(self) -> None:
        """Changes are logged at ERROR and INFO, with how long it lasted, and repetitions at
        DEBUG.
        """
        bad = FakeCollector("bad", self.clock)
        bad.raises = ValueError("no such sensor")
        with Captured() as log:
            self.scheduler((bad, 1.0))
            self.step(1.0)
            self.step(1.0)
            bad.raises = None
            self.step(1.0)
        failed = self.failures(log)
        levels = [e["log_level"] for e in failed]
        self.assertEqual(levels, [LogLevel.error, LogLevel.debug, LogLevel.debug])
        for event in failed:
            self.assertEqual(event["collector"], "test.bad")
            self.assertEqual(event["error"], "no such sensor")
            self.assertEqual(event["error_type"], "ValueError")
            self.assertIn("Traceback", event["stack"])
        self.assertIn(
            "Collection of test.bad works again, after 3 s and 3 failures", log.texts(LogLevel.info)
        )

    def test_what_comes_and_goes_does_not_flood(self) -> None:
        """A collector that fails every other time is logged once in ten minutes, with a count."""
        bad = FakeCollector("bad", self.clock)
        with Captured() as log:
            self.scheduler((bad, 1.0))
            for turn in range(1206):
                bad.raises = None if turn % 2 else ValueError("no such sensor")
                self.step(1.0)
        loud = [e for e in log.events if e["log_level"] is LogLevel.error]
        self.assertEqual([e.get("flips") for e in loud], [None, 299, 299])
        again = [text for text in log.texts(LogLevel.info) if "works again" in text]
        self.assertEqual(again, ["Collection of test.bad works again, after 1 s and 1 failure"])

    def test_a_new_kind_of_failure_is_loud(self) -> None:
        """However recently another kind was logged."""
        bad = FakeCollector("bad", self.clock)
        bad.raises = ValueError("no such sensor")
        with Captured() as log:
            self.scheduler((bad, 1.0))
            bad.raises = ParseError("/proc/stat", "is empty")
            self.step(1.0)
        levels = [e["log_level"] for e in self.failures(log)]
        self.assertEqual(levels, [LogLevel.error, LogLevel.error])

    def test_an_expected_failure_has_no_traceback(self) -> None:
        """An error that a collector raises on purpose is enough without one."""
        bad = FakeCollector("bad", self.clock)
        bad.raises = ParseError("/proc/stat", "is empty")
        with Captured() as log:
            self.scheduler((bad, 1.0))
        (event,) = self.failures(log)
        self.assertEqual(event["error"], "/proc/stat: is empty")
        self.assertNotIn("stack", event)

    def test_what_is_known_of_a_collector(self) -> None:
        """Its last samples, when it yielded them, whether it fails and why; and what it counts."""
        a = FakeCollector("a", self.clock)
        service = self.scheduler((a, 1.0))
        (job,) = service.jobs
        self.step(1.0)
        self.assertEqual(([s.value for s in job.samples], job.error), ([2], None))
        yielded_at = self.clock.seconds()
        self.assertEqual(job.collected_at, yielded_at)
        a.raises = ValueError("no such sensor")
        self.step(1.0)
        self.assertEqual((list(job.samples), job.error), ([], "no such sensor"))
        self.assertEqual(job.collected_at, yielded_at)
        self.assertEqual(job.ended_at, self.clock.seconds())
        self.assertEqual(self.counted("collector_metrics_collected_total", "a"), 2)
        self.assertEqual(self.counted("collector_metrics_failed_total", "a"), 1)
        self.assertEqual(self.counted("collector_collection_duration_seconds_count", "a"), 2)

    def test_a_failing_store_does_not_end_the_ticks(self) -> None:
        """Samples that cannot be stored are logged, and the next tick comes."""
        a = FakeCollector("a", self.clock)
        self.sink = lambda _: fail(OSError("disk full"))
        with Captured() as log:
            self.scheduler((a, 1.0))
            self.step(1.0)
            self.step(1.0)
            self.sink = self.store
            self.step(1.0)
        self.assertEqual(len(a.at), 4)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        failed = levels(log, "The store did not take")
        self.assertEqual(failed, ["critical", "debug", "debug"])
        self.assertIn("The store takes samples again", log.texts(LogLevel.info))

    def test_stop_waits_for_what_is_being_stored(self) -> None:
        """The service has stopped when the last samples are in the store, and ticks no more."""
        a = FakeCollector("a", self.clock)
        storing: Deferred[int] = Deferred()
        self.sink = lambda _: storing
        service = self.scheduler((a, 1.0))
        stopped = service.stopService()
        self.assertNoResult(stopped)
        storing.callback(1)
        self.successResultOf(stopped)
        self.step(10.0)
        self.assertEqual(len(a.at), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_threads_and_the_network_answer_into_one_tick(self) -> None:
        """A tick waits for all of its answers, and hands them over together."""
        a, b, c = FakeCollector("a", self.clock), AskingCollector("b"), AskingCollector("c")
        self.scheduler((a, 10.0), (b, 10.0), (c, 30.0))
        self.assertEqual(self.ticks, [])
        b.asked.pop().callback(1.0)
        self.assertEqual(self.ticks, [])
        c.asked.pop().callback(2.0)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["a", "b", "c"]])
        self.assertEqual(len({one.timestamp_ms for one in self.ticks[0]}), 1)

    def test_a_late_answer_goes_with_a_later_tick(self) -> None:
        """It has its own timestamp, makes no transaction of its own, and costs nobody time."""
        a, b = FakeCollector("a", self.clock), AskingCollector("b")
        self.scheduler((a, 10.0), (b, 10.0))
        began = self.clock.seconds()
        self.clock.advance(SLOW_AFTER)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["a"]])
        b.asked.pop().callback(1.0)
        self.assertEqual(len(self.ticks), 1)
        self.clock.advance(10.0 - SLOW_AFTER)
        self.clock.advance(0)
        b.asked.pop().callback(2.0)
        self.assertEqual([self.names(tick) for tick in self.ticks[1:]], [["a", "b", "b"]])
        stamps = sorted({one.timestamp_ms for one in self.ticks[1]})
        self.assertEqual(stamps[0], round(began * 1000))
        self.assertEqual(len(stamps), 2)

    def test_a_late_answer_is_stored_when_the_service_stops(self) -> None:
        """What was measured is not lost for want of a later tick."""
        b = AskingCollector("b")
        service = self.scheduler((b, 10.0))
        self.clock.advance(SLOW_AFTER)
        b.asked.pop().callback(1.0)
        self.assertEqual(self.ticks, [])
        self.successResultOf(service.stopService())
        self.assertEqual([self.names(tick) for tick in self.ticks], [["b"]])

    def test_a_coroutine_that_hangs_is_cancelled(self) -> None:
        """At its deadline, which is an error; it costs only itself, and is run again."""
        a, b = FakeCollector("a", self.clock), AskingCollector("b")
        with Captured() as log:
            service = self.scheduler((a, 10.0), (b, 10.0))
            self.clock.advance(SLOW_AFTER)
            self.clock.advance(5.0 - SLOW_AFTER)
        self.assertEqual(b.cancelled, 1)
        (event,) = self.failures(log)
        self.assertEqual(
            (event["collector"], event["error"], event["error_type"]),
            ("test.b", "no answer within 5 s", "TimeoutError"),
        )
        self.assertEqual(service.jobs[1].state, State.FAILING)
        self.clock.advance(5.0)
        self.clock.advance(0)
        b.asked[-1].callback(1.0)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["a"], ["a", "b"]])
        self.assertEqual(service.jobs[1].state, State.OK)

    def test_a_coroutine_that_will_not_be_cancelled_is_not_run_twice(self) -> None:
        """It is left out until it comes back; what it says then is stale."""
        runs: list[Deferred[float]] = []

        class Stubborn(AskingCollector):
            async def collect(self, now_ms: int) -> Sequence[Sample]:
                runs.append(Deferred())
                while True:
                    try:
                        await runs[-1]
                    except CancelledError:
                        runs.append(Deferred())
                    else:
                        return [Sample(self._series, now_ms, 1.0)]

        service = self.scheduler((Stubborn("b"), 10.0))
        self.clock.advance(SLOW_AFTER)
        self.clock.advance(5.0 - SLOW_AFTER)
        self.step(15.0)
        self.assertEqual(len(runs), 2)
        self.assertEqual(service.jobs[0].state, State.FAILING)
        runs[-1].callback(1.0)
        self.assertEqual(self.ticks, [])
        self.step(10.0)
        runs[-1].callback(1.0)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["b"]])

    def test_stopping_cancels_what_is_asked(self) -> None:
        """Nobody waits for the network when the service stops, and nothing is logged of it."""
        b = AskingCollector("b")
        with Captured() as log:
            service = self.scheduler((b, 10.0))
            self.successResultOf(service.stopService())
        self.assertEqual(b.cancelled, 1)
        self.assertEqual(self.failures(log), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stuck_collector_is_left_out(self) -> None:
        """A read that hangs is an error after its deadline; the others go on, also on that tick."""
        first, stuck, last = (FakeCollector(n, self.clock) for n in ("first", "stuck", "last"))
        hang = Hang(self)
        stuck.collect = hang.collect  # type: ignore[method-assign]
        self.threads.keep = True
        with Captured() as log:
            self.scheduler((first, 10.0), (stuck, 10.0), (last, 10.0))
            hang.run_until_stuck(self.threads.kept.pop())
            self.threads.keep = False
            self.clock.advance(SLOW_AFTER)
            self.assertEqual([self.names(tick) for tick in self.ticks], [["first"], ["last"]])
            self.assertEqual(log.texts(LogLevel.error), [])
            self.clock.advance(5.0 - SLOW_AFTER)
        (event,) = [e for e in log.events if e.get("log_level") is LogLevel.error]
        self.assertEqual(
            (event["collector"], event["error"], event["error_type"]),
            ("test.stuck", "no answer within 5 s", "TimeoutError"),
        )
        self.step(5.0)
        self.assertEqual([self.names(t) for t in self.ticks[2:]], [["first", "last"]])

    def test_a_slow_collector_does_not_hold_the_others_up(self) -> None:
        """Those behind it go on soon, at their intervals; what it says goes with a later tick."""
        slow, last = FakeCollector("slow", self.clock), FakeCollector("last", self.clock)
        hang = Hang(self)
        slow.collect = hang.collect  # type: ignore[method-assign]
        self.threads.keep = True
        self.scheduler((slow, 1.0), (last, 1.0))
        hang.run_until_stuck(self.threads.kept.pop())
        self.threads.keep = False
        self.clock.advance(SLOW_AFTER)
        for _ in range(3):
            self.step(1.0)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["last"]] * 4)
        hang.let_go()
        self.assertEqual(len(self.ticks), 4)
        self.step(1.0)
        self.assertEqual(self.names(self.ticks[-1]), ["slow", "last", "slow"])

    def test_one_that_hangs_again_is_logged_once_in_ten_minutes(self) -> None:
        """It hung and came back just before: the second time is the same kind of failure."""
        bad = FakeCollector("bad", self.clock)
        works = bad.collect
        with Captured() as log:
            self.scheduler((bad, 1.0))
            first = self.hang(bad)
            bad.collect = works  # type: ignore[method-assign]
            first.let_go()
            self.step(1.0)
            self.hang(bad)
            levels = [e["log_level"] for e in self.failures(log)]
            self.assertEqual(levels.count(LogLevel.error), 1)
            for _ in range(620):
                self.step(1.0)
        loud = [e for e in self.failures(log) if e["log_level"] is LogLevel.error]
        self.assertEqual([e["error"] for e in loud], ["no answer within 5 s"] * 2)
        self.assertEqual(self.counted("collector_metrics_failed_total", "bad"), 2)

    def hang(self, collector: FakeCollector) -> "Hang":
        """Let the next run of a collector hang beyond its deadline."""
        hang = Hang(self)
        collector.collect = hang.collect  # type: ignore[method-assign]
        self.threads.keep = True
        self.step(1.0)
        hang.run_until_stuck(self.threads.kept.pop())
        self.threads.keep = False
        self.clock.advance(SLOW_AFTER)
        self.clock.advance(5.0 - SLOW_AFTER)
        return hang

    def test_a_collector_that_comes_back_is_run_again(self) -> None:
        """What it read after its deadline is stale and dropped; its next run counts."""
        stuck = FakeCollector("stuck", self.clock)
        hang = Hang(self)
        works, stuck.collect = stuck.collect, hang.collect  # type: ignore[method-assign]
        self.threads.keep = True
        self.scheduler((stuck, 10.0))
        hang.run_until_stuck(self.threads.kept.pop())
        self.threads.keep = False
        self.clock.advance(SLOW_AFTER)
        self.clock.advance(5.0 - SLOW_AFTER)
        self.step(5.0)
        self.assertEqual(self.ticks, [])
        stuck.collect = works  # type: ignore[method-assign]
        hang.let_go()
        self.assertEqual(self.ticks, [])
        self.step(10.0)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["stuck"]])


class Hang:
    """A collector's read that does not return, without a thread: a generator in a greenlet's place.

    The function given to :meth:`run_until_stuck` runs until it is inside :meth:`collect`, and goes
    on when :meth:`let_go` is called.
    """

    def __init__(self, test: SynchronousTestCase) -> None:
        self._test = test

    def collect(self, now_ms: int) -> Sequence[Sample]:
        self._inside.parent.switch()
        return [sample(Series.of("test.slow", "device"), now_ms, 0.0)]

    def run_until_stuck(self, function: Callable[[], None]) -> None:
        from greenlet import greenlet

        self._inside = greenlet(function)
        self._inside.switch()

    def let_go(self) -> None:
        self._inside.switch()
