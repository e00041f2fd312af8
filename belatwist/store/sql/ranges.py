"""Range queries: many samples of a few series become few points, a piece of the table at a time.

The table is clustered by time. So a window of it is read once for all series together, in pieces of
a bounded number of rows. A write waits for one piece at most, and no transaction lasts longer.
"""

import json
import math
from array import array
from collections.abc import Collection, Mapping
from typing import NamedTuple

from belatwist.model import REAL
from belatwist.store.sql.queries import Cursor

ROWS = 2500
"""How many rows a piece has, about. On a desktop's core it takes a millisecond."""

SERIES = 1000
"""How many series one call lists, at most."""

GAP_MS = 180_000
"""Two samples of a counter that are further apart than this, and than two steps, give no rate."""

_END = """
SELECT timestamp_ms FROM samples NOT INDEXED WHERE timestamp_ms >= ? AND timestamp_ms < ?
ORDER BY timestamp_ms, series_id LIMIT 1 OFFSET ?
"""

# The sum is a float's: one of integers fails when it overflows.
_GAUGES = """
SELECT (timestamp_ms - ?) / ?, series_id, count(*), total(value), min(value), max(value)
FROM samples NOT INDEXED
WHERE timestamp_ms >= ? AND timestamp_ms < ? AND series_id IN (SELECT value FROM json_each(?))
GROUP BY 1, 2
"""

# In order of time. SQLite's window functions could do the rest, and take more than twice as long.
_COUNTERS = """
SELECT timestamp_ms, series_id, value FROM samples NOT INDEXED
WHERE timestamp_ms >= ? AND timestamp_ms < ? AND series_id IN (SELECT value FROM json_each(?))
ORDER BY timestamp_ms, series_id
"""

SeriesRow = tuple[int, str, str]
"""A series: ``(id, name, tags as JSON)``."""


class Grid(NamedTuple):
    """The points of a query.

    :ivar begin_ms: where the first one begins, in Unix milliseconds.
    :ivar step_ms: how long each lasts.
    """

    begin_ms: int
    step_ms: int
    points: int

    @property
    def end_ms(self) -> int:
        """Where the last point ends."""
        return self.begin_ms + self.step_ms * self.points


class Buckets:
    """The points of one line, as they come together.

    :ivar weight: of each point, how many samples of a gauge are in it, or how many seconds of a
        counter; 0 where there is nothing.
    :ivar total: the sum of the gauge's values, or by how much the counter rose.
    :ivar low: the least value, or rate per second, of each point that has a weight.
    :ivar high: the greatest.
    """

    __slots__ = ("high", "low", "total", "weight")

    def __init__(self, points: int) -> None:
        self.weight = array("d", bytes(8 * points))
        self.total = array("d", bytes(8 * points))
        self.low = array("d", [math.inf]) * points
        self.high = array("d", [-math.inf]) * points

    def value(self, which: str, point: int) -> float:
        """Return the ``min``, ``avg`` or ``max`` of a point that has a weight."""
        if which == "avg":
            return self.total[point] / self.weight[point]
        return (self.low if which == "min" else self.high)[point]

    def add(self, point: int, weight: float, total: float, low: float, high: float) -> None:
        """Add to a point."""
        self.weight[point] += weight
        self.total[point] += total
        self.low[point] = min(self.low[point], low)
        self.high[point] = max(self.high[point], high)


class RangeScan:
    """A query under way; nothing of it is kept in the database between two pieces.

    :param gauges: the line of each series whose values count, by its id.
    :param counters: the line of each series whose rate counts. Several series may have one line.
    """

    def __init__(
        self, grid: Grid, gauges: Mapping[int, Buckets], counters: Mapping[int, Buckets]
    ) -> None:
        self._grid = grid
        self._gauges = gauges
        self._counters = counters
        self._gap_ms = max(GAP_MS, 2 * grid.step_ms)
        # The first rate needs a sample from before.
        self._next_ms = grid.begin_ms - (GAP_MS if counters else 0)
        self._last: dict[int, tuple[int, float]] = {}

    def advance(self, cursor: Cursor) -> bool:
        """Read the next piece.

        :return: whether there are more.
        """
        begin_ms, end_ms = self._next_ms, self._grid.end_ms
        cursor.execute(_END, (begin_ms, end_ms, ROWS))
        found = cursor.fetchone()
        if found is not None:
            end_ms = max(int(found[0]), begin_ms + 1)
        if self._gauges:
            self._add_gauges(cursor, max(begin_ms, self._grid.begin_ms), end_ms)
        if self._counters:
            self._add_counters(cursor, begin_ms, end_ms)
        self._next_ms = end_ms
        return end_ms < self._grid.end_ms

    def _add_gauges(self, cursor: Cursor, begin_ms: int, end_ms: int) -> None:
        grid, ids = self._grid, json.dumps(list(self._gauges))
        cursor.execute(_GAUGES, (grid.begin_ms, grid.step_ms, begin_ms, end_ms, ids))
        for point, one, count, total, low, high in cursor.fetchall():
            self._gauges[one].add(point, count, total, low, high)

    def _add_counters(self, cursor: Cursor, begin_ms: int, end_ms: int) -> None:
        first_ms, step_ms, last = self._grid.begin_ms, self._grid.step_ms, self._last
        cursor.execute(_COUNTERS, (begin_ms, end_ms, json.dumps(list(self._counters))))
        for at_ms, one, value in cursor.fetchall():
            before = last.get(one)
            last[one] = at_ms, value
            if before is None or at_ms < first_ms or at_ms - before[0] > self._gap_ms:
                continue
            seconds = (at_ms - before[0]) / 1000
            rise = value - before[1]
            if rise < 0:  # It began anew at 0: a reboot, or a modem that was plugged in again.
                rise = value
            rate = rise / seconds
            self._counters[one].add((at_ms - first_ms) // step_ms, seconds, rise, rate, rate)


def all_series(cursor: Cursor, after: int = 0) -> list[SeriesRow]:
    """List the series of numbers, by id; at most :data:`SERIES`.

    :param after: begin behind this id.
    """
    cursor.execute(
        "SELECT id, name, tags FROM series WHERE id > ? AND value_type = ? ORDER BY id LIMIT ?",
        (after, REAL, SERIES),
    )
    return cursor.fetchall()


def series_named(cursor: Cursor, names: Collection[str], after: int = 0) -> list[SeriesRow]:
    """List those series of numbers that have one of these names, as :func:`all_series` does."""
    cursor.execute(
        "SELECT id, name, tags FROM series WHERE name IN (SELECT value FROM json_each(?))"
        " AND id > ? AND value_type = ? ORDER BY id LIMIT ?",
        (json.dumps(list(names)), after, REAL, SERIES),
    )
    return cursor.fetchall()
