"""What is read of the database for a chart is what a plain computation gives."""

import math
import sqlite3
from collections import defaultdict
from contextlib import closing
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.model import Series, sample
from belatwist.store.sql import ranges
from belatwist.store.sql.ranges import GAP_MS, Buckets, Grid, RangeScan, all_series, series_named
from tests.store.databases import CORE, LOAD, STATE, accept, fresh, insert, pending, settle

SENT = Series.of("network.tx_bytes_total", "box", {"interface": "usb0"})
GRID = Grid(begin_ms=1_000_000, step_ms=10_000, points=6)

Points = dict[int, tuple[float, float, float]]


def scan(
    connection: sqlite3.Connection, grid: Grid, gauges: list[int], counters: list[int]
) -> dict[int, Points]:
    """Run a whole query: by series and point, least, mean and most."""
    lines = {one: Buckets(grid.points) for one in (*gauges, *counters)}
    query = RangeScan(
        grid, {one: lines[one] for one in gauges}, {one: lines[one] for one in counters}
    )
    cursor = connection.cursor()
    while query.advance(cursor):
        assert not connection.in_transaction
    return {
        one: {
            i: (line.value("min", i), line.value("avg", i), line.value("max", i))
            for i in range(grid.points)
            if line.weight[i]
        }
        for one, line in lines.items()
    }


def ids(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the ids of the series of numbers, by name."""
    return {name: number for number, name, _ in all_series(connection.cursor())}


def test_a_gauge() -> None:
    """Least, mean and most of each step; a step begins with its first millisecond."""
    with closing(fresh()) as connection:
        for at, value in ((999_999, 9), (1_000_000, 1), (1_009_999, 4), (1_010_000, -7.5)):
            insert(connection, [sample(LOAD, at, value)])
        insert(connection, [sample(LOAD, 1_059_999, 3), sample(LOAD, 1_060_000, 9)])
        one = ids(connection)[LOAD.name]
        assert scan(connection, GRID, [one], [])[one] == {
            0: (1, 2.5, 4),
            1: (-7.5, -7.5, -7.5),
            5: (3, 3, 3),
        }


def test_a_counter() -> None:
    """Its rate: the first needs the sample before, and a fall is a new beginning at 0."""
    with closing(fresh()) as connection:
        for at, value in (
            (990_000, 1000),
            (1_000_000, 1500),
            (1_005_000, 2500),
            (1_015_000, 200),  # It fell.
            (1_025_000, 200),
        ):
            insert(connection, [sample(SENT, at, value)])
        one = ids(connection)[SENT.name]
        assert scan(connection, GRID, [], [one])[one] == {
            0: (50, 100, 200),
            1: (20, 20, 20),
            2: (0, 0, 0),
        }


def test_a_counter_without_a_sample_before() -> None:
    """A single one has no rate."""
    with closing(fresh()) as connection:
        insert(connection, [sample(SENT, 1_000_000, 5)])
        one = ids(connection)[SENT.name]
        assert scan(connection, GRID, [], [one])[one] == {}


@pytest.mark.parametrize(("apart", "points"), [(GAP_MS, 1), (GAP_MS + 1, 0)])
def test_a_gap(apart: int, points: int) -> None:
    """Over a long time without samples nothing is known of the rate."""
    with closing(fresh()) as connection:
        insert(connection, [sample(SENT, 1_000_000, 5), sample(SENT, 1_000_000 + apart, 6)])
        one = ids(connection)[SENT.name]
        grid = GRID._replace(points=20)
        assert len(scan(connection, grid, [], [one])[one]) == points


def test_pending_and_uploaded_and_no_texts() -> None:
    """Both count alike; texts are no numbers, and are not even listed."""
    with closing(fresh()) as connection:
        insert(connection, [sample(LOAD, 1_000_000, 1), sample(LOAD, 1_001_000, 3)])
        settle(connection, accept(pending(connection)[:1]))
        with connection:
            connection.execute(
                "INSERT INTO series (name, device_id, tags, value_type) VALUES (?, 'box', '{}', 1)",
                (STATE.name,),
            )
        one = ids(connection)
        assert one.keys() == {LOAD.name}
        assert scan(connection, GRID, [one[LOAD.name]], [])[one[LOAD.name]] == {0: (1, 2, 3)}


def test_huge_values() -> None:
    """Numbers at the end of what can be stored are no error."""
    with closing(fresh()) as connection:
        big = 2.0**62
        for number in range(4):
            insert(connection, [sample(LOAD, 1_000_000 + number, big)])
            insert(connection, [sample(SENT, 1_000_000 + number, big * (number % 2))])
        known = ids(connection)
        found = scan(connection, GRID, [known[LOAD.name]], [known[SENT.name]])
        assert found[known[LOAD.name]] == {0: (big, big, big)}
        assert all(map(math.isfinite, found[known[SENT.name]][0]))


def test_listing_in_pages() -> None:
    """Series are listed by their ids, a bounded number at a time, all of them or by name."""
    with closing(fresh()) as connection, mock.patch.object(ranges, "SERIES", 2):
        cores = [Series.of("cpu", "box", {"core": str(n)}) for n in range(5)]
        insert(connection, [sample(one, 1, 1) for one in (*cores, LOAD, CORE)])
        cursor = connection.cursor()
        assert [row[0] for row in all_series(cursor)] == [1, 2]
        assert [row[0] for row in all_series(cursor, 2)] == [3, 4]
        assert series_named(cursor, ["cpu", "nothing"], 4) == [(5, "cpu", '{"core":"4"}')]
        assert [row[1] for row in series_named(cursor, [LOAD.name, CORE.name])] == [
            LOAD.name,
            CORE.name,
        ]


def expected(rows: dict[tuple[int, int], int], grid: Grid, counters: set[int]) -> dict[int, Points]:
    """Compute in the plainest way."""
    values: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    last: dict[int, tuple[int, int]] = {}
    for (at, one), value in sorted(rows.items()):
        before = last.get(one)
        last[one] = at, value
        point = (at - grid.begin_ms) // grid.step_ms
        if not 0 <= point < grid.points:
            continue
        if one not in counters:
            values[one, point].append((value, 1))
        elif before is not None and at - before[0] <= max(GAP_MS, 2 * grid.step_ms):
            seconds = (at - before[0]) / 1000
            rise = value - before[1] if value >= before[1] else value
            values[one, point].append((rise / seconds, seconds))
    result: dict[int, Points] = {one: {} for _, one in rows}
    for (one, point), pairs in values.items():
        weight = sum(weight for _, weight in pairs)
        mean = sum(value * weight for value, weight in pairs) / weight
        result[one][point] = min(pairs)[0], mean, max(pairs)[0]
    return result


@given(
    rows=st.dictionaries(
        st.tuples(st.integers(1_000_000 - GAP_MS, 1_100_000), st.integers(1, 4)),
        st.integers(0, 1000),
        max_size=60,
    ),
    piece=st.integers(1, 12),
    step_ms=st.integers(1, 40).map(lambda seconds: 1000 * seconds),
    points=st.integers(1, 12),
)
def test_any_samples_in_any_pieces(
    rows: dict[tuple[int, int], int], piece: int, step_ms: int, points: int
) -> None:
    """Where the table is cut makes no difference, and the points are what they should be."""
    grid = Grid(1_000_000, step_ms, points)
    series = [Series.of(name, "box") for name in ("a", "b", "c", "d")]
    with closing(fresh()) as connection, mock.patch.object(ranges, "ROWS", piece):
        insert(connection, [sample(one, 1, 0) for one in series])
        with connection:
            connection.execute("DELETE FROM samples")
        insert(
            connection, [sample(series[one - 1], at, value) for (at, one), value in rows.items()]
        )
        found = scan(connection, grid, [1, 2], [3, 4])
    for one, wanted in expected(rows, grid, {3, 4}).items():
        assert found[one].keys() == wanted.keys()
        for point, values in wanted.items():
            assert found[one][point] == pytest.approx(values)
