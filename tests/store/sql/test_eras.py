"""Samples are moved with the clock, in portions: each once, and none lost."""

import sqlite3
from contextlib import closing
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from belatwist.store import Key
from belatwist.store.sql import eras
from belatwist.store.sql.eras import RestampProgress
from tests.store.databases import fresh

# Close to each other, so that each stands where another one goes; a series' priority may change.
_KEYS = st.dictionaries(
    st.tuples(st.integers(100, 120), st.integers(1, 3)), st.integers(0, 3), max_size=40
)
_STEPS = st.integers(-9, 9).filter(bool)


def make(rows: dict[Key, int], era: int | None = 1) -> sqlite3.Connection:
    """Make a database with samples of an era, and two eras: 1 is open, 2 is of another boot."""
    db = fresh()
    db.executemany(
        "INSERT INTO series VALUES (?, ?, 'box', '{}', 0)", [(n, f"m{n}") for n in range(1, 5)]
    )
    db.executemany(
        "INSERT INTO clock_eras (number, boot_id, offset_ms) VALUES (?, ?, ?)",
        [(1, "boot", 1000), (2, "other", 5)],
    )
    insert(db, rows, era)
    return db


def insert(db: sqlite3.Connection, rows: dict[Key, int], era: int | None) -> None:
    """Insert pending samples; the value tells where each was."""
    db.executemany(
        "INSERT INTO samples VALUES (?, ?, ?, ?, 1, NULL, ?)",
        [(ms, n, ms * 10 + n, priority, era) for (ms, n), priority in rows.items()],
    )
    db.commit()


def move_all(db: sqlite3.Connection) -> tuple[int, int]:
    """Move batch by batch, until there is nothing more."""
    count = dropped = 0
    progress: RestampProgress | None = None
    for _ in range(1000):
        moved = eras.restamp(db.cursor(), progress)
        db.commit()
        count, dropped, progress = count + moved.count, dropped + moved.dropped, moved.progress
        if not moved.more:
            return count, dropped
    raise AssertionError("there is no end to it")


def places(db: sqlite3.Connection, era: int) -> dict[Key, int]:
    """Read where each sample of an era was, by where it is."""
    sql = "SELECT timestamp_ms, series_id, value FROM samples WHERE era = ?"
    return {(ms, n): value for ms, n, value in db.execute(sql, (era,))}


@given(_KEYS, _STEPS, st.lists(_STEPS, max_size=2), st.integers(1, 5))
def test_each_is_moved_once(rows: dict[Key, int], step: int, more: list[int], batch: int) -> None:
    """By one step, or by several that came before the first was over; in batches of any size."""
    with closing(make(rows)) as db, mock.patch.object(eras, "ROWS", batch):
        era = eras.step(db.cursor(), 1, step)
        eras.restamp(db.cursor(), None)
        for another in more:
            era = eras.step(db.cursor(), era, another)
        count, dropped = move_all(db)
        total = step + sum(more)
        assert places(db, era) == {(ms + total, n): ms * 10 + n for ms, n in rows}
        assert dropped == 0
        assert count <= len(rows) * (1 + len(more))
        assert eras.unfinished(db.cursor()) is None


@given(_KEYS, _KEYS, _STEPS, st.integers(1, 5))
def test_others_stay(rows: dict[Key, int], others: dict[Key, int], step: int, batch: int) -> None:
    """What belongs to no era, or to another one, stays; what would come to stand on it goes."""
    others = {key: priority for key, priority in others.items() if key not in rows}
    with closing(make(rows)) as db, mock.patch.object(eras, "ROWS", batch):
        insert(db, others, 2)
        era = eras.step(db.cursor(), 1, step)
        count, dropped = move_all(db)
        expected = {(ms + step, n): ms * 10 + n for ms, n in rows if (ms + step, n) not in others}
        assert places(db, era) == expected
        assert places(db, 2) == {(ms, n): ms * 10 + n for ms, n in others}
        assert (count, dropped) == (len(expected), len(rows) - len(expected))


def test_what_is_settled_stays() -> None:
    """The server has it where it was."""
    with closing(make({(100, 1): 2, (101, 1): 2})) as db:
        db.execute("INSERT INTO upload_checkpoints (id, batch_id, chunk_index) VALUES (1, '', 0)")
        db.execute("UPDATE samples SET checkpoint_id = 1 WHERE timestamp_ms = 100")
        era = eras.step(db.cursor(), 1, 1)
        assert move_all(db) == (1, 0)
        assert places(db, 1) == {(100, 1): 1001}
        assert places(db, era) == {(102, 1): 1011}


def test_an_era_that_is_left_is_closed() -> None:
    """A start finds the new one, and the old one is not moved again."""
    with closing(make({(100, 1): 2})) as db:
        era = eras.step(db.cursor(), 1, 5000)
        assert eras.enter(db.cursor(), "boot", 6000) == era
        move_all(db)
        assert eras.enter(db.cursor(), "boot", 6000) == era
        rows = db.execute("SELECT number, offset_ms, synchronised, moves_to FROM clock_eras")
        assert rows.fetchall() == [(1, 1000, 1, None), (2, 5, 0, None), (3, 6000, 0, None)]


def test_a_step_while_nobody_looked() -> None:
    """A start that finds the clock stepped begins a new era, to which the samples are moved."""
    with closing(make({(100, 1): 2})) as db:
        assert eras.enter(db.cursor(), "boot", 4000) == 3
        assert move_all(db) == (1, 0)
        assert places(db, 3) == {(3100, 1): 1001}


def test_a_portion_is_a_search() -> None:
    """Each is read from the index of what is pending: no scan, no sort."""
    with closing(make({})) as db:
        for sql in (eras._UP, eras._DOWN):
            (plan,) = db.execute(f"EXPLAIN QUERY PLAN {sql}", (0, 0, 0, 9, 9, 1)).fetchall()
            assert plan[3].startswith("SEARCH samples USING INDEX idx_uploaded (priority=?")
