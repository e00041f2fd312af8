"""The scheduler runs collectors at their intervals, those that are due together on one tick."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.clock.sources import WallClock
from belatwist.collectors.contract import Collector
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog, kind_of
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from belatwist.runtime.threads import Threads, no_answer
from belatwist.scheduler.jobs import Job, Run

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

    class Reactor(IReactorTime, IReactorFromThreads):
        """The interfaces of the reactor that the scheduler uses."""


SLOW_AFTER = 0.25
"""Seconds that the collectors of a tick may share one thread. After that, those that it has not
begun run on another thread, without the slow one."""

DEADLINE = 5.0
"""Seconds after which a collector that has not answered counts as stuck."""

STORING_FAILED = Event(
    "scheduler.storing_failed",
    LogLevel.critical,
    "The store did not take {count} samples",
    cure="This is a fault of the program: report it with the traceback.",
)
STORING_RECOVERED = Event(
    "scheduler.storing_recovered", LogLevel.info, "The store takes samples again"
)
TICK_STORED = Event(
    "scheduler.tick_stored",
    LogLevel.debug,
    "The scheduler collected {count} samples from {collectors} collectors in {duration_ms} ms,"
    " the store took {stored}",
)

_NS = 1_000_000_000
_SLACK_NS = 1_000_000  # A timer may fire early by the rounding of a float.


class CollectorScheduler(Service):
    """Runs collectors at their intervals and submits the samples of each tick all at once.

    The scheduler counts intervals in whole nanoseconds from its start. So they do not drift, and
    collectors that are due at the same moment are due in the same tick. There is a single timer,
    because a ``LoopingCall`` for each collector may part them by the rounding of floats.

    :param jobs: ``(collector, interval in seconds)``.
    :param sink: takes the samples of a tick; the scheduler logs its failures.
    :param session_id: names this run of the agent in the log.
    :param verbose: log every collection and every tick; otherwise only a collector's first
        collection and its failures, because an event that nobody reads costs time as well.
    :param in_thread: runs a function off the reactor's thread; by default a
        :class:`~belatwist.runtime.threads.Threads`.
    :param deadline: seconds after which the scheduler abandons a collector that has not answered.
    :ivar jobs: the collectors and their states.
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
            Job(
                collector,
                interval,
                telemetry=telemetry,
                log=self.log,
                seconds=reactor.seconds,
                session_id=session_id,
                verbose=verbose,
            )
            for collector, interval in jobs
        ]
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._sink = sink
        self._in_thread = in_thread or Threads("collect")
        self._verbose = verbose
        self._deadline = deadline
        self._timer: IDelayedCall | None = None
        self._timers: dict[Run, IDelayedCall] = {}
        self._storing: set[Deferred[None]] = set()
        self._storing_failures = FailureLog(self.log, reactor.seconds)

    def startService(self) -> None:
        """Run every collector at once, and then each at its interval."""
        super().startService()
        now_ns = self._now_ns()
        for job in self.jobs:
            job.due_ns = now_ns
        if self.jobs:
            self._tick()

    def stopService(self) -> "Deferred[None]":
        """Stop; fires when the sink has taken all samples that were submitted.

        The scheduler does not wait for collectors that still run: their samples would show the
        shutdown.
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
            job.note_stuck()
        next_ns = min(job.due_ns for job in self.jobs)
        self._timer = self._reactor.callLater(max(next_ns - now_ns, 0) / _NS, self._tick)
        self._begin([job for job in due if not job.busy], self._wall_ms())

    def _begin(self, jobs: Sequence[Job], now_ms: int) -> None:
        if not jobs:
            return
        for job in jobs:
            job.busy = True
        run = Run(jobs, now_ms)
        self._timers[run] = self._reactor.callLater(SLOW_AFTER, self._on_slow, run)

        def work() -> None:
            run.work()
            self._reactor.callFromThread(self._ended, run)

        self._in_thread(work)

    def _ended(self, run: Run) -> None:
        if run.abandoned:
            # Its failure was logged long ago, and what it has read since is stale.
            for job in run.unanswered:
                job.busy = False
                job.stuck = None
            return
        timer = self._timers.pop(run, None)
        if timer is not None:  # Otherwise the service has stopped.
            timer.cancel()
            self._submit(run)

    def _on_slow(self, run: Run) -> None:
        """Submit the samples so far, and run the collectors behind the slow one elsewhere."""
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

    def _on_deadline(self, run: Run) -> None:
        """Abandon the run; the collector that it hangs in stays busy until its thread returns."""
        del self._timers[run]
        self._submit(run)
        run.abandoned = True
        silent = Failure(no_answer(self._deadline))
        for job in run.unanswered:
            job.stuck = silent
            job.failed(silent)

    def _submit(self, run: Run) -> None:
        """Submit the samples of a run that are not submitted yet."""
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
                job.failed(result)
            else:
                result = job.with_plausible_times(result, run.now_ms)
                job.succeeded(result, took)
                samples.extend(result)
        if samples:
            storing = Deferred.fromCoroutine(self._store(samples, collectors, seconds))
            self._storing.add(storing)
            storing.addBoth(lambda _: self._storing.discard(storing))

    async def _store(self, samples: Sequence[Sample], collectors: int, seconds: float) -> None:
        try:
            new = await self._sink(samples)
        except Exception as error:  # noqa: BLE001 - the next tick must come, whatever it raises
            self._storing_failures.failed(
                STORING_FAILED, kind_of(error), failure=Failure(), count=len(samples)
            )
            return
        self._storing_failures.recovered(STORING_RECOVERED)
        if self._verbose:
            TICK_STORED.emit(
                self.log,
                count=len(samples),
                collectors=collectors,
                duration_ms=round(seconds * 1000, 1),
                stored=new,
            )
