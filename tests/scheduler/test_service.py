"""The scheduler under a clock of the test's own: no thread, no waiting."""

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.contract import Collector
from belatwist.errors import ParseError, ReadError
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series, sample
from belatwist.scheduler.jobs import Job
from belatwist.scheduler.service import SLOW_AFTER, STORING_FAILED, CollectorScheduler
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
        self._series = Series.of(name, "device")

    def collect(self, now_ms: int) -> Sequence[Sample]:
        self.at.append(self._clock.seconds())
        if self.raises is not None:
            raise self.raises
        return [sample(self._series, now_ms, len(self.at))]


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

    def scheduler(self, *jobs: tuple[Collector, float]) -> CollectorScheduler:
        service = CollectorScheduler(
            jobs,
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
        return service

    def names(self, tick: Sequence[Sample]) -> list[str]:
        return [one.series.name for one in tick]

    def test_first_run_is_at_once(self) -> None:
        """Every collector runs when the service starts, on one tick."""
        a, b = FakeCollector("a", self.clock), FakeCollector("b", self.clock)
        self.scheduler((a, 5.0), (b, 30.0))
        self.assertEqual([self.names(tick) for tick in self.ticks], [["a", "b"]])

    def test_due_together_is_one_tick(self) -> None:
        """Collectors that are due at the same moment share a tick; the others have their own."""
        a, b = FakeCollector("a", self.clock), FakeCollector("b", self.clock)
        self.scheduler((a, 0.1), (b, 0.3))
        self.clock.pump([0.1] * 6)
        self.assertEqual(
            [self.names(tick) for tick in self.ticks],
            [["a", "b"], ["a"], ["a"], ["a", "b"], ["a"], ["a"], ["a", "b"]],
        )

    def test_no_drift(self) -> None:
        """After 100,000 runs at an interval that no float holds exactly, it is still in step."""
        self.verbose = False
        a = FakeCollector("a", self.clock)
        self.scheduler((a, 0.1))
        for _ in range(100_000):
            self.clock.advance(0.1)
        expected = self.start + 0.1 * (len(a.at) - 1)
        self.assertEqual(len(a.at), 100_001)
        self.assertLess(abs(a.at[-1] - expected), 0.002)

    def test_late_timer_does_not_shift_the_grid(self) -> None:
        """A busy reactor delays a run, and not the runs after it."""
        a = FakeCollector("a", self.clock)
        self.scheduler((a, 10.0))
        self.clock.advance(13.0)
        self.clock.advance(7.0)
        self.assertEqual([round(at - self.start, 6) for at in a.at], [0, 13, 20])

    def test_missed_runs_are_not_made_up(self) -> None:
        """After a stop of the whole process a collector runs once, then keeps its interval."""
        job = Job(
            FakeCollector("a", self.clock),
            10.0,
            telemetry=self.telemetry,
            log=Logger(),
            seconds=self.clock.seconds,
            session_id="run",
            verbose=False,
        )
        job.due_ns = 0
        job.advance(57 * 10**9)
        self.assertEqual(job.due_ns, 60 * 10**9)

    def test_samples_carry_the_time_of_the_tick(self) -> None:
        """All samples of a tick have one timestamp."""
        a, b = FakeCollector("a", self.clock), FakeCollector("b", self.clock)
        self.scheduler((a, 1.0), (b, 1.0))
        self.clock.advance(1.0)
        stamps = {one.timestamp_ms for one in self.ticks[1]}
        self.assertEqual(stamps, {round((self.start + 1.0) * 1000)})

    def test_impossible_times_are_set_to_now(self) -> None:
        """A source that stamps by itself is believed within limits; beyond, it is now."""
        now = round(self.start * 1000)
        given = [now + 300_000, now + 300_001, now - 3_600_000, now - 3_600_001, now]
        a = FakeCollector("a", self.clock)
        series = [Series.of(f"a{i}", "device") for i in range(len(given))]
        stamped = [sample(s, at, 1.0) for s, at in zip(series, given, strict=True)]
        a.collect = lambda now_ms: stamped  # type: ignore[method-assign]
        with Captured() as log:
            self.scheduler((a, 10.0))
        times = [one.timestamp_ms for one in self.ticks[0]]
        self.assertEqual(times, [now + 300_000, now, now - 3_600_000, now, now])
        (event,) = [e for e in log.events if e["log_level"] is LogLevel.warn]
        fields = ("count", "collector", "original_ts", "clamped_ts", "skew_ms")
        self.assertEqual([event[one] for one in fields], [2, "a", now + 300_001, now, 300_001])

    def test_a_failing_collector_leaves_the_others_alone(self) -> None:
        """It is tried again at each tick; the others' samples are stored all the same."""
        bad, good = FakeCollector("bad", self.clock), FakeCollector("good", self.clock)
        bad.raises = ValueError("no such sensor")
        self.scheduler((bad, 1.0), (good, 1.0))
        self.clock.pump([1.0, 1.0])
        self.assertEqual(len(bad.at), 3)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["good"]] * 3)

    def test_a_collection_is_an_event(self) -> None:
        """It has its fields. The first is at INFO; later ones are made only where the log is
        verbose.
        """
        for self.verbose in (True, False):
            a = FakeCollector("a", self.clock)
            with Captured() as log:
                service = self.scheduler((a, 1.0))
                self.clock.advance(1.0)
            self.successResultOf(service.stopService())
            events = [e for e in log.events if e["log_format"] == "Metrics collected"]
            levels = [e["log_level"] for e in events]
            self.assertEqual(levels, [LogLevel.info, LogLevel.debug][: 1 + self.verbose])
            for event in events:
                fields = {key: event[key] for key in ("collector", "count", "session_id")}
                self.assertEqual(fields, {"collector": "a", "count": 1, "session_id": "run"})
                self.assertIsInstance(event["duration_ms"], float)

    def test_failure_is_loud_once_and_so_is_recovery(self) -> None:
        """Changes are logged at ERROR and INFO, with how long it lasted, and repetitions at
        DEBUG.
        """
        bad = FakeCollector("bad", self.clock)
        bad.raises = ValueError("no such sensor")
        with Captured() as log:
            self.scheduler((bad, 1.0))
            self.clock.pump([1.0, 1.0])
            bad.raises = None
            self.clock.advance(1.0)
        failed = [e for e in log.events if e["log_format"] == "Collection failed"]
        levels = [e["log_level"] for e in failed]
        self.assertEqual(levels, [LogLevel.error, LogLevel.debug, LogLevel.debug])
        for event in failed:
            self.assertEqual(event["collector"], "bad")
            self.assertEqual(event["error"], "no such sensor")
            self.assertEqual(event["error_type"], "ValueError")
            self.assertIn("Traceback", event["stack"])
        self.assertIn(
            "Collection of bad works again, after 3 s and 3 failures", log.texts(LogLevel.info)
        )

    def test_what_comes_and_goes_does_not_flood(self) -> None:
        """A collector that fails every other time is logged once in ten minutes, with a count."""
        bad = FakeCollector("bad", self.clock)
        with Captured() as log:
            self.scheduler((bad, 10.0))
            for turn in range(120):
                bad.raises = None if turn % 2 else ValueError("no such sensor")
                self.clock.advance(10.0)
        loud = [e for e in log.events if e["log_level"] is LogLevel.error]
        self.assertEqual([e.get("flips") for e in loud], [None, 29])
        again = [text for text in log.texts(LogLevel.info) if "works again" in text]
        self.assertEqual(again, ["Collection of bad works again, after 10 s and 1 failures"])

    def test_a_new_kind_of_failure_is_loud_at_once(self) -> None:
        """However recently the collector failed otherwise; the same kind is not repeated."""
        bad = FakeCollector("bad", self.clock)
        eio, eacces = (ReadError(f"temp: ({code})", code) for code in ("EIO", "EACCES"))
        with Captured() as log:
            self.scheduler((bad, 10.0))
            for bad.raises in (eio, eacces, eio, eacces, ValueError("odd")):
                self.clock.advance(10.0)
        loud = [e for e in log.events if e["log_level"] is LogLevel.error]
        self.assertEqual([e["error"] for e in loud], ["temp: (EIO)", "temp: (EACCES)", "odd"])

    def test_an_expected_failure_has_no_traceback(self) -> None:
        """An error that a collector raises on purpose is enough without one."""
        bad = FakeCollector("bad", self.clock)
        bad.raises = ParseError("/proc/stat", "is empty")
        with Captured() as log:
            self.scheduler((bad, 1.0))
        (event,) = [e for e in log.events if e["log_format"] == "Collection failed"]
        self.assertEqual(event["error"], "/proc/stat: is empty")
        self.assertNotIn("stack", event)

    def test_what_is_known_of_a_collector(self) -> None:
        """Its last samples, when it yielded them, whether it fails and why; and what it counts."""
        a = FakeCollector("a", self.clock)
        service = self.scheduler((a, 1.0))
        (job,) = service.jobs
        self.clock.advance(1.0)
        self.assertEqual(([s.value for s in job.samples], job.error), ([2], None))
        self.assertEqual(job.collected_at, self.clock.seconds())
        a.raises = ValueError("no such sensor")
        self.clock.advance(1.0)
        self.assertEqual((list(job.samples), job.error), ([], "no such sensor"))
        self.assertEqual(job.collected_at, self.clock.seconds() - 1.0)
        self.assertEqual(job.ended_at, self.clock.seconds())
        values = {(name, labels): value for name, labels, value in self.telemetry.values()}
        of_a = (("collector", "a"),)
        self.assertEqual(values["collector_metrics_collected_total", of_a], 2)
        self.assertEqual(values["collector_metrics_failed_total", of_a], 1)
        self.assertEqual(values["collector_collection_duration_seconds_count", of_a], 2)

    def test_a_failing_store_does_not_end_the_ticks(self) -> None:
        """Samples that cannot be stored are logged, and the next tick comes."""
        a = FakeCollector("a", self.clock)
        self.sink = lambda _: fail(OSError("disk full"))
        with Captured() as log:
            self.scheduler((a, 1.0))
            self.clock.pump([1.0, 1.0])
            self.sink = self.store
            self.clock.advance(1.0)
        self.assertEqual(len(a.at), 4)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        failed = levels(log, STORING_FAILED.text)
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
        self.clock.advance(10.0)
        self.assertEqual(len(a.at), 1)
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
            ("stuck", "no answer within 5 s", "TimeoutError"),
        )
        self.clock.advance(5.0)
        self.assertEqual([self.names(t) for t in self.ticks[2:]], [["first", "last"]])

    def test_a_slow_collector_does_not_hold_the_others_up(self) -> None:
        """Those behind it go on soon, at their intervals, and carry the time when they are read."""
        slow, last = FakeCollector("slow", self.clock), FakeCollector("last", self.clock)
        hang = Hang(self)
        slow.collect = hang.collect  # type: ignore[method-assign]
        self.threads.keep = True
        self.scheduler((slow, 1.0), (last, 1.0))
        hang.run_until_stuck(self.threads.kept.pop())
        self.threads.keep = False
        self.clock.pump([SLOW_AFTER] * 16)
        self.assertEqual([self.names(tick) for tick in self.ticks], [["last"]] * 5)
        stamps = [tick[0].timestamp_ms - round(self.start * 1000) for tick in self.ticks]
        self.assertEqual(stamps, [250, 1000, 2000, 3000, 4000])
        hang.let_go()
        self.assertEqual(self.names(self.ticks[-1]), ["stale"])
        self.clock.advance(1.0)
        self.assertEqual(len(self.ticks), 7)

    def test_one_that_hangs_again_for_good(self) -> None:
        """It hung and came back just before, so the log repeats it only after ten minutes."""
        bad = FakeCollector("bad", self.clock)
        works = bad.collect
        with Captured() as log:
            self.scheduler((bad, 1.0))
            first = self.hang(bad)
            bad.collect = works  # type: ignore[method-assign]
            first.let_go()
            self.clock.advance(1.0)
            self.hang(bad)
            self.clock.pump([1.0] * 580)
            loud = [e for e in log.events if e["log_level"] is LogLevel.error]
            self.assertEqual(len(loud), 1)
            self.clock.pump([1.0] * 20)
        loud = [e for e in log.events if e["log_level"] is LogLevel.error]
        self.assertEqual([e["error"] for e in loud], ["no answer within 5 s"] * 2)
        self.assertGreater(loud[1]["failures"], 580)
        values = {(name, labels): value for name, labels, value in self.telemetry.values()}
        self.assertEqual(values["collector_metrics_failed_total", (("collector", "bad"),)], 2)

    def hang(self, collector: FakeCollector) -> "Hang":
        """Let the next run of a collector hang beyond its deadline."""
        hang = Hang(self)
        collector.collect = hang.collect  # type: ignore[method-assign]
        self.threads.keep = True
        self.clock.advance(1.0)
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
        self.clock.advance(5.0)
        self.assertEqual(self.ticks, [])
        stuck.collect = works  # type: ignore[method-assign]
        hang.let_go()
        self.assertEqual(self.ticks, [])
        self.clock.advance(10.0)
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
        return [sample(Series.of("stale", "device"), now_ms, 0.0)]

    def run_until_stuck(self, function: Callable[[], None]) -> None:
        from greenlet import greenlet

        self._inside = greenlet(function)
        self._inside.switch()

    def let_go(self) -> None:
        self._inside.switch()
