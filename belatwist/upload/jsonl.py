"""Encodes samples as lines for VictoriaMetrics' ``/api/v1/import``.

Each series is a line, with its points in two arrays (VictoriaMetrics documentation, "How to import
data in JSON line format")::

    {"metric":{"__name__":"system_load_1m","device_id":"a"},"values":[0.5],"timestamps":[1697040000000]}

The same rows always give the same bytes, so that the server recognises a chunk that is sent again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from deflate import gzip_compress

from belatwist.metrics.names import labels, metric_name
from belatwist.model import Series
from belatwist.store import Row

MAX_LABELS = 30
"""Including ``__name__``. VictoriaMetrics 1.79 cuts off further labels; newer versions drop series
with more than 40."""

MAX_LABEL_VALUE_BYTES = 4096
"""VictoriaMetrics acknowledges a series with a longer label value and drops it."""

MAX_LABEL_NAME_BYTES = 256
"""VictoriaMetrics acknowledges a series with a longer label name and drops it."""

MAX_AHEAD_MS = 2 * 24 * 3600 * 1000
"""VictoriaMetrics acknowledges points that lie further in the future and drops them."""

CACHED_SERIES = 4096
"""Series whose lines' beginnings stay in memory, the last used ones. A device has some 200 series;
for each that is not cached a chunk takes some 20 µs longer (measured)."""


class Encoder:
    """Encodes rows, and caches the beginning of the lines of :data:`CACHED_SERIES`."""

    def __init__(self) -> None:
        self._head = lru_cache(CACHED_SERIES)(_head)
        self._reason = lru_cache(CACHED_SERIES)(unsendable)

    def partition(
        self, rows: Sequence[Row], series: Mapping[int, Series]
    ) -> tuple[Sequence[Row], dict[str, list[Row]]]:
        """Separate rows that can be sent from those that the server would acknowledge and drop.

        :param rows: ``(timestamp_ms, series_id, value)``.
        :param series: the series of every ``series_id`` in ``rows``.
        :return: the rows to send, in their order, and the others by reason.
        """
        reasons = {i: self._reason(series[i]) for i in {row[1] for row in rows}}
        if not any(reasons.values()) and all(row[0] > 0 for row in rows):
            return rows, {}
        good: list[Row] = []
        bad: dict[str, list[Row]] = {}
        for row in rows:
            reason = reasons[row[1]] or (None if row[0] > 0 else "the timestamp is not after 1970")
            if reason is None:
                good.append(row)
            else:
                bad.setdefault(reason, []).append(row)
        return good, bad

    def encode(self, rows: Iterable[Row], series: Mapping[int, Series]) -> bytes:
        """Encode one chunk.

        :param rows: ``(timestamp_ms, series_id, value)``; finite values.
        :param series: the series of every ``series_id`` in ``rows``.
        :return: JSON lines in UTF-8, one for each series, with ascending timestamps. Lines of a
            metric stand next to each other, which gzip compresses better.
        """
        points: dict[int, tuple[list[str], list[str]]] = {}
        for timestamp_ms, series_id, value in sorted(rows):
            found = points.get(series_id)
            if found is None:
                found = points[series_id] = ([], [])
            found[0].append(repr(value))
            found[1].append(str(timestamp_ms))
        lines = sorted((self._head(series[i]), *arrays) for i, arrays in points.items())
        return b"".join(
            b'%b%b],"timestamps":[%b]}\n'
            % (head, ",".join(values).encode(), ",".join(timestamps).encode())
            for head, values, timestamps in lines
        )


def _head(series: Series) -> bytes:
    """Return a series' line up to the opening bracket of its values."""
    named = {"__name__": metric_name(series.name), **labels(series.device_id, series.tags)}
    text = json.dumps(named, ensure_ascii=False, separators=(",", ":"))
    return b'{"metric":' + text.encode("utf-8", "backslashreplace") + b',"values":['


def compress(body: bytes, level: int) -> bytes:
    """Compress a body with gzip. The header has no time: the same body gives the same bytes.

    libdeflate makes smaller bodies than zlib, in less time.

    :param level: of libdeflate, 1 to 9.
    """
    return bytes(gzip_compress(body, level))


def unsendable(series: Series) -> str | None:
    """Return why the server would acknowledge a series' samples and then drop or alter them.

    :return: ``None`` when the samples can be sent.
    """
    if not series.name:
        return "the metric has no name"
    named = {"__name__": metric_name(series.name), **labels(series.device_id, series.tags)}
    if len(named) > MAX_LABELS:
        return f"{len(named)} labels, the server keeps {MAX_LABELS}"
    for label, value in named.items():
        if len(label) > MAX_LABEL_NAME_BYTES:
            return f"a label name of {len(label)} bytes, the server takes {MAX_LABEL_NAME_BYTES}"
        size = len(value.encode("utf-8", "backslashreplace"))
        if size > MAX_LABEL_VALUE_BYTES:
            return f"label {label} is {size} bytes long, the server takes {MAX_LABEL_VALUE_BYTES}"
    return None
