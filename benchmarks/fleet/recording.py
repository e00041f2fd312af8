"""The samples of a fleet: one recording of the board model, which every device plays."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from twisted.internet.defer import Deferred, succeed

from belatwist.collectors.registry import SOURCE_OF
from belatwist.metrics.names import labels, metric_name
from belatwist.model import DEFAULT_PRIORITY, Sample, Series
from belatwist.store import Batch, Position, Row, Settlement
from benchmarks import board

STEP = 10.0
"""Seconds between ticks: the shortest of the collectors' default intervals."""

Points = dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]
"""Milliseconds and values, by the labels of a series (``__name__`` among them), sorted."""


class Recording:
    """The board model with every collector at its default interval.

    :param seconds: its length.
    :ivar rows: samples with their times in milliseconds from the start, sorted.
    :ivar series: the series of every id in ``rows``, of a device without a name.
    """

    def __init__(self, seconds: float) -> None:
        intervals = {metric.name: metric.interval for metric in board.METRICS}
        ids: dict[Series, int] = {}
        self.rows: list[Row] = []
        for number, tick in enumerate(islice(board.ticks(0, STEP), round(seconds / STEP))):
            self.rows += sorted(
                (one.timestamp_ms, ids.setdefault(one.series, len(ids) + 1), _stored(one.value))
                for one in tick
                if number * STEP % intervals[SOURCE_OF[one.series.name]] == 0
            )
        self.series = {number: replace(one, device_id="") for one, number in ids.items()}
        self.times = [row[0] for row in self.rows]
        self.place = {row[:2]: place for place, row in enumerate(self.rows)}

    def of(self, device_id: str) -> dict[int, Series]:
        """Return the series of a device."""
        return {number: replace(one, device_id=device_id) for number, one in self.series.items()}

    def ticks(self) -> Iterator[tuple[float, Sequence[Row]]]:
        """Yield the rows tick by tick, each with its time in seconds from the start."""
        begin = 0
        while begin < len(self.rows):
            end = bisect_right(self.times, self.times[begin])
            yield self.times[begin] / 1000, self.rows[begin:end]
            begin = end

    def points(self, device_id: str, start_ms: int) -> Points:
        """Return the samples that a server should have of a device in the end."""
        result: Points = {}
        names = {
            number: tuple(
                sorted({"__name__": metric_name(one.name), **labels(device_id, one.tags)}.items())
            )
            for number, one in self.series.items()
        }
        for offset, number, value in self.rows:
            result.setdefault(names[number], []).append((start_ms + offset, value))
        return result


class RecordedStore:
    """A :class:`belatwist.store.SampleStore` that fills itself as time passes.

    The store keeps one byte for each sample and schedules nothing, so that hundreds of devices with
    an hour's backlog fit in memory. It answers at once.

    :param start_ms: Unix time in milliseconds at which the recording begins.
    :param now_ms: gives Unix time in milliseconds.
    """

    def __init__(
        self, recording: Recording, device_id: str, start_ms: int, now_ms: Callable[[], int]
    ) -> None:
        self._recording = recording
        self._series = recording.of(device_id)
        self._start_ms = start_ms
        self._now_ms = now_ms
        self._settled = bytearray(len(recording.rows))
        self._settled_count = 0
        self._first = 0  # Everything before it is settled.
        # While the server is away the same are read again and again.
        self._read: Sequence[int] = ()
        self._found: list[Row] = []

    @property
    def pending(self) -> int:
        """How many samples are pending."""
        return self._collected(self._now_ms()) - self._settled_count

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Refuse, because the recording is complete."""
        raise NotImplementedError

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples by timestamp, then id; all have the same priority."""
        place = self._first
        if after is not None:
            place = max(place, self._place(after[1], after[2]) + 1)
        end = self._collected(until_ms)
        rows = self._rows(self._open(place, end, limit))
        last = (DEFAULT_PRIORITY, *rows[-1][:2]) if rows else None
        return succeed(Batch(rows, self._series, last))

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples, the oldest of them first."""
        place = self._collected(until_ms) - 1
        places: list[int] = []
        while place >= self._first and len(places) < limit:
            if not self._settled[place]:
                places.append(place)
            place -= 1
        return succeed(Batch(self._rows(places[::-1]), self._series))

    def _open(self, place: int, end: int, limit: int) -> Sequence[int]:
        """Find the samples that are not settled."""
        if self._settled.find(1, place, end) < 0:
            return range(place, min(place + limit, end))
        return list(islice((i for i in range(place, end) if not self._settled[i]), limit))

    def settle(self, settlements: Sequence[Settlement], now_ms: int) -> "Deferred[None]":
        """Record settlements."""
        for settlement in settlements:
            for row in settlement.rows:
                place = self._place(row[0], row[1])
                self._settled_count += not self._settled[place]
                self._settled[place] = 1
        first = self._settled.find(0, self._first)
        self._first = len(self._settled) if first < 0 else first
        return succeed(None)

    def _collected(self, until_ms: int) -> int:
        return bisect_right(self._recording.times, min(until_ms, self._now_ms()) - self._start_ms)

    def _place(self, timestamp_ms: int, series_id: int) -> int:
        return self._recording.place[timestamp_ms - self._start_ms, series_id]

    def _rows(self, places: Sequence[int]) -> list[Row]:
        if places != self._read:
            rows, start_ms = self._recording.rows, self._start_ms
            found = [
                (at + start_ms, number, value)
                for at, number, value in map(rows.__getitem__, places)
            ]
            self._read, self._found = places, found
        return self._found


def _stored(value: float | str) -> float:
    """Return a number as SQLite gives it back: an integer where nothing is lost."""
    number = float(value)
    return int(number) if number.is_integer() else number
