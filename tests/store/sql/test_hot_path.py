"""The uploader's query and the index that serves it, at any size of the table."""

import sqlite3

import pytest

from belatwist.model import Sample
from belatwist.store.sql import queries
from tests.store.databases import (
    STATE,
    accept,
    fill,
    insert,
    one_priority_each,
    pending,
    reject,
    settle,
)


def assert_searched(db: sqlite3.Connection) -> None:
    """The uploader's query is a search of ``idx_uploaded``: no scan, no sort."""
    plan = [
        row[3]
        for row in db.execute(f"EXPLAIN QUERY PLAN {queries.PENDING}", (-1, 0, 0, 2**62, 2500))
    ]
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH ")
    assert "idx_uploaded" in plan[0]
    assert "SCAN" not in plan[0]
    assert "TEMP B-TREE" not in plan[0]


def entries(db: sqlite3.Connection) -> int:
    """Count what ``idx_uploaded`` holds, on its pages: a leaf's cells are its entries, and in an
    index's tree an inner page's are entries, too.
    """
    try:
        (count,) = db.execute(
            "SELECT sum(ncell) FROM dbstat WHERE name = 'idx_uploaded'"
        ).fetchone()
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite was built without dbstat: {error}")
    return int(count)


@pytest.mark.parametrize("count", [0, 1, 50_000])
def test_the_hot_path_is_a_search(db: sqlite3.Connection, count: int) -> None:
    """The plan is the same for any number of rows, settled or not, with statistics or without."""
    fill(db, count, one_priority_each())
    assert_searched(db)
    db.execute("ANALYZE")
    assert_searched(db)
    if count:
        settle(db, accept(pending(db)[: count - count // 100]))
        assert_searched(db)
        db.execute("ANALYZE")
        assert_searched(db)


def test_the_index_holds_only_what_is_pending(db: sqlite3.Connection) -> None:
    """What is settled leaves the index, so that it stays small however large the table is."""
    fill(db, 50_000)
    assert entries(db) == 50_000
    settle(db, accept(pending(db, 49_990)))
    assert entries(db) == 10
    settle(db, reject(pending(db), "no"))
    assert entries(db) == 0
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_texts_are_not_in_the_index(db: sqlite3.Connection) -> None:
    """A text costs the uploader's query nothing."""
    insert(db, [Sample(STATE, n, "x") for n in range(1, 100)])
    assert entries(db) == 0
