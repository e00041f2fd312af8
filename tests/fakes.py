"""Stand-ins for the parts that need a disk, a thread or a running reactor."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python import threadpool

from belatwist.metrics.telemetry import Telemetry
from belatwist.model import TEXT, Sample, Series
from belatwist.store import Batch, Key, Position, Row, Settlement
from belatwist.store.alive import ALIVE_FOR, MAX_SERIES, AliveSeries
from belatwist.store.database import Database
from belatwist.store.sqlite import SQLiteStore

T = TypeVar("T")


class InlineReactor(MemoryReactorClock):
    """A reactor that never runs, for code that hands results over from threads."""

    def callFromThread(self, function: Callable[..., object], *args: object, **kw: object) -> None:
        """Call at once: there is one thread only."""
        function(*args, **kw)


class InlineThreadPool:
    """Takes the place of ``twisted.python.threadpool.ThreadPool`` and runs everything at once."""

    def __init__(self, *limits: object) -> None:
        self.running = False

    def start(self) -> None:
        """Begin; nothing to do."""
        self.running = True

    def stop(self) -> None:
        """End; nothing to do."""
        self.running = False

    def callInThreadWithCallback(
        self,
        result: Callable[[bool, Any], object],
        function: Callable[..., Any],
        *args: object,
        **kw: object,
    ) -> None:
        """Call ``function``, then ``result`` with its success and its value or failure."""
        done: Deferred[Any] = maybeDeferred(function, *args, **kw)
        done.addCallbacks(lambda value: result(True, value), lambda error: result(False, error))


def inline_store(
    path: Path,
    *,
    busy_timeout_ms: int = 5000,
    telemetry: Telemetry | None = None,
    reactor: MemoryReactorClock | None = None,
    max_series: int = MAX_SERIES,
) -> SQLiteStore:
    """Make the real store on a real file, without a thread: its Deferreds have already fired.

    :param reactor: the clock; ``None`` for one that stands.
    """
    with mock.patch.object(threadpool, "ThreadPool", InlineThreadPool):
        database = Database(
            path,
            reactor or InlineReactor(),
            synchronous="full",
            cache_mb=8,
            mmap_mb=0,
            busy_timeout_ms=busy_timeout_ms,
        )
    return SQLiteStore(database, telemetry=telemetry or Telemetry(), max_series=max_series)


class MemoryStore:
    """A :class:`belatwist.store.SampleStore` without a disk: its Deferreds have already fired.

    It answers as the SQLite store does, down to the ids of the series, and can be told to fail or
    to hang.

    :param max_series: how many series may be alive.
    :param seconds: the clock by which series are alive; it stands where none is given.
    :ivar settlements: every settlement that was settled, in order.
    """

    def __init__(
        self, max_series: int = MAX_SERIES, seconds: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._alive = AliveSeries(max_series, ALIVE_FOR, seconds)
        self.settlements: list[Settlement] = []
        self._writes = 0
        self._ids: dict[Series, int] = {}
        self._series: dict[int, Series] = {}
        self._texts: set[Key] = set()
        self._values: dict[Key, float] = {}
        self._pending: dict[Key, int] = {}
        self._error: Exception | None = None
        self._held: list[Callable[[], None]] | None = None

    @property
    def pending(self) -> int:
        """How many samples wait to be sent."""
        return len(self._pending)

    def everything(self) -> dict[int, Series]:
        """Return every series by its id."""
        return self._series

    def fail_next(self, error: Exception) -> None:
        """Let the next call fail, without any effect."""
        self._error = error

    def hold(self) -> None:
        """Let calls hang from now on: they take effect, and answer, on :meth:`release`."""
        self._held = self._held or []

    def release(self) -> None:
        """Let the calls that hang take effect and answer, in their order, and no more hang."""
        held, self._held = self._held or [], None
        for act in held:
            act()

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Keep samples; one that is already known is ignored."""
        return self._answer(lambda: self._add(samples))

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples by priority, then timestamp, then id."""
        return self._answer(lambda: self._fetch(limit, until_ms, after or (-1, 0, 0)))

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples, the oldest of them first."""
        return self._answer(lambda: self._fetch_newest(limit, until_ms))

    def settle(self, settlements: Sequence[Settlement], now_ms: int) -> "Deferred[None]":
        """Record settlements."""
        return self._answer(lambda: self._settle(settlements))

    def _answer(self, act: Callable[[], T]) -> "Deferred[T]":
        if self._error is not None:
            error, self._error = self._error, None
            return fail(error)
        answer: Deferred[T] = Deferred()
        if self._held is None:
            answer.callback(act())
        else:
            self._held.append(lambda: answer.callback(act()))
        return answer

    def _add(self, samples: Sequence[Sample]) -> int:
        self._writes += 1
        new = 0
        self._alive.touch(samples)
        room = self._alive.room
        alive: dict[Series, int] = {}
        for one in samples:
            if one.series not in self._alive.recent and one.series not in alive:
                if len(alive) >= room:
                    continue
                alive[one.series] = self._ids.setdefault(one.series, len(self._ids) + 1)
            number = self._ids[one.series]
            self._series.setdefault(number, one.series)
            key = (one.timestamp_ms, number)
            if one.series.value_type == TEXT:
                self._texts.add(key)
            elif key not in self._values:
                self._values[key] = _as_stored(float(one.value))
                self._pending[key] = one.series.priority
                new += 1
        self._alive.stored(alive)
        return new

    def _fetch(self, limit: int, until_ms: int, after: Position) -> Batch:
        due = sorted((p, *key) for key, p in self._pending.items() if key[0] <= until_ms)
        due = [place for place in due if place > after][:limit]
        rows: list[Row] = [(t, i, self._values[t, i]) for _, t, i in due]
        return Batch(rows, self._of(rows), due[-1] if due else None, as_of=self._writes)

    def _fetch_newest(self, limit: int, until_ms: int) -> Batch:
        newest = sorted(key for key in self._pending if key[0] <= until_ms)[-limit:]
        rows = [(*key, self._values[key]) for key in newest]
        return Batch(rows, self._of(rows), as_of=self._writes)

    def _of(self, rows: Sequence[Row]) -> dict[int, Series]:
        """Return the series of some rows, and no others: nobody may rely on more."""
        return {row[1]: self._series[row[1]] for row in rows}

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        self._writes += 1
        for settlement in settlements:
            self.settlements.append(settlement)
            for timestamp_ms, number, _ in settlement.rows:
                self._pending.pop((timestamp_ms, number), None)


def _as_stored(value: float) -> float:
    """Return a number as SQLite's ``NUMERIC`` gives it back: an integer where nothing is lost."""
    return int(value) if value.is_integer() and abs(value) < 2**63 else value
