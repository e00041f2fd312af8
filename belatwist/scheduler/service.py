"""Runs the collectors: each at its interval, those due together on one tick."""

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from belatwist.clock.sources import WallClock
from belatwist.collectors.contract import Collector
from belatwist.errors import BelaError
from belatwist.log.throttle import Trouble
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, plausible_ms
from belatwist.scheduler.threads import Threads

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

    class Reactor(IReactorTime, IReactorFromThreads):
        """What the scheduler needs of the reactor."""


SLOW_AFTER = 0.25
"""Seconds that the collectors of a tick have a thread together; then those that it has not begun go
on without the slow one, on another."""

DEADLINE = 5.0
"""Seconds after which a collector that has not answered counts as stuck."""

_NS = 1_000_000_000
_SLACK_NS = 1_000_000  # A timer may fire early by the rounding of a float.


class Job:
    """A collector and what the scheduler knows of it.

    :ivar interval: seconds between two runs.
    :ivar due_ns: when it is to run next, on the scheduler's clock.
    :ivar busy: whether a thread is in it; then it is left out, however often it is due.
    :ivar stuck: that its last run was given up, as long as its thread does not return.
    :ivar error: in words, why its last run failed; ``None`` when it did not.
    :ivar ran: whether it has run at all.
    :ivar samples: what its last run has yielded; none when that failed.
    :ivar collected_at: when it last yielded any, on the reactor's clock.
    :ivar ended_at: when it last ended, whatever came of it, on the same clock.
    :ivar trouble: says which of its failures are loud in the log.
    """

    def __init__(
        self,
        collector: Collector,
        interval: float,
        telemetry: Telemetry,
        seconds: Callable[[], float],
    ) -> None:
        self.collector = collector
        self.interval = interval
        self.interval_ns = round(interval * _NS)
        self.due_ns = 0
        self.busy = False
        self.stuck: Failure | None = None
        self.error: str | None = None
        self.ran = False
        self.samples: Sequence[Sample] = ()
        self.collected_at: float | None = None
        self.ended_at: float | None = None
        self.trouble = Trouble(seconds)
        name = collector.name
        self.collected = telemetry.metrics_collected.labels(name)
        self.failed = telemetry.metrics_failed.labels(name)
        self.duration = telemetry.collection_duration.labels(name)

    def advance(self, now_ns: int) -> None:
        """Move on to the interval's first multiple after ``now_ns``; missed ones are lost."""
        self.due_ns += self.interval_ns
        if self.due_ns <= now_ns:
            behind = now_ns - self.due_ns
            self.due_ns += (behind // self.interval_ns + 1) * self.interval_ns


class _Run:
    """Jobs that are worked off by one thread, one after the other.

    :ivar todo: jobs that the thread has not begun. Taking one is atomic, so that the reactor can
        take them back.
    :ivar done: ``(job, samples or failure, seconds)`` of the jobs that have ended and are not
        handed over yet.
    :ivar unanswered: the jobs that are neither taken back nor handed over.
    :ivar abandoned: whether its deadline has passed.
    """

    def __init__(self, jobs: Sequence[Job], now_ms: int) -> None:
        self.todo = deque(jobs)
        self.done: deque[tuple[Job, Sequence[Sample] | Failure, float]] = deque()
        self.unanswered = set(jobs)
        self.now_ms = now_ms
        self.abandoned = False

    def work(self) -> None:
        """Run the jobs, one after the other; on a worker thread."""
        while True:
            try:
                job = self.todo.popleft()
            except IndexError:
                return
            begun = perf_counter()
            result: Sequence[Sample] | Failure
            try:
                result = job.collector.collect(self.now_ms)
            except Exception:  # noqa: BLE001 - a collector may raise anything; _report tells
                result = Failure()
            self.done.append((job, result, perf_counter() - begun))


class CollectorScheduler(Service):
    """Runs collectors at their intervals and hands over what each tick yields, all at once.

    Intervals are multiples of a start on the reactor's clock, counted in whole nanoseconds: no
    drift, and collectors that are due at the same moment are due in the same tick. This is why
    there is one timer and not a ``LoopingCall`` each, whose float arithmetic may part them.

    :param jobs: ``(collector, interval in seconds)``.
    :param sink: takes the samples of a tick; its failures are logged.
    :param session_id: this run's, for the log.
    :param verbose: log every collection, and not only each collector's first and its failures: an
        event that nobody wants costs time as well.
    :param in_thread: runs a function off the reactor's thread; a :class:`.threads.Threads` if left
        out.
    :ivar jobs: the collectors, and how each is doing.
    """

    log = Logger()
    name = "collectors"

    def __init__(
        self,
        jobs: Sequence[tuple[Collector, float]],
        *,
        reactor: "Reactor",
        wall_ms: WallClock,
        sink: Callable[[Sequence[Sample]], "Deferred[int]"],
        telemetry: Telemetry,
        session_id: str,
        verbose: bool,
        in_thread: Callable[[Callable[[], None]], None] | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self.jobs = [
            Job(collector, interval, telemetry, reactor.seconds) for collector, interval in jobs
        ]
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._sink = sink
        self._in_thread = in_thread or Threads()
        self._session_id = session_id
        self._verbose = verbose
        self._deadline = deadline
        self._timer: IDelayedCall | None = None
        self._timers: dict[_Run, IDelayedCall] = {}
        self._storing: set[Deferred[None]] = set()

    def startService(self) -> None:
        """Run every collector at once, and then each at its interval."""
        super().startService()
        now_ns = self._now_ns()
        for job in self.jobs:
            job.due_ns = now_ns
        if self.jobs:
            self._tick()

    def stopService(self) -> "Deferred[None]":
        """Stop; fires when what was collected has been handed over and taken.

        A tick that is being collected is not waited for: its samples would tell of the shutdown.
        """
        super().stopService()
        for timer in (self._timer, *self._timers.values()):
            if timer is not None and timer.active():
                timer.cancel()
        self._timers.clear()
        return Deferred.fromCoroutine(self._settled())

    async def _settled(self) -> None:
        for storing in list(self._storing):
            await storing

    def _now_ns(self) -> int:
        return round(self._reactor.seconds() * _NS)

    def _tick(self) -> None:
        now_ns = self._now_ns()
        due = [job for job in self.jobs if job.due_ns <= now_ns + _SLACK_NS]
        for job in due:
            job.advance(now_ns)
            if job.stuck is not None:
                self._log_failure(job, job.stuck)
        next_ns = min(job.due_ns for job in self.jobs)
        self._timer = self._reactor.callLater(max(next_ns - now_ns, 0) / _NS, self._tick)
        self._begin([job for job in due if not job.busy], self._wall_ms())

    def _begin(self, jobs: Sequence[Job], now_ms: int) -> None:
        if not jobs:
            return
        for job in jobs:
            job.busy = True
        run = _Run(jobs, now_ms)
        self._timers[run] = self._reactor.callLater(SLOW_AFTER, self._on_slow, run)

        def work() -> None:
            run.work()
            self._reactor.callFromThread(self._ended, run)

        self._in_thread(work)

    def _ended(self, run: _Run) -> None:
        if run.abandoned:
            # It was reported long ago; what it has read meanwhile is stale.
            for job in run.unanswered:
                job.busy = False
                job.stuck = None
            return
        timer = self._timers.pop(run, None)
        if timer is not None:  # Otherwise the service was stopped meanwhile.
            timer.cancel()
            self._submit(run)

    def _on_slow(self, run: _Run) -> None:
        """Hand over what there is, and go on without the collector that the thread is in."""
        others = []
        while run.todo:
            try:
                others.append(run.todo.popleft())
            except IndexError:
                break
        run.unanswered.difference_update(others)
        self._timers[run] = self._reactor.callLater(
            self._deadline - SLOW_AFTER, self._on_deadline, run
        )
        self._submit(run)
        self._begin(others, self._wall_ms())

    def _on_deadline(self, run: _Run) -> None:
        """Give a thread up, and report whom it is stuck in; the job stays busy until it returns."""
        del self._timers[run]
        self._submit(run)
        run.abandoned = True
        silent = Failure(TimeoutError(f"no answer within {self._deadline:g} s"))
        for job in run.unanswered:
            job.stuck = silent
            self._report_failure(job, silent)

    def _submit(self, run: _Run) -> None:
        """Hand over what a run has yielded and is not handed over yet."""
        samples: list[Sample] = []
        collectors = 0
        seconds = 0.0
        while run.done:
            job, result, took = run.done.popleft()
            run.unanswered.discard(job)
            job.busy = False
            collectors += 1
            seconds += took
            job.ended_at = self._reactor.seconds()
            if isinstance(result, Failure):
                self._report_failure(job, result)
                continue
            result = self._stamped(job, result, run.now_ms)
            self._report(job, result, took)
            samples.extend(result)
        if samples:
            storing = Deferred.fromCoroutine(self._store(samples, collectors, seconds))
            self._storing.add(storing)
            storing.addBoth(lambda _: self._storing.discard(storing))

    def _stamped(self, job: Job, samples: Sequence[Sample], now_ms: int) -> Sequence[Sample]:
        """Set to now what a collector has stamped by itself, and cannot be true."""
        if {one.timestamp_ms for one in samples} <= {now_ms}:
            return samples
        wrong = [
            one for one in samples if plausible_ms(one.timestamp_ms, now_ms) != one.timestamp_ms
        ]
        if not wrong:
            return samples
        self.log.warn(
            "{count} samples of {collector} have impossible times, such as {original_ts}:"
            " they are set to now",
            count=len(wrong),
            collector=job.collector.name,
            original_ts=wrong[0].timestamp_ms,
            clamped_ts=now_ms,
            skew_ms=wrong[0].timestamp_ms - now_ms,
        )
        return [
            one._replace(timestamp_ms=plausible_ms(one.timestamp_ms, now_ms)) for one in samples
        ]

    async def _store(self, samples: Sequence[Sample], collectors: int, seconds: float) -> None:
        try:
            new = await self._sink(samples)
        except Exception:  # noqa: BLE001 - whatever the store raises, the next tick must come
            self.log.failure("cannot store {count} samples", count=len(samples))
            return
        if self._verbose:
            self.log.debug(
                "collected {count} samples from {collectors} collectors in {duration_ms} ms,"
                " stored {stored}",
                count=len(samples),
                collectors=collectors,
                duration_ms=round(seconds * 1000, 1),
                stored=new,
            )

    def _report(self, job: Job, samples: Sequence[Sample], seconds: float) -> None:
        """Take note of what a collector has yielded."""
        now = self._reactor.seconds()
        job.error = None
        if (over := job.trouble.works()) is not None:
            (self.log.info if over.loud else self.log.debug)(
                "collection of {collector} works again, after {seconds:.0f} s and {failures}"
                " failures",
                collector=job.collector.name,
                seconds=over.seconds,
                failures=over.failures,
            )
        job.collected.inc(len(samples))
        job.duration.observe(seconds)
        job.samples = samples
        if samples:
            job.collected_at = now
        if self._verbose or not job.ran:
            (self.log.debug if job.ran else self.log.info)(
                "Metrics collected",
                collector=job.collector.name,
                count=len(samples),
                duration_ms=round(seconds * 1000, 1),
                session_id=self._session_id,
            )
        job.ran = True

    def _report_failure(self, job: Job, failure: Failure) -> None:
        """Take note of a failure."""
        job.error = failure.getErrorMessage() or type(failure.value).__name__
        job.ran = True
        job.samples = ()
        job.failed.inc()
        self._log_failure(job, failure)

    def _log_failure(self, job: Job, failure: Failure) -> None:
        """Tell of a failure, or that it goes on; the first of several is loud in the log."""
        fields = {
            "collector": job.collector.name,
            "error": job.error,
            "error_type": type(failure.value).__name__,
        }
        if not isinstance(failure.value, BelaError | TimeoutError):
            fields["stack"] = failure.getTraceback()
        (self.log.error if job.trouble.fails() else self.log.debug)("Collection failed", **fields)
