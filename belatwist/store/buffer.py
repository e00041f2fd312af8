"""Holds samples in memory between the scheduler and the store, which may fail for hours.

Collection continues while the disk is full, broken or busy. Samples that cannot be stored wait in
their order, and are stored as soon as that works again. Changes of the clock go through the buffer
as well, because they must keep their place among the samples.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from belatwist.store.batch_write import BATCH_SIZE, BatchWrite, is_database_error
from belatwist.store.sql.eras import Restamped
from belatwist.store.tick_queue import QueuedCall, QueuedTick, TickQueue
from belatwist.text import one_line

T = TypeVar("T")

CAPACITY = 50_000
"""Samples that wait, at most. One takes 142 bytes (measured), so that these are 7 MB: most of two
hours at 8 samples a second."""

WRITE_TIMEOUT = 30.0
"""Seconds after which a write that has not ended counts as a failure, until it ends."""

WRITE_FAILED = Event(
    "buffer.write_failed",
    LogLevel.error,
    "Samples cannot be stored and wait in memory: {error}",
    fields=("error_type", "sqlite_error", "waiting", "dropped"),
    cure="Make room on the disk. For an I/O error, look at dmesg and replace the card.",
)
WRITES_RECOVERED = Event(
    "buffer.recovered",
    LogLevel.info,
    "Samples are stored again ({waited} had waited, {dropped} were dropped)",
)
SAMPLES_REFUSED = Event(
    "buffer.samples_refused",
    LogLevel.error,
    "{count} samples dropped, the database refuses them: {error}; the first is {metric} {tags}",
    cure="Report it: a collector has made a sample that no database can hold.",
)
SAMPLES_ACCEPTED = Event(
    "buffer.samples_accepted", LogLevel.info, "The database takes all samples again"
)
SAMPLES_LOST = Event(
    "buffer.samples_lost",
    LogLevel.error,
    "{count} samples lost at shutdown, they could not be stored: {error}",
    cure="Make room on the disk, or replace the card, before the next start.",
)
WRITER_FAILED = Event(
    "buffer.writer_failed",
    LogLevel.critical,
    "Writing samples failed unexpectedly: {error}",
    cure="Report it, with the traceback. The next tick tries again.",
)


class BackingStore(Protocol):
    """The store as the buffer uses it; see :class:`~belatwist.store.sqlite.SQLiteStore`."""

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Store samples in one transaction."""
        ...

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is known to be good."""
        ...

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[None]":
        """Record a step of the clock."""
        ...

    def trust_clock(self) -> "Deferred[None]":
        """Record that the clock is known to be good."""
        ...

    def restamp_samples(self) -> "Deferred[Restamped]":
        """Move the next batch of the samples that a step of the clock moves."""
        ...


class WriteBuffer(Service):
    """Bounded memory between the scheduler and the store, with one write in flight at a time.

    It never fails. When a write does, the next tick tries again, with everything that waits.

    :param seconds: a monotonic clock.
    :param telemetry: counts writes that failed, and samples that are lost.
    :param limit: how many samples may wait; beyond it the oldest are dropped.
    :ivar error: in words, why samples wait; ``None`` while all is well.
    :ivar lost_at: when samples were last lost, in seconds on that clock; ``None`` when none were.
    """

    log = Logger()
    name = "buffer"

    def __init__(
        self,
        store: BackingStore,
        *,
        seconds: Callable[[], float],
        telemetry: Telemetry,
        limit: int = CAPACITY,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._telemetry = telemetry
        self.error: str | None = None
        self.lost_at: float | None = None
        self._queue = TickQueue(limit)
        self._busy = False
        self._idle: list[Deferred[None]] = []
        self._began = 0.0
        self._failures = FailureLog(self.log, seconds)
        self._refusals = FailureLog(self.log, seconds)
        # Since samples began to wait.
        self._dropped = 0
        self._caught_up = 0
        self._stopping = False

    @property
    def waiting(self) -> int:
        """How many samples wait to be stored, those that are being written included."""
        return self._queue.waiting

    def stopService(self) -> "Deferred[None]":
        """Try a last time to store the waiting samples; fires when this attempt has ended."""
        super().stopService()
        self._stopping = True
        return Deferred.fromCoroutine(self._flush())

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Take the samples of a tick.

        :return: how many of them are stored, as soon as that has been tried; it never fails.
        """
        done: Deferred[int] = Deferred()
        self._note_dropped(self._queue.append(QueuedTick(samples, done)))
        waited = self._seconds() - self._began
        if self._busy and waited > WRITE_TIMEOUT:
            self._note_failure(f"the database has not answered for {waited:.0f} s")
        self._drain()
        return done

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Enter the era after all that waits; see :meth:`.SQLiteStore.enter_era`.

        :return: its result, once the samples that an earlier run has left to be moved are moved.
        """

        async def enter() -> bool:
            good = await self._enqueue(lambda: self._store.enter_era(boot_id, offset_ms))
            await self._restamp()
            return good

        return Deferred.fromCoroutine(enter())

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[tuple[int, int]]":
        """Record a step of the clock after all that waits, which moves with it.

        Samples that are added later are stored in between.

        :return: when all are moved, how many were, and how many were dropped as duplicates.
        """

        async def step() -> tuple[int, int]:
            await self._enqueue(lambda: self._store.step_clock(boot_id, offset_ms, step_ms))
            return await self._restamp()

        return Deferred.fromCoroutine(step())

    def trust_clock(self) -> "Deferred[None]":
        """Record, after all that waits, that the clock is known to be good."""
        return self._enqueue(self._store.trust_clock)

    async def _restamp(self) -> tuple[int, int]:
        """Move samples, a batch at a time; all that waits by then is written before the next batch.

        When the service stops, the rest is left to the next start: the store gives none out before.
        """
        count, dropped, more = 0, 0, True
        while more and not self._stopping:
            moved = await self._enqueue(self._store.restamp_samples)
            count, dropped, more = count + moved.count, dropped + moved.dropped, moved.more
        return count, dropped

    def _enqueue(self, function: "Callable[[], Deferred[T]]") -> "Deferred[T]":
        done: Deferred[T] = Deferred()
        self._queue.append(QueuedCall(function, done))
        self._drain()
        return done

    def _drain(self) -> None:
        """Begin to work off the queue, unless that is under way."""
        if not self._busy and self._queue:
            self._busy = True
            writing = Deferred.fromCoroutine(self._work_off())
            writing.addErrback(self._note_fault)
            writing.addBoth(self._drained)

    def _note_fault(self, failure: Failure) -> None:
        self._failures.failed(
            WRITER_FAILED,
            f"fault {type(failure.value).__name__}",
            failure=failure,
            error=failure.getErrorMessage(),
        )

    def _drained(self, _: object) -> None:
        self._busy = False
        idle, self._idle = self._idle, []
        for one in idle:
            one.callback(None)

    async def _work_off(self) -> None:
        """Work off the queue until it is empty or the store fails."""
        while self._queue:
            self._began = self._seconds()
            head = self._queue.head
            error = await (
                self._write_batch() if isinstance(head, QueuedTick) else self._run_call(head)
            )
            if error is not None:
                self._note_failure(str(error) or type(error).__name__, error)
                self._queue.finish_all()
                return
        self._note_recovery()

    async def _run_call(self, call: QueuedCall) -> Exception | None:
        """Run a call; if the database fails, the call keeps its place and waits."""
        try:
            result = await call.function()
        except Exception as error:  # noqa: BLE001 - what is not about the database is the caller's
            if is_database_error(error):
                return error
            self._queue.pop()
            call.done.errback(error)
            return None
        self._queue.pop()
        call.done.callback(result)
        return None

    async def _write_batch(self) -> Exception | None:
        """Write the oldest ticks; if the store fails, the rest of them continues to wait."""
        ticks = self._queue.take(BATCH_SIZE)
        write = BatchWrite([one for tick in ticks for one in tick.samples])
        await write.run(self._store.add, self._telemetry.write_failures.inc)
        if self.error is not None:
            self._caught_up += write.stored
        if write.refused:
            self._drop_refused(write)
        elif write.error is None:
            self._refusals.recovered(SAMPLES_ACCEPTED)
        left = write.left()
        self._note_dropped(self._queue.put_back(left))
        gone = {id(one) for one in write.refused}
        for tick in ticks:
            lost = sum(id(one) in gone for one in tick.samples) if gone else 0
            tick.finish(0 if left else len(tick.samples) - lost)
        return write.error if left else None

    def _drop_refused(self, write: BatchWrite) -> None:
        self._count_lost(len(write.refused))
        series = write.refused[0].series
        self._refusals.failed(
            SAMPLES_REFUSED,
            type(write.error).__name__,
            count=len(write.refused),
            error=str(write.error),
            metric=one_line(series.name, 200),
            tags=one_line(series.tags_json, 200),
        )

    def _note_dropped(self, count: int) -> None:
        """Take note of samples that were dropped because too many wait."""
        if count:
            self._dropped += count
            self._count_lost(count)

    def _count_lost(self, count: int) -> None:
        self._telemetry.metrics_dropped.inc(count)
        self.lost_at = self._seconds()

    def _note_failure(self, reason: str, error: Exception | None = None) -> None:
        """Take note of why samples wait.

        :param error: the failure of the write; ``None`` while it has not ended yet.
        """
        if self.error is None:
            self._dropped = self._caught_up = 0
        self.error = reason
        name = getattr(error, "sqlite_errorname", None)
        error_type = "TimeoutError" if error is None else type(error).__name__
        self._failures.failed(
            WRITE_FAILED,
            name or error_type,
            error=reason,
            error_type=error_type,
            sqlite_error=name,
            waiting=self.waiting,
            dropped=self._dropped,
        )

    def _note_recovery(self) -> None:
        """Take note that nothing waits any more."""
        self.error = None
        self._failures.recovered(WRITES_RECOVERED, waited=self._caught_up, dropped=self._dropped)

    async def _flush(self) -> None:
        self._drain()
        if self._busy:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        if self.waiting:
            self._count_lost(self.waiting)
            SAMPLES_LOST.emit(self.log, count=self.waiting, error=self.error)
