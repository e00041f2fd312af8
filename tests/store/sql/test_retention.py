"""What is deleted: each statement on a database in memory, and how old something is."""

import sqlite3
from contextlib import closing
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.model import Sample, Series, sample
from belatwist.store import MIN_KEY, Key, Row
from belatwist.store.sql import queries, retention
from belatwist.store.sql.expiry import ExpiryClock, Observation
from belatwist.store.sql.retention import MAX_TIMESTAMP, Deleted
from tests.store.databases import (
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

KEEP = 86400.0
HOUR = 3600.0


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are many."""
    monkeypatch.setattr(retention, "ROWS", 3)
    monkeypatch.setattr(retention, "SCAN", 5)


def keys(db: sqlite3.Connection, where: str = "1") -> list[Key]:
    """Read the keys of samples."""
    return db.execute(
        f"SELECT timestamp_ms, series_id FROM samples WHERE {where} ORDER BY 1, 2"
    ).fetchall()


def rows(db: sqlite3.Connection, *timestamps: int) -> list[Row]:
    """Find pending samples by their timestamps."""
    return [row for row in pending(db) if row[0] in timestamps]


def steps(db: sqlite3.Connection, settlement: int) -> list[Deleted]:
    """Delete what was settled up to a settlement, in as many calls as it takes."""
    cursor = db.cursor()
    first, last_ms = retention.span(cursor, settlement)
    after: Key | None = first
    done = []
    while after is not None:
        done.append(retention.delete_settled(cursor, after, last_ms, settlement))
        after = done[-1].after
        assert len(done) < 1000
    return done


def ids(db: sqlite3.Connection, table: str = "upload_checkpoints", column: str = "id") -> list[int]:
    """Read a table's ids."""
    return [row[0] for row in db.execute(f"SELECT {column} FROM {table} ORDER BY 1")]


def test_settled_samples_are_deleted(db: sqlite3.Connection) -> None:
    """Accepted and rejected ones up to the settlement go; later ones and pending ones stay."""
    fill(db, 8)
    settle(db, accept(rows(db, 1, 5)), reject(rows(db, 3), "no"), accept(rows(db, 2)))
    assert [d.count for d in steps(db, 2)] == [3, 0]
    assert keys(db) == [(ms, 1) for ms in (2, 4, 6, 7, 8)]
    assert keys(db, "checkpoint_id IS NOT NULL") == [(2, 1)]


def test_the_oldest_go_first_in_small_steps(db: sqlite3.Connection) -> None:
    """No call deletes more than its limit, and each says what it deleted."""
    fill(db, 8)
    settle(db, accept(pending(db)))
    assert steps(db, 1) == [
        Deleted(3, 1, 3, (3, 1)),
        Deleted(3, 4, 6, (6, 1)),
        Deleted(2, 7, 8, None),
    ]


def test_a_call_looks_at_few_rows(db: sqlite3.Connection) -> None:
    """Among many pending rows a call gives up, and the next one goes on from there."""
    fill(db, 12)
    settle(db, accept(rows(db, 1, 12)))
    assert steps(db, 1) == [
        Deleted(1, 1, 1, (5, 1)),
        Deleted(after=(10, 1)),
        Deleted(1, 12, 12, None),
    ]


def test_old_pending_rows_are_not_looked_at(db: sqlite3.Connection) -> None:
    """Where settled samples are is known from their settlements: what lies before costs nothing."""
    fill(db, 5000)
    settle(db, accept(rows(db, 4991, 4992)), accept(rows(db, 4993, 4995)))
    assert retention.span(db.cursor(), 2) == ((4991, 0), 4995)
    assert retention.span(db.cursor(), 1) == ((4991, 0), 4992)
    assert [d.count for d in steps(db, 2)] == [3, 1]


def test_a_settlement_that_does_not_say_where(db: sqlite3.Connection) -> None:
    """Of a settlement from elsewhere all samples are found, wherever they are."""
    fill(db, 8)
    settle(db, accept(rows(db, 1, 7)))
    db.execute("UPDATE upload_checkpoints SET first_uploaded_timestamp = NULL,"
               " last_uploaded_timestamp = 3")  # fmt: skip
    assert retention.span(db.cursor(), 1) == (MIN_KEY, MAX_TIMESTAMP)
    assert sum(d.count for d in steps(db, 1)) == 2
    retention.delete_settlements(db.cursor(), 1)
    assert steps(db, 1) == [Deleted()]
    assert len(keys(db)) == 6


def test_nothing_settled(db: sqlite3.Connection) -> None:
    """Without settlements there is nothing to look at."""
    fill(db, 8)
    assert retention.newest_settlement(db.cursor()) == 0
    assert steps(db, 0) == [Deleted()]
    assert len(keys(db)) == 8


@pytest.mark.parametrize("statistics", [False, True])
def test_no_statement_scans_the_table(db: sqlite3.Connection, statistics: bool) -> None:
    """Every statement on samples is a search, without a sort."""
    fill(db, 5000, one_priority_each())
    settle(db, accept(pending(db, 2500)))
    if statistics:
        db.execute("ANALYZE")
    statements: list[str] = []
    db.set_trace_callback(statements.append)
    cursor = db.cursor()
    first, last_ms = retention.span(cursor, 1)
    retention.delete_settled(cursor, first, last_ms, 1)
    retention.delete_pending(cursor)
    retention.collect_used(cursor, "samples", MIN_KEY, set(), set())
    db.set_trace_callback(None)
    about = [s for s in statements if " samples" in s]
    assert len(about) == 3 + 1 + 3 + 2
    for statement in about:
        plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert not any(step.startswith("SCAN") for step in plan), (statement, plan)
        assert not any("ORDER BY" in step for step in plan), (statement, plan)


_settlement = st.tuples(st.booleans(), st.lists(st.integers(0, 30), min_size=1, max_size=6))


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=30),
    st.lists(_settlement, max_size=6),
    st.integers(0, 6),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_exactly_what_was_settled_is_deleted(
    stored: list[Key],
    settlements: list[tuple[bool, list[int]]],
    settlement: int,
    limit: int,
    scan: int,
) -> None:
    """Whatever was settled when and in which order: all up to the settlement goes, nothing else."""
    series = one_priority_each()
    with (
        closing(fresh()) as db,
        mock.patch.multiple(retention, ROWS=limit, SCAN=scan),
    ):
        insert(db, [sample(series[which], ms, 0) for ms, which in stored])
        for accepted, chosen in settlements:
            due = pending(db)
            if meant := [due[n] for n in chosen if n < len(due)]:
                settle(db, accept(meant) if accepted else reject(meant, "no"))
        expected = keys(db, f"checkpoint_id IS NULL OR checkpoint_id > {settlement}")
        done = steps(db, settlement)
        assert keys(db) == expected
        assert all(d.count <= limit for d in done)
        deleted = [d for d in done if d.count]
        assert [d.first_ms for d in deleted] == sorted(d.first_ms for d in deleted)


def test_emptied_settlements_are_deleted(db: sqlite3.Connection) -> None:
    """A few at a time, and never the newest: its number would be given again."""
    fill(db, 8)
    for row in pending(db):
        settle(db, accept([row]))
    steps(db, 8)
    counts = [retention.delete_settlements(db.cursor(), 8) for _ in range(4)]
    assert counts == [3, 3, 1, 0]
    assert ids(db) == [8]
    assert steps(db, 8) == [Deleted()]
    fill(db, 9)
    settle(db, accept(rows(db, 9)))
    assert ids(db) == [8, 9]


def test_a_walk_that_ends_early_is_remembered(db: sqlite3.Connection) -> None:
    """What is deleted up to a time is not looked for again; settlements that are empty go."""
    fill(db, 9)
    for timestamps in ((1, 2), (3, 6), (7, 8), (9,)):
        settle(db, accept(rows(db, *timestamps)))
    cursor = db.cursor()
    assert retention.delete_settled(cursor, (1, 0), 9, 4).after == (3, 1)
    retention.note_deleted(cursor, 3)
    assert ids(db) == [2, 3, 4]
    assert retention.span(cursor, 4) == ((3, 0), 9)
    assert retention.delete_settled(cursor, (3, 0), 9, 4).after == (8, 1)
    retention.note_deleted(cursor, 8)
    assert ids(db) == [3, 4]
    assert retention.span(cursor, 4) == ((8, 0), 9)
    assert sum(d.count for d in steps(db, 4)) == 1
    assert keys(db) == [(4, 1), (5, 1)]


def test_pending_samples_go_lowest_priority_first(db: sqlite3.Connection) -> None:
    """The oldest of the lowest priority go first; what is settled is left alone."""
    fill(db, 16, one_priority_each())
    settle(db, accept(rows(db, 1)))
    order = sorted(
        ((-p, *key) for p, *key in db.execute(
            "SELECT priority, timestamp_ms, series_id FROM samples WHERE checkpoint_id IS NULL"
        )),
    )  # fmt: skip
    gone: list[Key] = []
    while (step := retention.delete_pending(db.cursor())).count:
        left = keys(db, "checkpoint_id IS NULL")
        new = [(t, i) for _, t, i in order if (t, i) not in left and (t, i) not in gone]
        assert len(new) == step.count <= 3
        gone += new
        assert [(t, i) for _, t, i in order][: len(gone)] == gone
    assert keys(db) == [(1, 1)]
    assert queries.count_pending(db.cursor()) == 0


def test_old_texts_are_deleted(db: sqlite3.Connection) -> None:
    """By their own time, which is the only one they have."""
    insert(db, [Sample(STATE, ms, "x") for ms in range(1, 8)])
    cursor = db.cursor()
    assert retention.delete_texts(cursor, 6) == Deleted(3, 1, 3, (3, 1))
    assert retention.delete_texts(cursor, 6) == Deleted(2, 4, 5, None)
    assert retention.delete_texts(cursor, 6) == Deleted()
    assert ids(db, "texts", "timestamp_ms") == [6, 7]


def test_the_size(db: sqlite3.Connection) -> None:
    """Free pages are not used, and only they."""
    fill(db, 5000)
    full = retention.size(db.cursor())
    assert full.free == 0
    assert full.used == full.file > 100_000
    db.execute("DELETE FROM samples")
    empty = retention.size(db.cursor())
    assert empty.file == full.file
    assert empty.used == empty.file - empty.free < 80_000


def used(db: sqlite3.Connection) -> tuple[set[int], set[int]]:
    """Find sessions and series that are used."""
    sessions: set[int] = set()
    series: set[int] = set()
    for table in ("samples", "texts"):
        after: Key | None = MIN_KEY
        while after is not None:
            after = retention.collect_used(db.cursor(), table, after, sessions, series)
    return sessions, series


def test_sessions_without_samples_are_deleted(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the latest, those that have samples or texts, and those that ended lately."""
    monkeypatch.setattr(retention, "SESSIONS", 2)
    assert not retention.needs_cleanup(db.cursor())
    for number in range(2, 13):
        db.execute(
            "INSERT INTO sessions VALUES (?, ?, 1000, ?, 'completed', '{}')",
            (number, f"s{number}", 5000 if number != 7 else 9000),
        )
    queries.insert(db.cursor(), [sample(LOAD, ms, 0) for ms in range(10)], {}, 3)
    queries.insert(db.cursor(), [Sample(STATE, 1, "x")], {}, 4)
    assert retention.needs_cleanup(db.cursor())
    sessions, _ = used(db)
    assert sessions == {3, 4}
    counts = [retention.delete_sessions(db.cursor(), sessions, 6000) for _ in range(3)]
    assert counts == [3, 3, 0]
    assert ids(db, "sessions", "number") == [1, 3, 4, 7, 11, 12]


def test_series_without_samples_are_deleted_when_there_are_many(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the limit all stay; above, those without samples go, but for the last one."""
    many = [Series.of("m", "box", {"n": str(n)}) for n in range(8)]
    insert(db, [sample(one, ms, 0) for ms, one in enumerate(many, start=1)])
    insert(db, [Sample(STATE, 20, "x")])
    settle(db, accept(rows(db, 1, 2, 3, 4, 6, 7, 8)))
    steps(db, 1)
    _, series = used(db)
    assert series == {5, 9}
    assert retention.delete_series(db.cursor(), series) == 0
    monkeypatch.setattr(retention, "SERIES", 3)
    assert retention.needs_cleanup(db.cursor())
    assert [retention.delete_series(db.cursor(), series) for _ in range(3)] == [3, 3, 0]
    assert ids(db, "series") == [1, 5, 9]


def test_a_series_id_is_given_once(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A series that was deleted and comes back gets a new id."""
    monkeypatch.setattr(retention, "SERIES", 0)
    insert(db, [sample(LOAD, 1, 0), sample(CORE, 2, 0)])
    db.execute("DELETE FROM samples")
    assert retention.delete_series(db.cursor(), set()) == 1
    insert(db, [sample(LOAD, 3, 0)])
    assert dict(db.execute("SELECT name, id FROM series")) == {CORE.name: 2, LOAD.name: 3}


class Clocks:
    """Marks of a run; time passes on the monotonic clock, the wall clock is set at will."""

    def __init__(self, db: sqlite3.Connection, wall_ms: int, keep: float = KEEP) -> None:
        self.cursor = db.cursor()
        self.seconds = 1000.0
        self.wall_ms = wall_ms
        self.ages = ExpiryClock(keep, self.mark())

    def mark(self) -> Observation:
        """Return the present."""
        return Observation(self.seconds, retention.newest_settlement(self.cursor), self.wall_ms)

    def upload(self, upload_time: int | None = None) -> int:
        """Make a settlement, and return its number."""
        self.cursor.execute(
            "INSERT INTO upload_checkpoints (batch_id, chunk_index, upload_time) VALUES ('', 0, ?)",
            (self.wall_ms if upload_time is None else upload_time,),
        )
        return int(self.cursor.lastrowid or 0)

    def wait(self, seconds: float, every: float = 600.0) -> None:
        """Let time pass, with a look every ten minutes."""
        end = self.seconds + seconds
        while self.seconds < end:
            passed = min(every, end - self.seconds)
            self.seconds += passed
            self.wall_ms += round(passed * 1000)
            self.ages.observe(self.mark())

    def old(self) -> int:
        """Return the last settlement that is old enough."""
        return self.ages.bounds(self.cursor, self.mark())[0]

    def before(self) -> int:
        """Return the time before which texts are old enough."""
        return self.ages.bounds(self.cursor, self.mark())[1]


NOW = 1_800_000_000_000
YEARS_50 = 50 * 365 * 86_400_000


def test_age_in_this_run(db: sqlite3.Connection) -> None:
    """A settlement is old enough after its time, and little later: by the marks' distance."""
    clocks = Clocks(db, NOW)
    clocks.wait(HOUR)
    first = clocks.upload()
    clocks.wait(HOUR)
    second = clocks.upload()
    clocks.wait(KEEP - HOUR - 1)
    assert clocks.old() == 0
    clocks.wait(1201)
    assert clocks.old() == first
    clocks.wait(HOUR - 1201)
    assert clocks.old() == first
    clocks.wait(1201)
    assert clocks.old() == second


@pytest.mark.parametrize("jump_ms", [YEARS_50, -YEARS_50, 7_200_000, -7_200_000])
def test_the_clock_jumps_in_this_run(db: sqlite3.Connection, jump_ms: int) -> None:
    """Wherever the clock is set, what was uploaded is kept for its time, and no longer."""
    clocks = Clocks(db, NOW)
    clocks.wait(2 * HOUR)
    before = clocks.upload()
    clocks.wall_ms += jump_ms
    after = clocks.upload()
    clocks.wait(KEEP - 2 * HOUR)
    assert clocks.old() == 0
    clocks.wait(2 * HOUR + 1201)
    assert clocks.old() == after > before


def test_an_earlier_run_is_judged_by_the_wall_clock(db: sqlite3.Connection) -> None:
    """Once this run is an hour old, and the clock had its time to be set."""
    clocks = Clocks(db, NOW)
    old = clocks.upload(NOW - 25 * 3_600_000)
    clocks.upload(NOW - 22 * 3_600_000)
    clocks = Clocks(db, NOW)
    clocks.wait(HOUR - 1)
    assert clocks.old() == 0
    clocks.wait(1)
    assert clocks.old() == old
    clocks.upload(0)
    assert clocks.old() == old


def test_an_upload_in_the_future(db: sqlite3.Connection) -> None:
    """A time of upload that is still to come keeps nothing longer than what came after it."""
    clocks = Clocks(db, NOW)
    clocks.upload(NOW + YEARS_50)
    clocks.upload(NOW + YEARS_50)
    later = clocks.upload(NOW - 25 * 3_600_000)
    clocks = Clocks(db, NOW)
    clocks.wait(HOUR)
    assert clocks.old() == later


def test_an_upload_in_the_future_and_nothing_after_it(db: sqlite3.Connection) -> None:
    """It goes when this run has lasted as long as it is to be kept."""
    clocks = Clocks(db, NOW)
    last = clocks.upload(NOW + YEARS_50)
    clocks = Clocks(db, NOW)
    clocks.wait(KEEP - 1)
    assert clocks.old() == 0
    clocks.wait(1)
    assert clocks.old() == last


def test_a_clock_that_begins_in_1970(db: sqlite3.Connection) -> None:
    """A boot without a clock deletes nothing that the set clock would not."""
    clocks = Clocks(db, NOW)
    clocks.upload(NOW)
    clocks = Clocks(db, 0)
    clocks.wait(600)
    clocks.wall_ms = NOW + 660_000
    clocks.wait(2 * HOUR)
    assert clocks.old() == 0


def test_texts(db: sqlite3.Connection) -> None:
    """They are judged by what the clock said then; of this run only when it has lasted so long."""
    clocks = Clocks(db, NOW)
    clocks.wait(HOUR)
    assert clocks.before() == NOW + 3_600_000 - round(KEEP * 1000)
    clocks.wall_ms += YEARS_50
    assert clocks.before() == NOW
    clocks.wall_ms -= YEARS_50
    clocks.wait(KEEP)
    latest = clocks.before()
    assert NOW + 2_400_000 <= latest <= NOW + 3_600_000
    clocks.wall_ms += YEARS_50
    assert clocks.before() == latest
    clocks.wait(2 * KEEP)
    clocks.wall_ms -= YEARS_50
    assert clocks.before() == clocks.wall_ms - round(KEEP * 1000)


def test_another_database(db: sqlite3.Connection) -> None:
    """When numbers begin anew nothing is known of any age."""
    clocks = Clocks(db, NOW)
    for _ in range(5):
        clocks.upload()
    clocks.wait(KEEP)
    db.execute("DELETE FROM upload_checkpoints")
    clocks.upload()
    assert clocks.ages.observe(clocks.mark())
    assert not clocks.ages.observe(clocks.mark())
    assert clocks.old() == 0
    clocks.wait(KEEP)
    assert clocks.old() == 1


@pytest.mark.parametrize("keep", [1.0, KEEP, 87600 * HOUR])
def test_few_marks_are_kept(db: sqlite3.Connection, keep: float) -> None:
    """However long the run, and however often it is looked."""
    clocks = Clocks(db, NOW, keep)
    for _ in range(5000):
        clocks.seconds += max(10.0, keep / 1000)
        clocks.ages.observe(clocks.mark())
        clocks.old()
    assert len(clocks.ages._observations) <= 102
