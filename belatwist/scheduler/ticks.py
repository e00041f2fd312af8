"""What is due together: a tick, and the run of its jobs on one thread."""

from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from belatwist.model import Sample
from belatwist.scheduler.examination import Yielded
from belatwist.scheduler.jobs import Job

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall


class Tick:
    """Samples that are submitted together.

    :ivar now_ms: the tick's Unix time in milliseconds.
    :ivar waiting: the jobs that have not answered.
    :ivar samples: the samples of the others.
    :ivar submitted: whether the tick is over for those that still wait.
    :ivar timer: ends the tick; the scheduler sets it.
    """

    timer: "IDelayedCall"

    def __init__(self, jobs: Sequence[Job], now_ms: int) -> None:
        self.now_ms = now_ms
        self.waiting = set(jobs)
        self.samples: list[Sample] = []
        self.submitted = False


class Run:
    """A run of several jobs of a tick on one thread, in their order.

    :ivar todo: jobs that the thread has not begun. Taking a job is atomic, so that the reactor can
        take jobs back.
    :ivar done: ``(job, result, seconds)`` of each job that has ended, until the scheduler takes it.
    :ivar unanswered: the jobs that were neither taken back nor taken from ``done``.
    """

    def __init__(self, jobs: Sequence[Job], tick: Tick) -> None:
        self.tick = tick
        self.todo = deque(jobs)
        self.done: deque[tuple[Job, Yielded | Failure, float]] = deque()
        self.unanswered = set(jobs)

    def work(self) -> None:
        """Run the jobs in their order; on a worker thread."""
        while True:
            try:
                job = self.todo.popleft()
            except IndexError:
                return
            begun = perf_counter()
            result: Yielded | Failure
            try:
                result = job.examine(job.collect(self.tick.now_ms))
            except Exception:  # noqa: BLE001 - a collector may raise anything; Job.ended logs it
                result = Failure()
            self.done.append((job, result, perf_counter() - begun))

    def take_back(self) -> list[Job]:
        """Take the jobs that the thread has not begun; on the reactor's thread."""
        jobs: list[Job] = []
        while self.todo:
            try:
                jobs.append(self.todo.popleft())
            except IndexError:
                break
        self.unanswered.difference_update(jobs)
        self.tick.waiting.difference_update(jobs)
        return jobs
