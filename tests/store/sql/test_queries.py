"""Every statement on samples, on a database in memory."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.model import Sample, Series, sample
from belatwist.store.sql import queries
from tests import strategies
from tests.store.databases import (
    BATCH,
    CORE,
    LOAD,
    STATE,
    accept,
    fill,
    fresh,
    insert,
    one_priority_each,
    pending,
    reject,
    settle,
)

CHECKPOINT = (
    "SELECT batch_id, chunk_index, last_uploaded_id, last_uploaded_timestamp, upload_time,"
    " metrics_count, outcome, reason FROM upload_checkpoints ORDER BY id"
)


def states(db: sqlite3.Connection) -> dict[int, int | None]:
    """What became of each sample, by its timestamp."""
    return dict(db.execute("SELECT timestamp_ms, uploaded FROM metrics").fetchall())


def test_insert_counts_the_new_ones(db: sqlite3.Connection) -> None:
    """A sample that is known, in the table or earlier in the same call, is ignored."""
    assert insert(db, [sample(LOAD, 1, 1), sample(CORE, 1, 1)]) == 2
    assert insert(db, [sample(LOAD, 1, 1), sample(LOAD, 2, 2), sample(LOAD, 2, 3)]) == 1
    assert insert(db, [sample(LOAD, 2, 9)]) == 0
    assert insert(db, []) == 0
    assert pending(db) == [(1, 2, 1), (1, 1, 1), (2, 1, 2)]


def test_insert_does_not_reopen_what_was_sent(db: sqlite3.Connection) -> None:
    """A sample that comes again after its upload stays uploaded, with its first value."""
    insert(db, [sample(LOAD, 1, 1)])
    settle(db, accept([(1, 1, 1)]))
    assert insert(db, [sample(LOAD, 1, 2)]) == 0
    assert pending(db) == []
    assert db.execute("SELECT metric_value, uploaded FROM metrics").fetchall() == [(1.0, 1)]


def test_texts_are_kept_and_never_pending(db: sqlite3.Connection) -> None:
    """Texts are stored beside the numbers, counted as no pending sample, and never fetched."""
    mixed = [Sample(STATE, 1, "connected"), sample(LOAD, 1, 1), Sample(STATE, 2, "lost")]
    assert insert(db, mixed) == 1
    assert insert(db, [Sample(STATE, 2, "again"), Sample(STATE, 3, "lost")]) == 0
    assert queries.count_pending(db.cursor()) == 1
    assert pending(db) == [(1, 2, 1)]
    texts = "SELECT timestamp_ms, value_text, uploaded FROM metrics WHERE value_type = 1"
    assert sorted(db.execute(texts).fetchall()) == [
        (1, "connected", None),
        (2, "lost", None),
        (3, "lost", None),
    ]


def test_a_text_and_a_number_of_one_name_are_two_samples(db: sqlite3.Connection) -> None:
    """The type is part of the identity: neither hides the other."""
    number = Series.of(STATE.name, STATE.device_id)
    assert insert(db, [sample(number, 1, 1), Sample(STATE, 1, "one")]) == 1
    assert db.execute("SELECT count(DISTINCT id), count(*) FROM metrics").fetchone() == (2, 2)


def test_new_series_are_reported(db: sqlite3.Connection) -> None:
    """The ids of series that the caller does not know come back; known ones are not looked up."""
    cursor = db.cursor()
    assert queries.insert(cursor, [sample(LOAD, 1, 1)], {}, 1) == (1, {LOAD: 1}, [])
    assert queries.insert(cursor, [sample(LOAD, 2, 1), sample(CORE, 2, 1)], {LOAD: 1}, 1) == (
        2,
        {CORE: 2},
        [],
    )
    assert queries.insert(cursor, [sample(LOAD, 3, 1)], {}, 1) == (1, {LOAD: 1}, [])
    assert queries.insert(cursor, [sample(CORE, 4, 1)], {LOAD: 1, CORE: 2}, 1) == (1, {}, [])


@given(st.lists(strategies.series(), min_size=1, max_size=8))
def test_series_round_trip(many: list[Series]) -> None:
    """Equal series have one id, different ones their own; an id gives its series back."""
    with closing(fresh()) as db:
        ids = {one: queries.series_id(db.cursor(), one) for one in many}
        assert len(set(ids.values())) == len(set(many))
        assert queries.series_of(db.cursor(), ids.values()) == {i: s for s, i in ids.items()}
        assert [queries.series_id(db.cursor(), one) for one in many] == [ids[one] for one in many]


@given(st.lists(strategies.numbers, min_size=1, max_size=20))
def test_values_round_trip(values: list[float]) -> None:
    """Every finite number comes back as it was, in any form that SQLite keeps."""
    with closing(fresh()) as db:
        insert(db, [sample(LOAD, n, value) for n, value in enumerate(values)])
        assert [row[2] for row in pending(db)] == values
        assert db.execute("SELECT metric_value FROM metrics ORDER BY id").fetchall() == [
            (value,) for value in values
        ]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (2.0, "2"),
        (-0.0, "0"),
        (float(2**53 + 2), "9007199254740994"),
        (2.0**62, "4611686018427387904"),
        (2.0**63, "9.223372036854776e+18"),
        (-(2.0**63), "-9.223372036854776e+18"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (0.1, "0.1"),
    ],
)
def test_form_of_values(db: sqlite3.Connection, value: float, stored: str) -> None:
    """A whole number comes back as an integer, which is shorter on disk and on the wire."""
    insert(db, [sample(LOAD, 1, value)])
    assert repr(pending(db)[0][2]) == stored


def test_pending_order(db: sqlite3.Connection) -> None:
    """Pending samples come by priority, then timestamp, then id."""
    series = one_priority_each()
    insert(db, [sample(one, ms, 0) for ms in (30, 10, 20) for one in series])
    twin = Series.of("m", "box", {"p": "twin"}, priority=0)
    insert(db, [sample(twin, 20, 0)])
    assert [(row[1], row[0]) for row in pending(db)] == [
        *((4, 10), (4, 20), (5, 20), (4, 30)),
        *((3, 10), (3, 20), (3, 30)),
        *((2, 10), (2, 20), (2, 30)),
        *((1, 10), (1, 20), (1, 30)),
    ]


def test_pending_limit(db: sqlite3.Connection) -> None:
    """No more are read than asked for: the first ones of that order."""
    fill(db, 20, one_priority_each())
    everything = pending(db)
    assert len(everything) == 20
    for limit in (1, 5, 19, 20, 21):
        assert pending(db, limit) == everything[:limit]


def test_pending_until(db: sqlite3.Connection) -> None:
    """Samples with a later time than the limit are left out, at any priority."""
    fill(db, 8, one_priority_each())
    for until in (0, 1, 4, 8, 9):
        assert {row[0] for row in pending(db, until_ms=until)} == set(range(1, min(until, 8) + 1))


def test_settle_marks_only_those_rows(db: sqlite3.Connection) -> None:
    """What was accepted or rejected no longer waits; its neighbours do."""
    fill(db, 6)
    rows = pending(db)
    assert settle(db, accept(rows[:2]), reject(rows[4:5], "HTTP 422", 1)) == 3
    assert states(db) == {1: 1, 2: 1, 3: 0, 4: 0, 5: 2, 6: 0}
    assert pending(db) == [rows[2], rows[3], rows[5]]
    assert queries.count_pending(db.cursor()) == 3


def test_settle_goes_by_the_key(db: sqlite3.Connection) -> None:
    """Samples of another series at the same time, or of the same at another, are not meant."""
    insert(db, [sample(one, ms, 0) for ms in (1, 2) for one in (LOAD, CORE)])
    assert settle(db, accept([(1, 2, 0)])) == 1
    assert sorted(pending(db)) == [(1, 1, 0), (2, 1, 0), (2, 2, 0)]


def test_settle_takes_a_stretch_at_once(db: sqlite3.Connection) -> None:
    """Samples between which there is nothing else are marked by one statement, if nothing was
    written since they were read; each of them otherwise.
    """
    fill(db, 6)
    rows = pending(db)
    statements: list[str] = []
    db.set_trace_callback(statements.append)

    def marks() -> int:
        found = sum(one.lstrip().startswith("UPDATE samples") for one in statements)
        statements.clear()
        return found

    assert settle(db, replace(accept(rows[:2]), as_of=0)) == 2
    assert marks() == 1
    assert settle(db, replace(accept(rows[2:6:2]), as_of=0)) == 2
    assert marks() == 2
    assert settle(db, replace(reject(rows[3:4], "no"), as_of=0)) == 1
    assert marks() == 1
    assert settle(db, replace(accept(rows[5:]), as_of=0)) == 1
    assert states(db) == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 1}


def test_a_stretch_is_of_nothing_else(db: sqlite3.Connection) -> None:
    """A settlement that comes twice in a call marks nothing that stands between its samples."""
    insert(db, [sample(CORE, 1, 1), sample(LOAD, 2, 2), sample(LOAD, 3, 3), sample(CORE, 4, 4)])
    settlement = replace(accept(pending(db, 2)), as_of=0)
    assert settle(db, settlement, settlement) == 2
    assert states(db) == {1: 1, 2: 0, 3: 0, 4: 1}


@pytest.mark.parametrize("statement", [queries.COUNT_RANGE, queries.MARK_RANGE])
def test_a_stretch_is_found_by_its_ends(db: sqlite3.Connection, statement: str) -> None:
    """However large the table is, no more of it is read than the stretch."""
    fill(db, 2)
    db.execute("ANALYZE")
    given = range(statement.count("?"))
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", list(given))]
    searches = [line for line in plan if line.startswith("SEARCH samples USING PRIMARY KEY")]
    assert len(searches) == 1
    assert searches[0].count("timestamp_ms") == 2
    assert not any("SCAN samples" in line for line in plan)


def test_settle_looks_for_each_sample_after_a_write(db: sqlite3.Connection) -> None:
    """Whoever has not read what is there now may mean samples that are others by now."""
    fill(db, 2)
    (first, second) = pending(db)
    other = (*second[:2], second[2] + 1)
    assert settle(db, replace(accept([first, other]), as_of=-1)) == 1
    assert pending(db) == [second]


def test_settle_writes_settlements(db: sqlite3.Connection) -> None:
    """A settlement has its chunk, its last sample, its time and its count."""
    fill(db, 5, [LOAD, CORE])
    rows = pending(db)
    assert [row[0] for row in rows] == [2, 4, 1, 3, 5]
    settle(db, accept(rows[:3], 7), now_ms=1234)
    settle(db, reject(rows[3:], "too many labels", 8), now_ms=1235)
    assert db.execute(CHECKPOINT).fetchall() == [
        (BATCH, 7, (4 << 20) + 2, 4, 1234, 3, 1, None),
        (BATCH, 8, (5 << 20) + 1, 5, 1235, 2, 2, "too many labels"),
    ]
    ids = "SELECT id FROM metrics WHERE chunk_index = ? ORDER BY id DESC LIMIT 1"
    assert db.execute(ids, (7,)).fetchone() == ((4 << 20) + 2,)
    assert db.execute(ids, (8,)).fetchone() == ((5 << 20) + 1,)


def test_settle_is_one_transaction(db: sqlite3.Connection) -> None:
    """When one settlement cannot be recorded, none is: no mark, no row."""
    fill(db, 4)
    rows = pending(db)
    db.execute(
        "CREATE TRIGGER fault BEFORE INSERT ON upload_checkpoints WHEN NEW.chunk_index = 1"
        " BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
    )
    with pytest.raises(sqlite3.IntegrityError, match="disk I/O error"):
        settle(db, accept(rows[:2], 0), accept(rows[2:], 1))
    assert pending(db) == rows
    assert db.execute(CHECKPOINT).fetchall() == []


def test_settling_twice_changes_no_sample(db: sqlite3.Connection) -> None:
    """The first settlement stands: a later one, the same or another, moves no sample."""
    fill(db, 3)
    rows = pending(db)[:2]
    settle(db, accept(rows, 4))
    before = db.execute("SELECT * FROM metrics ORDER BY id").fetchall()
    assert settle(db, accept(rows, 4)) == 0
    assert settle(db, reject(rows, "HTTP 400", 5)) == 0
    assert db.execute("SELECT * FROM metrics ORDER BY id").fetchall() == before


def test_rejected_samples_have_their_reason(db: sqlite3.Connection) -> None:
    """Why a sample was rejected can be read beside it."""
    fill(db, 1)
    settle(db, reject([(1, 1, 0)], "HTTP 422: bad"))
    assert db.execute(
        "SELECT m.uploaded, c.reason FROM metrics m JOIN upload_checkpoints c"
        " USING (batch_id, chunk_index)"
    ).fetchall() == [(2, "HTTP 422: bad")]


def test_count_pending(db: sqlite3.Connection) -> None:
    """Exactly what would be fetched without a limit is counted."""
    assert queries.count_pending(db.cursor()) == 0
    fill(db, 7, one_priority_each())
    assert queries.count_pending(db.cursor()) == 7
    settle(db, accept(pending(db)))
    assert queries.count_pending(db.cursor()) == 0


def sessions(db: sqlite3.Connection) -> dict[str, tuple[int, int | None, str]]:
    """Start, end and status of each session."""
    rows = db.execute("SELECT id, start_time, end_time, status FROM sessions").fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def test_a_session_completes(db: sqlite3.Connection) -> None:
    """A session that ends is completed at that time; beginning another leaves it alone."""
    queries.end_session(db.cursor(), 1, 2000)
    assert queries.begin_session(db.cursor(), "s2", 3000, '{"pid":1}') == (2, [])
    assert sessions(db) == {"s1": (1000, 2000, "completed"), "s2": (3000, None, "active")}
    assert db.execute("SELECT metadata FROM sessions WHERE id = 's2'").fetchone() == ('{"pid":1}',)


def test_a_crashed_session_failed_at_its_last_sample(db: sqlite3.Connection) -> None:
    """A session that is still active when the next begins failed when it last stored something."""
    insert(db, [sample(LOAD, 1500, 1), sample(CORE, 1700, 1), sample(LOAD, 1600, 1)])
    assert queries.begin_session(db.cursor(), "s2", 9000, "{}") == (2, ["s1"])
    assert sessions(db) == {"s1": (1000, 1700, "failed"), "s2": (9000, None, "active")}


def test_a_crashed_session_without_samples_failed_as_it_began(db: sqlite3.Connection) -> None:
    """Without a sample, not even another session's later one, the start is all that is known."""
    queries.begin_session(db.cursor(), "s2", 3000, "{}")
    queries.insert(db.cursor(), [sample(LOAD, 4000, 1)], {}, 2)
    assert queries.begin_session(db.cursor(), "s3", 9000, "{}") == (3, ["s2"])
    assert sessions(db) == {
        "s1": (1000, 1000, "failed"),
        "s2": (3000, 4000, "failed"),
        "s3": (9000, None, "active"),
    }


def test_several_crashed_sessions_all_fail(db: sqlite3.Connection) -> None:
    """However many are still active, each is reported, and ended at its own last sample."""
    db.execute("INSERT INTO sessions VALUES (2, 's2', 2000, NULL, 'active', '{}')")
    insert(db, [sample(LOAD, 1500, 1)])
    queries.insert(db.cursor(), [sample(LOAD, 2500, 1)], {}, 2)
    assert queries.begin_session(db.cursor(), "s3", 9000, "{}") == (3, ["s1", "s2"])
    assert sessions(db) == {
        "s1": (1000, 1500, "failed"),
        "s2": (2000, 2500, "failed"),
        "s3": (9000, None, "active"),
    }


def test_nothing_is_committed_by_a_query(tmp_path: Path) -> None:
    """The functions leave the transaction to their caller: a rollback undoes all of it."""
    with closing(fresh(tmp_path / "metrics.db")) as db:
        cursor = db.cursor()
        queries.insert(cursor, [sample(LOAD, 1, 1)], {}, 1)
        queries.settle(cursor, [accept([(1, 1, 1)])], 1, 0)
        queries.begin_session(cursor, "s2", 1, "{}")
        assert db.in_transaction
        db.rollback()
        assert pending(db) == []
        assert db.execute("SELECT count(*) FROM series").fetchone() == (0,)
        assert sessions(db) == {"s1": (1000, None, "active")}
