"""The receiver's memory: a bounded number of series, with the last samples of each."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from belatwist.receiver.parse import Labels, Line


class SeriesSummary(msgspec.Struct, frozen=True):
    """A series, as ``/api/v1/series`` shows it.

    :ivar metric: its labels, ``__name__`` among them.
    :ivar samples: number of samples received, duplicates included.
    :ivar first_timestamp_ms: the earliest timestamp received.
    :ivar last_timestamp_ms: the latest timestamp received.
    :ivar last_value: the value at the latest timestamp.
    :ivar duplicates: number of samples with the timestamp of a sample in memory.
    """

    metric: dict[str, str]
    samples: int
    first_timestamp_ms: int
    last_timestamp_ms: int
    last_value: float
    duplicates: int


@dataclass(slots=True)
class _Held:
    """A series. ``recent`` maps timestamp to value, in the order of arrival."""

    first_timestamp_ms: int
    last_timestamp_ms: int
    last_value: float
    request: int = 0
    samples: int = 0
    duplicates: int = 0
    recent: dict[int, float] = field(default_factory=dict)


class Memory:
    """The bounded store of the receiver.

    :param max_series: the most series. The least recently updated series is dropped first.
    :param max_samples: the most samples of a series. The first to arrive is dropped first.
    :param max_label_characters: the most characters in the labels of all series together.
    :ivar dropped_series: number of dropped series.
    """

    def __init__(
        self,
        *,
        max_series: int = 10_000,
        max_samples: int = 100,
        max_label_characters: int = 16 * 1024 * 1024,
    ) -> None:
        self._max_series = max_series
        self._max_samples = max_samples
        self._max_label_characters = max_label_characters
        self._label_characters = 0
        # In the order of the last update; a plain dict slows down when its front is deleted.
        self._series: OrderedDict[Labels, _Held] = OrderedDict()
        self.dropped_series = 0

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self._series)

    def add(self, line: Line, request: int) -> bool:
        """Keep the samples of a line.

        :param request: number of the request that brought it, so that series can be counted per
            request without remembering them twice.
        :return: whether this is the first line of its series in that request.
        """
        held = self._series.get(line.labels)
        if held is None:
            held = _Held(line.timestamps[0], line.timestamps[0], line.values[0])
            self._series[line.labels] = held
            self._label_characters += _size(line.labels)
        else:
            self._series.move_to_end(line.labels)
        self._keep(held, line)
        first = held.request != request
        held.request = request
        while self._over_full():
            oldest, _ = self._series.popitem(last=False)
            self._label_characters -= _size(oldest)
            self.dropped_series += 1
        return first

    def series(self, name: str | None = None) -> Iterator[SeriesSummary]:
        """Yield the series, least recently updated first.

        :param name: only the series with this ``__name__``.
        """
        for labels, held in list(self._series.items()):
            metric = dict(labels)
            if name is None or metric["__name__"] == name:
                yield SeriesSummary(
                    metric,
                    held.samples,
                    held.first_timestamp_ms,
                    held.last_timestamp_ms,
                    held.last_value,
                    held.duplicates,
                )

    def recent(self, labels: Labels) -> dict[int, float]:
        """Copy the samples of a series, timestamp to value; empty for an unknown series."""
        held = self._series.get(labels)
        return dict(held.recent) if held is not None else {}

    def _over_full(self) -> bool:
        return (
            len(self._series) > self._max_series
            or self._label_characters > self._max_label_characters
        )

    def _keep(self, held: _Held, line: Line) -> None:
        recent = held.recent
        held.samples += len(line.timestamps)
        for timestamp, value in zip(line.timestamps, line.values, strict=True):
            if timestamp in recent:
                held.duplicates += 1
            elif len(recent) >= self._max_samples:
                del recent[next(iter(recent))]
            recent[timestamp] = value
            if timestamp >= held.last_timestamp_ms:
                held.last_timestamp_ms, held.last_value = timestamp, value
            elif timestamp < held.first_timestamp_ms:
                held.first_timestamp_ms = timestamp


def _size(labels: Labels) -> int:
    return sum(len(name) + len(value) for name, value in labels)
