"""The scheduler's jobs: an enabled source and its state."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.collectors.contract import AbsentError, EnabledSource, HiddenError, State
from belatwist.errors import BelaError
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog, kind_of
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, plausible_ms
from belatwist.runtime.threads import no_answer
from belatwist.scheduler.examination import Yielded, examine
from belatwist.text import counted

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

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
SOURCE_ABSENT = Event(
    "collector.absent",
    LogLevel.info,
    "Collector {collector} has nothing to collect: {reason}",
)
SOURCE_HIDDEN = Event(
    "collector.hidden",
    LogLevel.warn,
    "Source of collector {collector} is hidden: {error}; {cure}",
    cure="The line ends with what to do; bela status and /health say it as well.",
)
STOP_FAILED = Event(
    "collector.stop_failed",
    LogLevel.error,
    "Collector {collector} did not stop cleanly: {error}",
    cure="This is a fault of the program: report it with the traceback.",
)
SAMPLES_REFUSED = Event(
    "collector.samples_refused",
    LogLevel.error,
    "The scheduler left out {count} samples of {collector}: {error}",
    cure="This is a fault of the program: report it. The collector's other samples are stored.",
)
SAMPLES_ACCEPTED = Event(
    "collector.samples_accepted", LogLevel.info, "All samples of {collector} can be stored again"
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


class Job:
    """An enabled source with its state; it logs and counts the source's collections.

    :param log: the scheduler's.
    :param seconds: the reactor's clock.
    :param session_id: names this run of the agent in the log.
    :param verbose: log every collection; otherwise only the first collection and failures, because
        an event that nobody reads costs time as well.
    :ivar name: the source's.
    :ivar interval: seconds between two collections.
    :ivar asynchronous: whether its collector runs on the reactor.
    :ivar pushed: whether its collector is a service, to which events come.
    :ivar started: whether it can collect: a service must be started before.
    :ivar busy: whether it is collecting; then it is left out, however often it is due.
    :ivar state: how the source is doing; ``None`` before its first collection has ended.
    :ivar error: why the state is not ``ok``; ``None`` when it is.
    :ivar cure: what to do about a source that is hidden.
    :ivar samples: the samples of its last collection; none when that failed.
    :ivar collected_at: when it last yielded any, on the reactor's clock.
    :ivar ended_at: when it last ended, with samples or a failure, on the same clock.
    """

    def __init__(
        self,
        enabled: EnabledSource,
        *,
        telemetry: Telemetry,
        log: Logger,
        seconds: Callable[[], float],
        session_id: str,
        verbose: bool,
    ) -> None:
        self.name = enabled.source.name
        self.collector = enabled.collector
        self.interval = enabled.every
        self.asynchronous = enabled.asynchronous
        self.pushed = enabled.pushed
        self.started = not enabled.pushed
        self.busy = False
        self.state: State | None = None
        self.error: str | None = None
        self.cure: str | None = None
        self.samples: Sequence[Sample] = ()
        self.collected_at: float | None = None
        self.ended_at: float | None = None
        self._declared = frozenset(
            name for metric in enabled.source.metrics for name in metric.stored_names
        )
        self._log = log
        self._seconds = seconds
        self._session_id = session_id
        self._verbose = verbose
        self._overdue: Failure | None = None
        self._failures = FailureLog(log, seconds)
        self._refusals = FailureLog(log, seconds)
        self._time_failures = FailureLog(log, seconds)
        self._collected = telemetry.metrics_collected.labels(self.name)
        self._failed = telemetry.metrics_failed.labels(self.name)
        self._duration = telemetry.collection_duration.labels(self.name)

    @property
    def left_out(self) -> Sequence[str]:
        """The items that its collector does not report; none if it names them in another type."""
        found: Any = getattr(self.collector, "left_out", ())
        return [str(name) for name in found] if isinstance(found, list | tuple) else ()

    def start(self) -> None:
        """Start its collector, a service; a failure is recorded like one of a collection."""
        collector: Any = self.collector
        try:
            collector.startService()
        except Exception:  # noqa: BLE001 - the others must start, whatever it raises
            self.ended_at = self._seconds()
            self._record_failure(Failure())
        else:
            self.started = True

    async def stop(self, clock: "IReactorTime", deadline: float) -> None:
        """Stop its collector, a service.

        :param deadline: seconds to wait for that at most.
        """
        collector: Any = self.collector
        self.started = False
        try:
            await maybeDeferred(collector.stopService).addTimeout(deadline, clock)
        except Exception as error:  # noqa: BLE001 - the agent must stop, whatever it raises
            STOP_FAILED.failure(self._log, collector=self.name, error=str(error))

    def collect(self, now_ms: int) -> Any:
        """Run its collector; an asynchronous collector returns a coroutine."""
        return self.collector.collect(now_ms)

    def examine(self, yielded: Any) -> Yielded:
        """Part the samples that can be stored from those that cannot; safe on a worker thread.

        :raises TypeError: when the collector has returned something else than samples.
        """
        return examine(yielded, self._declared)

    def ended(self, result: Yielded | Failure, took: float, now_ms: int) -> Sequence[Sample]:
        """Record the end of a collection.

        :param took: seconds.
        :param now_ms: the tick's Unix time in milliseconds.
        :return: the samples to store.
        """
        self.busy = False
        if self._overdue is not None:
            # Its failure was logged long ago, and what it has read since is stale.
            self._overdue = None
            return ()
        self.ended_at = self._seconds()
        if isinstance(result, Failure):
            self.samples = ()
            self._record_failure(result)
            return ()
        samples = self._with_plausible_times(result.samples, now_ms)
        self.samples = samples
        if samples:
            self.collected_at = self.ended_at
        self._collected.inc(len(samples))
        self._duration.observe(took)
        first = self.state is None
        self._record_success()
        self._record_refusals(result)
        if first or self._verbose:
            COLLECTED.emit(
                self._log,
                level=None if first else LogLevel.debug,
                collector=self.name,
                count=len(samples),
                duration_ms=round(took * 1000, 1),
                session_id=self._session_id,
            )
        return samples

    def passed_deadline(self, deadline: float) -> None:
        """Record that there is no answer. The job stays busy until there is one.

        :param deadline: seconds that it had.
        """
        if self._overdue is None:
            self._overdue = Failure(no_answer(deadline))
            self.samples = ()
            self._record_failure(self._overdue)

    def note_busy(self) -> None:
        """Log again that it does not answer, if it does not; called when it is due again."""
        if self._overdue is not None:
            self._log_failure(self._overdue)

    def _record_success(self) -> None:
        self.state, self.error, self.cure = State.OK, None, None
        self._failures.recovered(COLLECTION_RECOVERED, collector=self.name)

    def _record_refusals(self, yielded: Yielded) -> None:
        if not yielded.refused:
            self._refusals.recovered(SAMPLES_ACCEPTED, collector=self.name)
            return
        self.state = State.FAILING
        self.error = f"{counted(yielded.refused, 'sample')} left out: {yielded.reason}"
        self._failed.inc()
        self._refusals.failed(
            SAMPLES_REFUSED, collector=self.name, count=yielded.refused, error=yielded.reason
        )

    def _record_failure(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, AbsentError):
            self._record_absence(str(error))
            return
        self.error = failure.getErrorMessage() or type(error).__name__
        if isinstance(error, HiddenError):
            self.state, self.cure = State.HIDDEN, error.cure
            self._failures.failed(
                SOURCE_HIDDEN, "hidden", collector=self.name, error=self.error, cure=error.cure
            )
            return
        self.state, self.cure = State.FAILING, None
        self._failed.inc()
        self._log_failure(failure)

    def _record_absence(self, reason: str) -> None:
        first = self.state is None
        self.state, self.error, self.cure = State.ABSENT, reason, None
        fields = {"collector": self.name, "reason": reason}
        is_logged = self._failures.recovered(SOURCE_ABSENT, **fields)
        if first or (self._verbose and not is_logged):
            level = None if first else LogLevel.debug
            SOURCE_ABSENT.emit(self._log, level=level, **fields)

    def _log_failure(self, failure: Failure) -> None:
        error: Any = failure.value
        fields: dict[str, Any] = {
            "collector": self.name,
            "error": self.error,
            "error_type": type(error).__name__,
        }
        if not isinstance(error, BelaError | TimeoutError):
            fields["stack"] = failure.getTraceback()
        self._failures.failed(COLLECTION_FAILED, kind_of(error), **fields)

    def _with_plausible_times(self, samples: Sequence[Sample], now_ms: int) -> Sequence[Sample]:
        """Set to now each timestamp that the collector has given and that cannot be true."""
        if all(plausible_ms(at, now_ms) == at for at in {one.timestamp_ms for one in samples}):
            self._time_failures.recovered(TIMES_PLAUSIBLE, collector=self.name)
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
            collector=self.name,
            original_ts=wrong[0],
            clamped_ts=now_ms,
            skew_ms=wrong[0] - now_ms,
        )
        return corrected
