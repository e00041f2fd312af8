"""The scheduler runs collectors at their intervals, those that are due together on one tick."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.clock.sources import WallClock
from belatwist.collectors.contract import EnabledSource
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog, kind_of
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from belatwist.runtime.threads import Threads
from belatwist.scheduler.examination import Yielded
from belatwist.scheduler.jobs import Job
from belatwist.scheduler.ticks import Run, Tick

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads, IReactorTime

    class Reactor(IReactorTime, IReactorFromThreads):
        """The interfaces of the reactor that the scheduler uses."""


GATHER = 0.005
"""Seconds within which loops that fire make one tick: more than the rounding of their times. The
tick waits only for loops that are due within them, because each wake-up costs as much as a read."""

SLOW_AFTER = 0.25
"""Seconds after which a tick is submitted. Collectors that its thread has not begun then run on
another thread, without the slow one. The samples of late answers go with a later tick."""

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
    "The scheduler submitted {count} samples, the store took {stored}",
)


class CollectorScheduler(Service):
    """Runs collectors at their intervals and submits the samples of each tick all at once.

    A ``LoopingCall`` drives the sources of each interval. Loops that fire within :data:`GATHER`
    seconds of each other make one tick, and so one transaction of the store.

    :param sources: the enabled ones.
    :param sink: takes the samples of a tick; the scheduler logs its failures.
    :param session_id: names this run of the agent in the log.
    :param verbose: log every collection and every tick; otherwise only a collector's first
        collection and its failures, because an event that nobody reads costs time as well.
    :param in_thread: runs a function off the reactor's thread; by default a
        :class:`~belatwist.runtime.threads.Threads`.
    :param deadline: seconds after which the scheduler abandons a collector that has not answered.
    :ivar jobs: the sources and their states.
    """

    log = Logger()
    name = "collectors"

    def __init__(
        self,
        sources: Sequence[EnabledSource],
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
                source,
                telemetry=telemetry,
                log=self.log,
                seconds=reactor.seconds,
                session_id=session_id,
                verbose=verbose,
            )
            for source in sources
        ]
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._sink = sink
        self._in_thread = in_thread or Threads("collect")
        self._verbose = verbose
        self._deadline = deadline
        self._loops: dict[float, LoopingCall] = {}
        for interval in dict.fromkeys(job.interval for job in self.jobs):
            due = [job for job in self.jobs if job.interval == interval]
            self._loops[interval] = loop = LoopingCall(self._fire, due)
            loop.clock = reactor
        self._due: set[Job] = set()
        self._late: list[Sample] = []
        self._timers: set[IDelayedCall] = set()
        self._asked: set[Deferred[Any]] = set()
        self._storing: set[Deferred[None]] = set()
        self._storing_failures = FailureLog(self.log, reactor.seconds)

    def startService(self) -> None:
        """Run every collector at once, and then each at its interval."""
        super().startService()
        for interval, loop in self._loops.items():
            loop.start(interval)

    def stopService(self) -> "Deferred[None]":
        """Stop; fires when the sink has taken all samples that were collected.

        The scheduler does not wait for collectors that still run: their samples would show the
        shutdown. Collectors that are services stop last.
        """
        super().stopService()
        for loop in self._loops.values():
            if loop.running:
                loop.stop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for asked in list(self._asked):
            asked.cancel()
        self._submit([])
        return Deferred.fromCoroutine(self._settled())

    async def _settled(self) -> None:
        for storing in list(self._storing):
            await storing
        pushed = [job for job in self.jobs if job.pushed and job.started]
        stops = [Deferred.fromCoroutine(job.stop(self._reactor, self._deadline)) for job in pushed]
        for stopped in stops:
            await stopped

    def _after(self, seconds: float, function: Callable[[], None]) -> "IDelayedCall":
        """Call a function later, unless the service has stopped by then."""

        def call() -> None:
            self._timers.discard(timer)
            function()

        timer = self._reactor.callLater(seconds, call)
        self._timers.add(timer)
        return timer

    def _cancel(self, timer: "IDelayedCall") -> None:
        if timer in self._timers:
            self._timers.discard(timer)
            timer.cancel()

    def _fire(self, jobs: Sequence[Job]) -> None:
        """Let the jobs of an interval join the next tick; called by their loop."""
        if not self._due:
            self._after(self._until_all_fired(), self._begin_due)
        self._due.update(jobs)

    def _until_all_fired(self) -> float:
        """Return in how many seconds the last of the loops fires that are due with this one."""
        now = self._reactor.seconds()
        calls = [loop.call for loop in self._loops.values() if loop.call is not None]
        return max([0.0, *(n for one in calls if (n := one.getTime() - now) <= GATHER)])

    def _begin_due(self) -> None:
        due = [job for job in self.jobs if job in self._due]
        self._due.clear()
        for job in due:
            if job.busy:
                job.note_busy()
            elif not job.started:
                job.start()
        self._begin([job for job in due if job.started and not job.busy])

    def _begin(self, jobs: Sequence[Job]) -> None:
        """Begin a tick."""
        if not jobs:
            return
        for job in jobs:
            job.busy = True
        tick = Tick(jobs, self._wall_ms())
        run = Run([job for job in jobs if not job.asynchronous], tick)
        tick.timer = self._after(SLOW_AFTER, partial(self._on_slow, run))
        for job in jobs:
            if job.asynchronous:
                self._ask(job, tick)
        if run.todo:

            def work() -> None:
                run.work()
                self._reactor.callFromThread(self._take, run)

            self._in_thread(work)

    def _ask(self, job: Job, tick: Tick) -> None:
        """Run an asynchronous collector, and cancel it at its deadline."""
        begun = self._reactor.seconds()
        asked: Deferred[Any] = Deferred.fromCoroutine(job.collect(tick.now_ms))
        self._asked.add(asked)

        def silent() -> None:
            job.passed_deadline(self._deadline)
            asked.cancel()

        timer = self._after(self._deadline, silent)

        def ended(result: Any) -> None:
            self._cancel(timer)
            self._asked.discard(asked)
            if not isinstance(result, Failure):
                try:
                    result = job.examine(result)
                except Exception:  # noqa: BLE001 - a collector may return anything
                    result = Failure()
            self._answered(job, tick, result, self._reactor.seconds() - begun)

        asked.addBoth(ended)

    def _on_slow(self, run: Run) -> None:
        """Submit the samples so far, and run the collectors behind the slow one elsewhere."""
        self._take(run)
        others = run.take_back()
        if run.unanswered:
            self._after(self._deadline - SLOW_AFTER, partial(self._on_deadline, run))
        self._end(run.tick)
        self._begin(others)

    def _on_deadline(self, run: Run) -> None:
        """Report the collector that hangs; it stays busy until its thread returns."""
        self._take(run)
        for job in run.unanswered:
            job.passed_deadline(self._deadline)

    def _take(self, run: Run) -> None:
        """Take the results of a thread's collectors."""
        while run.done:
            job, result, took = run.done.popleft()
            run.unanswered.discard(job)
            self._answered(job, run.tick, result, took)

    def _answered(self, job: Job, tick: Tick, result: Yielded | Failure, took: float) -> None:
        if not self.running:
            return
        samples = job.ended(result, took, tick.now_ms)
        tick.waiting.discard(job)
        if tick.submitted:
            self._late += samples
            return
        tick.samples += samples
        if not tick.waiting:
            self._end(tick)

    def _end(self, tick: Tick) -> None:
        """Submit a tick, once."""
        if not tick.submitted:
            tick.submitted = True
            self._cancel(tick.timer)
            self._submit(tick.samples)

    def _submit(self, samples: Sequence[Sample]) -> None:
        """Submit samples, with those that came too late for an earlier tick."""
        late, self._late = self._late, []
        if samples or late:
            storing = Deferred.fromCoroutine(self._store([*samples, *late]))
            self._storing.add(storing)
            storing.addBoth(lambda _: self._storing.discard(storing))

    async def _store(self, samples: Sequence[Sample]) -> None:
        try:
            new = await self._sink(samples)
        except Exception as error:  # noqa: BLE001 - the next tick must come, whatever it raises
            self._storing_failures.failed(
                STORING_FAILED, kind_of(error), failure=Failure(), count=len(samples)
            )
            return
        self._storing_failures.recovered(STORING_RECOVERED)
        if self._verbose:
            TICK_STORED.emit(self.log, count=len(samples), stored=new)
