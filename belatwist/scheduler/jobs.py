"""The scheduler's jobs: the state of each collector, and a run of several on one thread."""

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.collectors.contract import Collector
from belatwist.errors import BelaError
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog, kind_of
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, plausible_ms

COLLECTED = Event(
    "collector.collected",
    LogLevel.info,
    "Metrics collected",
    fields=("collector", "count", "duration_ms", "session_id"),
)
COLLECTION_FAILED = Event(
    "collector.failed",
    LogLevel.error,
    "Collection failed",
    fields=("collector", "error", "error_type"),
    cure="The error names the file. A reboot often revives a sensor that does not answer.",
)
COLLECTION_RECOVERED = Event(
    "collector.recovered", LogLevel.info, "Collection of {collector} works again"
)
TIMES_CORRECTED = Event(
    "collector.times_corrected",
    LogLevel.warn,
    "Impossible times of {count} samples of {collector}, such as {original_ts}, were set to now",
    fields=("clamped_ts", "skew_ms"),
    cure="The source has a wrong clock.",
)
TIMES_PLAUSIBLE = Event(
    "collector.times_plausible", LogLevel.info, "Samples of {collector} have plausible times again"
)

_NS = 1_000_000_000


class Job:
    """A collector with its state; it logs and counts the collector's runs.

    :param interval: seconds between two runs.
    :param log: the scheduler's.
    :param seconds: the reactor's clock.
    :param session_id: names this run of the agent in the log.
    :param verbose: log every collection; otherwise only the first collection and failures, because
        an event that nobody reads costs time as well.
    :ivar due_ns: when it is to run next, on the scheduler's clock.
    :ivar busy: whether a thread is in it; then it is left out, however often it is due.
    :ivar stuck: why its last run was abandoned, for as long as its thread does not return.
    :ivar ran: whether it has run at all.
    :ivar error: in words, why its last run failed; ``None`` when it did not.
    :ivar samples: the samples of its last run; none when that failed.
    :ivar collected_at: when it last yielded any, on the reactor's clock.
    :ivar ended_at: when it last ended, with samples or a failure, on the same clock.
    """

    def __init__(
        self,
        collector: Collector,
        interval: float,
        *,
        telemetry: Telemetry,
        log: Logger,
        seconds: Callable[[], float],
        session_id: str,
        verbose: bool,
    ) -> None:
        self.collector = collector
        self.interval = interval
        self.interval_ns = round(interval * _NS)
        self.due_ns = 0
        self.busy = False
        self.stuck: Failure | None = None
        self.ran = False
        self.error: str | None = None
        self.samples: Sequence[Sample] = ()
        self.collected_at: float | None = None
        self.ended_at: float | None = None
        self._log = log
        self._seconds = seconds
        self._session_id = session_id
        self._verbose = verbose
        self._failures = FailureLog(log, seconds)
        self._time_failures = FailureLog(log, seconds)
        name = collector.name
        self._collected = telemetry.metrics_collected.labels(name)
        self._failed = telemetry.metrics_failed.labels(name)
        self._duration = telemetry.collection_duration.labels(name)

    def advance(self, now_ns: int) -> None:
        """Set the next run to the interval's first multiple after ``now_ns``; skip missed ones."""
        self.due_ns += self.interval_ns
        if self.due_ns <= now_ns:
            behind = now_ns - self.due_ns
            self.due_ns += (behind // self.interval_ns + 1) * self.interval_ns

    def succeeded(self, samples: Sequence[Sample], took: float) -> None:
        """Record the samples of a run.

        :param took: seconds.
        """
        name = self.collector.name
        self.error = None
        self.samples = samples
        if samples:
            self.collected_at = self._seconds()
        self._collected.inc(len(samples))
        self._duration.observe(took)
        self._failures.recovered(COLLECTION_RECOVERED, collector=name)
        if self._verbose or not self.ran:
            COLLECTED.emit(
                self._log,
                level=LogLevel.debug if self.ran else None,
                collector=name,
                count=len(samples),
                duration_ms=round(took * 1000, 1),
                session_id=self._session_id,
            )
        self.ran = True

    def failed(self, failure: Failure) -> None:
        """Record that a run has failed, or was abandoned."""
        self.error = failure.getErrorMessage() or type(failure.value).__name__
        self.samples = ()
        self._failed.inc()
        self.ran = True
        self._log_failure(failure)

    def note_stuck(self) -> None:
        """Log again that its thread does not return, if it does not."""
        if self.stuck is not None:
            self._log_failure(self.stuck)

    def _log_failure(self, failure: Failure) -> None:
        error: Any = failure.value
        fields: dict[str, Any] = {
            "collector": self.collector.name,
            "error": self.error,
            "error_type": type(error).__name__,
        }
        if not isinstance(error, BelaError | TimeoutError):
            fields["stack"] = failure.getTraceback()
        self._failures.failed(COLLECTION_FAILED, kind_of(error), **fields)

    def with_plausible_times(self, samples: Sequence[Sample], now_ms: int) -> Sequence[Sample]:
        """Set to now each timestamp that the collector has given and that cannot be true."""
        name = self.collector.name
        if all(plausible_ms(at, now_ms) == at for at in {one.timestamp_ms for one in samples}):
            self._time_failures.recovered(TIMES_PLAUSIBLE, collector=name)
            return samples
        corrected = [
            one._replace(timestamp_ms=plausible_ms(one.timestamp_ms, now_ms)) for one in samples
        ]
        wrong = [
            given.timestamp_ms
            for given, now in zip(samples, corrected, strict=True)
            if given != now
        ]
        self._time_failures.failed(
            TIMES_CORRECTED,
            count=len(wrong),
            collector=name,
            original_ts=wrong[0],
            clamped_ts=now_ms,
            skew_ms=wrong[0] - now_ms,
        )
        return corrected


class Run:
    """A run of several jobs on one thread, in their order.

    :ivar todo: jobs that the thread has not begun. Taking a job is atomic, so that the reactor can
        take jobs back.
    :ivar done: ``(job, samples or failure, seconds)`` of each job that has ended, until the
        scheduler submits its samples.
    :ivar unanswered: the jobs that were neither taken back nor submitted.
    :ivar abandoned: whether the run's deadline has passed.
    """

    def __init__(self, jobs: Sequence[Job], now_ms: int) -> None:
        self.todo = deque(jobs)
        self.done: deque[tuple[Job, Sequence[Sample] | Failure, float]] = deque()
        self.unanswered = set(jobs)
        self.now_ms = now_ms
        self.abandoned = False

    def work(self) -> None:
        """Run the jobs in their order; on a worker thread."""
        while True:
            try:
                job = self.todo.popleft()
            except IndexError:
                return
            begun = perf_counter()
            result: Sequence[Sample] | Failure
            try:
                result = job.collector.collect(self.now_ms)
            except Exception:  # noqa: BLE001 - a collector may raise anything; Job.failed logs it
                result = Failure()
            self.done.append((job, result, perf_counter() - begun))
