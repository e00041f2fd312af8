"""Takes what the collectors yield and hands it to the store; it waits here while the store fails.

The disk may be full, broken or busy for hours; collection goes on. What cannot be stored waits, in
its order, and is stored as soon as that works again. What must stand in the same order as the
samples, as what becomes known of the clock, goes through here as well.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from belatwist.store.sql.eras import Restamped

T = TypeVar("T")

CAPACITY = 50_000
"""Samples that wait, at most. One takes 142 bytes (measured), so that these are 7 MB: most of two
hours at 8 samples a second."""

BATCH_SIZE = 2_500
"""Samples of one transaction, at most, but for a single tick that is larger."""

WRITE_TIMEOUT = 30.0
"""Seconds after which a write that has not ended counts as a failure, until it ends."""

MAX_FAILURES = 64
"""Failed attempts to find the samples that the store refuses, at most, before the next tick."""


class BackingStore(Protocol):
    """What is needed of the store behind; see :class:`~belatwist.store.sqlite.SQLiteStore`."""

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Store samples in one transaction."""
        ...

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is known to be good."""
        ...

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[None]":
        """Take note that the clock was stepped."""
        ...

    def trust_clock(self) -> "Deferred[None]":
        """Take note that the clock is known to be good."""
        ...

    def restamp_samples(self) -> "Deferred[Restamped]":
        """Move the next batch of what is to be moved with the clock."""
        ...


@dataclass(eq=False, slots=True)
class _Tick:
    """Samples that were handed in together.

    :ivar done: fires with how many of them are stored; ``None`` once it has.
    """

    samples: Sequence[Sample]
    done: "Deferred[int] | None"

    def finish(self, stored: int) -> None:
        done, self.done = self.done, None
        if done is not None:
            done.callback(stored)


@dataclass(eq=False, slots=True)
class _Call:
    """Something else that is to be done in its turn."""

    function: "Callable[[], Deferred[Any]]"
    done: "Deferred[Any]"


@dataclass(slots=True)
class _BatchWrite:
    """How far the writing of a batch has come.

    :ivar parts: what is left to write; the next one last.
    :ivar refused: samples that the store refuses by themselves.
    :ivar stored: how many are written.
    :ivar error: what ended it before its time.
    """

    parts: list[Sequence[Sample]]
    refused: list[Sample]
    stored: int = 0
    error: Exception | None = None


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
        self._limit = limit
        self.error: str | None = None
        self.lost_at: float | None = None
        self._queue: deque[_Tick | _Call] = deque()
        self._count = 0
        self._in_flight = 0
        self._busy = False
        self._idle: list[Deferred[None]] = []
        self._began = 0.0
        self._failing_since = 0.0
        self._dropped = 0
        self._caught_up = 0
        self._stopping = False

    @property
    def waiting(self) -> int:
        """How many samples wait to be stored, those that are being written included."""
        return self._count + self._in_flight

    def stopService(self) -> "Deferred[None]":
        """Try a last time to store what waits; fires when that has come to an end."""
        super().stopService()
        self._stopping = True
        return Deferred.fromCoroutine(self._flush())

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Take the samples of a tick.

        :return: how many of them are stored, as soon as that has been tried; it never fails.
        """
        done: Deferred[int] = Deferred()
        self._queue.append(_Tick(samples, done))
        self._count += len(samples)
        self._drop_oldest()
        waited = self._seconds() - self._began
        if self._busy and waited > WRITE_TIMEOUT:
            self._note_failure(f"the database has not answered for {waited:.0f} s")
        self._drain()
        return done

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """As the store's, in its turn; fires when what an earlier run has left is moved."""

        async def enter() -> bool:
            good = await self._enqueue(lambda: self._store.enter_era(boot_id, offset_ms))
            await self._restamp()
            return good

        return Deferred.fromCoroutine(enter())

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[tuple[int, int]]":
        """As the store's, in its turn: what was added before is stored before, and moves.

        What is added after it need not wait for that.

        :return: when all are moved, how many were, and how many were dropped as duplicates.
        """

        async def step() -> tuple[int, int]:
            await self._enqueue(lambda: self._store.step_clock(boot_id, offset_ms, step_ms))
            return await self._restamp()

        return Deferred.fromCoroutine(step())

    def trust_clock(self) -> "Deferred[None]":
        """As the store's, in its turn."""
        return self._enqueue(self._store.trust_clock)

    async def _restamp(self) -> tuple[int, int]:
        """Move samples, a batch at a time; whatever waits by then comes before the next one.

        When the service stops, the rest is left to the next start: the store gives none out before.
        """
        count, dropped, more = 0, 0, True
        while more and not self._stopping:
            moved = await self._enqueue(self._store.restamp_samples)
            count, dropped, more = count + moved.count, dropped + moved.dropped, moved.more
        return count, dropped

    def _enqueue(self, function: "Callable[[], Deferred[T]]") -> "Deferred[T]":
        done: Deferred[T] = Deferred()
        self._queue.append(_Call(function, done))
        self._drain()
        return done

    def _drain(self) -> None:
        if not self._busy and self._queue:
            self._busy = True
            writing = Deferred.fromCoroutine(self._work_off())
            writing.addErrback(lambda f: self.log.failure("cannot store samples", failure=f))
            writing.addBoth(self._drained)

    def _drained(self, _: object) -> None:
        self._busy = False
        idle, self._idle = self._idle, []
        for one in idle:
            one.callback(None)

    async def _work_off(self) -> None:
        """Work off the queue until it is empty or the store fails."""
        while self._queue:
            self._began = self._seconds()
            head = self._queue[0]
            error = await (self._write_batch() if isinstance(head, _Tick) else self._run_call(head))
            if error is not None:
                self._note_failure(str(error) or type(error).__name__, error)
                for item in self._queue:
                    if isinstance(item, _Tick):
                        item.finish(0)
                return
        self._note_recovery()

    async def _run_call(self, call: _Call) -> Exception | None:
        try:
            result = await call.function()
        except Exception as error:  # noqa: BLE001 - what is not about the database is the caller's
            if _is_database_error(error):
                return error
            self._queue.popleft()
            call.done.errback(error)
            return None
        self._queue.popleft()
        call.done.callback(result)
        return None

    async def _write_batch(self) -> Exception | None:
        """Write the oldest ticks; what is left of them when the store fails goes on waiting."""
        ticks = self._take_batch()
        writing = _BatchWrite([[one for tick in ticks for one in tick.samples]], [])
        await self._store_by_halves(writing)
        self._in_flight = 0
        if self.error is not None:
            self._caught_up += writing.stored
        if writing.refused and not writing.stored:
            # Not one was taken: that does not look as if it were the samples' fault.
            writing.parts = [[one for tick in ticks for one in tick.samples]]
        elif writing.refused:
            self._drop_refused(writing)
        if not writing.parts:
            gone = {id(one) for one in writing.refused}
            for tick in ticks:
                lost = sum(id(one) in gone for one in tick.samples) if gone else 0
                tick.finish(len(tick.samples) - lost)
            return None
        left = [one for part in reversed(writing.parts) for one in part]
        for tick in ticks:
            tick.finish(0)
        self._queue.appendleft(_Tick(left, None))
        self._count += len(left)
        self._drop_oldest()
        return writing.error

    def _take_batch(self) -> list[_Tick]:
        """Take ticks from the queue, as many as make a batch; one at the least."""
        ticks: list[_Tick] = []
        count = 0
        while self._queue:
            head = self._queue[0]
            if isinstance(head, _Call) or (ticks and count + len(head.samples) > BATCH_SIZE):
                break
            ticks.append(head)
            count += len(head.samples)
            self._queue.popleft()
        self._count -= count
        self._in_flight = count
        return ticks

    async def _store_by_halves(self, writing: _BatchWrite) -> None:
        """Store samples; where some are refused by themselves, find them by halving."""
        failures = 0
        while writing.parts:
            part = writing.parts[-1]
            begin = part[:BATCH_SIZE]
            try:
                await self._store.add(begin)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end collection
                self._telemetry.write_failures.inc()
                writing.error = error
                failures += 1
                if _is_database_error(error) or failures > MAX_FAILURES:
                    return
                writing.parts.pop()
                if len(part) > 1:
                    middle = len(begin) // 2 or 1
                    writing.parts += [part[middle:], part[:middle]]
                else:
                    writing.refused.append(part[0])
                continue
            writing.stored += len(begin)
            writing.parts.pop()
            if len(part) > len(begin):
                writing.parts.append(part[len(begin) :])

    def _drop_refused(self, writing: _BatchWrite) -> None:
        self._count_lost(len(writing.refused))
        first = writing.refused[0]
        self.log.error(
            "{count} samples are dropped, the database refuses them: {error}; the first is"
            " {metric} {tags}",
            count=len(writing.refused),
            error=str(writing.error),
            metric=ascii(first.series.name)[:200],
            tags=ascii(first.series.tags_json)[:200],
        )

    def _drop_oldest(self) -> None:
        """Drop the oldest of what waits, as far as there is too much."""
        excess = self.waiting - self._limit
        for item in list(self._queue) if excess > 0 else ():
            if excess <= 0:
                break
            if isinstance(item, _Call):
                continue
            lost = min(excess, len(item.samples))
            excess -= lost
            self._count -= lost
            self._dropped += lost
            self._count_lost(lost)
            if lost == len(item.samples):
                self._queue.remove(item)
                item.finish(0)
            else:
                item.samples = item.samples[lost:]

    def _count_lost(self, count: int) -> None:
        self._telemetry.metrics_dropped.inc(count)
        self.lost_at = self._seconds()

    def _note_failure(self, reason: str, error: Exception | None = None) -> None:
        """Say why samples wait: loudly when it begins, quietly while it goes on."""
        say = self.log.error if self.error is None else self.log.debug
        if self.error is None:
            self._failing_since = self._seconds()
            self._dropped = self._caught_up = 0
        self.error = reason
        say(
            "samples cannot be stored and wait in memory: {error}",
            error=reason,
            error_type=type(error).__name__,
            sqlite_error=getattr(error, "sqlite_errorname", None),
            waiting=self.waiting,
            dropped=self._dropped,
        )

    def _note_recovery(self) -> None:
        """Say that nothing waits any more, if something did."""
        if self.error is None:
            return
        self.error = None
        self.log.info(
            "samples are stored again, after {seconds:.0f} s: {waited} had waited,"
            " {dropped} were dropped",
            seconds=round(self._seconds() - self._failing_since, 1),
            waited=self._caught_up,
            dropped=self._dropped,
        )

    async def _flush(self) -> None:
        self._drain()
        if self._busy:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        if self.waiting:
            self._count_lost(self.waiting)
            self.log.error(
                "{count} samples are lost, they could not be stored: {error}",
                count=self.waiting,
                error=self.error,
            )


def _is_database_error(error: Exception) -> bool:
    """Tell whether a failure is the database's: the disk, a lock, damage; not a sample's own."""
    return isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) or (
        type(error) is sqlite3.DatabaseError
    )
