"""The real store against a model, through any sequence of operations that hypothesis makes."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.defer import Deferred

from belatwist.clock.sources import STEP_MS
from belatwist.model import TEXT, Sample, Series
from belatwist.store import Batch, Position, Row
from belatwist.store.sql import eras, retention
from tests.fakes import inline_store
from tests.store.databases import accept, reject

BASE = 1_000_000_000
ROWS = 3
"""What retention deletes at once, and what is moved of each priority at once, here."""

SERIES = [
    *(Series.of("m", "box", {"n": str(n)}, priority=n % 3) for n in range(4)),
    Series.of("state", "box", value_type=TEXT),
]

Place = tuple[int, int]
"""A sample's time, and its series by its place in :data:`SERIES`."""

TIMES = st.integers(0, 12).map(lambda n: BASE + 250 * n)
SAMPLES = st.lists(
    st.tuples(st.integers(0, len(SERIES) - 1), TIMES, st.integers(0, 10**6)), max_size=8
)
# Multiples of what lies between two samples, so that moved ones meet others.
STEPS = st.sampled_from([-5000, -1250, -750, -500, 500, 1000, 1750, 5000])
BOOTS = st.sampled_from(["one", "two", ""])


@dataclass
class Known:
    """What the model knows of a sample; ``outcome`` as in the view ``metrics``."""

    value: float
    priority: int
    era: int | None
    outcome: int = 0


@dataclass
class Era:
    """What the model knows of a clock era; ``to`` is the one into which its samples are to go."""

    boot: str
    offset: int
    closed: bool = False
    to: int | None = None


class Failing:
    """A connection whose next commit fails, as on a full disk."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.fail = False

    def commit(self) -> None:
        """Commit, or fail to."""
        if self.fail:
            self.fail = False
            raise sqlite3.OperationalError("database or disk is full")
        self.connection.commit()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def result(deferred: "Deferred[Any]") -> Any:
    """Return what a Deferred, which has fired, holds."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert found, "it has not fired"
    value = found[0]
    if hasattr(value, "raiseException"):
        value.raiseException()
    return value


class StoreMachine(RuleBasedStateMachine):
    """The store, and next to it a dictionary that says what must be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "metrics.db"
        self.rows = [mock.patch.object(one, "ROWS", ROWS) for one in (retention, eras)]
        for one in self.rows:
            one.start()
        self.known: dict[Place, Known] = {}
        self.texts: dict[Place, float] = {}
        self.ids: dict[int, int] = {}
        self.eras: list[Era] = []
        self.era: int | None = None
        self.boot, self.offset = "one", 0
        self.held: list[Batch] = []
        self.after: Position | None = None
        self.fail_next = False
        self.sessions = 0

    @initialize()
    def begin(self) -> None:
        """Open a store for the first time."""
        self.open()

    def teardown(self) -> None:
        """Close it, and let go of the folder."""
        for one in self.rows:
            one.stop()
        result(Deferred.fromCoroutine(self.store.close(BASE)))
        self.folder.cleanup()

    def open(self) -> None:
        """Open the database, as a start does."""
        self.sessions += 1
        self.store = inline_store(self.path)
        result(Deferred.fromCoroutine(self.store.open(f"s{self.sessions}", BASE)))
        self.held, self.after, self.era = [], None, None
        self.enter()

    def do(self, call: "Callable[[], Deferred[Any]]") -> Any:
        """Do something; where its commit is to fail, it is done again, as the buffer does."""
        if self.fail_next:
            self.fail_next = False
            ((number, one),) = self.store.database._pool.connections.items()
            failing = one if isinstance(one, Failing) else Failing(one)
            self.store.database._pool.connections[number] = failing
            failing.fail = True
            try:
                result(call())
            except sqlite3.OperationalError:
                pass
            else:
                raise AssertionError("it should have failed")
        return result(call())

    def enter(self) -> None:
        """Find out about this boot's clock."""
        found = None
        for number, era in enumerate(self.eras, start=1):
            if era.boot == self.boot:
                found = number
        good = self.do(lambda: self.store.enter_era(self.boot, self.offset))
        if found is not None and self.boot:
            last = self.eras[found - 1]
            stepped = self.offset - last.offset
            if abs(stepped) < STEP_MS:
                self.era = None if last.closed else found
                assert good is last.closed
                return
            if not last.closed:
                assert not good
                self.leave(found, stepped)
                return
        assert not good
        self.begin_era(self.offset)

    def begin_era(self, offset: int) -> None:
        """Begin an era."""
        self.eras.append(Era(self.boot, offset))
        self.era = len(self.eras)

    def leave(self, era: int, step: int) -> None:
        """Go on in a new era, into which the samples of the one before are to be moved."""
        self.begin_era(self.eras[era - 1].offset + step)
        self.eras[era - 1].to = self.era

    def unfinished(self) -> int | None:
        """Return the first era whose samples are to be moved."""
        numbers = (number for number, era in enumerate(self.eras, start=1) if era.to is not None)
        return next(numbers, None)

    def waiting(self, number: int) -> list[Place]:
        """Return which samples of an era are to be moved, in the order in which that can be done:
        none takes the place of another one.
        """
        era = self.eras[number - 1]
        assert era.to is not None
        forward = self.eras[era.to - 1].offset > era.offset
        places = [k for k, v in self.known.items() if v.era == number and not v.outcome]
        return sorted(places, key=lambda at: (at[0], self.ids[at[1]]), reverse=forward)

    def move(self, number: int, count: int | None = None) -> tuple[int, int]:
        """Move the model's samples of an era, all or the first ones.

        :return: how many were moved, and how many had to go.
        """
        era = self.eras[number - 1]
        assert era.to is not None
        step = self.eras[era.to - 1].offset - era.offset
        moving = [(place, self.known[place]) for place in self.waiting(number)[:count]]
        for place, _ in moving:
            del self.known[place]
        placed = 0
        for (ms, n), one in moving:
            if (ms + step, n) not in self.known:
                self.known[ms + step, n] = Known(one.value, one.priority, era.to)
                placed += 1
        if count is None:
            era.to, era.closed = None, True
        return placed, len(moving) - placed

    # What happens.

    @rule()
    def disk_full(self) -> None:
        """The next change cannot be committed at its first try."""
        self.fail_next = True

    @rule(samples=SAMPLES)
    def add(self, samples: list[tuple[int, int, int]]) -> None:
        """A tick comes."""
        new = 0
        made = [
            Sample(SERIES[n], ms, str(v) if SERIES[n].value_type == TEXT else float(v))
            for n, ms, v in samples
        ]
        for n, _, _ in samples:
            self.ids.setdefault(n, len(self.ids) + 1)
        numbers = [(n, ms, v) for n, ms, v in samples if SERIES[n].value_type != TEXT]
        for n, ms, v in samples:
            if SERIES[n].value_type == TEXT:
                self.texts.setdefault((ms, n), v)
        for _ in range(2):
            for n, ms, v in numbers:
                if (ms, n) not in self.known:
                    self.known[ms, n] = Known(v, SERIES[n].priority, self.era)
                    new += 1
            if new == len(numbers) or self.unfinished() is None:
                break
            # What is in the way may be there only until it is moved.
            while (number := self.unfinished()) is not None:
                self.move(number)
        assert self.do(lambda: self.store.add(made)) == new

    def expected(self, until_ms: int, after: Position) -> list[tuple[Position, Row]]:
        rows = [
            ((one.priority, ms, self.ids[n]), (ms, self.ids[n], one.value))
            for (ms, n), one in self.known.items()
            if not one.outcome and ms <= until_ms
        ]
        return sorted(row for row in rows if row[0] > after)

    @rule(limit=st.integers(1, 10), until=TIMES | st.just(2**50), go_on=st.booleans())
    def fetch(self, limit: int, until: int, go_on: bool) -> None:
        """The uploader reads a batch, and has it in flight from now on."""
        after = self.after if go_on else None
        batch = result(self.store.fetch(limit, until, after))
        wanted = self.expected(until, after or (-1, 0, 0))[:limit]
        if self.unfinished() is not None:
            wanted = []  # Some of it is not where it belongs.
        assert list(batch.rows) == [row for _, row in wanted]
        assert batch.last == (wanted[-1][0] if wanted else None)
        for _, number, _ in batch.rows:
            assert self.ids[SERIES.index(batch.series[number])] == number
        self.after = batch.last
        if batch.rows:
            self.held.append(batch)

    @rule(limit=st.integers(1, 10), until=TIMES | st.just(2**50))
    def fetch_newest(self, limit: int, until: int) -> None:
        """The uploader reads the newest."""
        batch = result(self.store.fetch_newest(limit, until))
        wanted = sorted(row for _, row in self.expected(until, (-1, 0, 0)))[-limit:]
        if self.unfinished() is not None:
            wanted = []
        assert list(batch.rows) == wanted
        if batch.rows:
            self.held.append(batch)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), good=st.booleans(), twice=st.booleans(), every=st.integers(1, 2))
    def settle(self, data: Any, good: bool, twice: bool, every: int) -> None:
        """The server has answered, of all rows or of some between which others are left, whatever
        has become of them meanwhile.
        """
        batch = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        rows = batch.rows[::every]
        settlement = replace(accept(rows) if good else reject(rows, "no"), as_of=batch.as_of)
        places = {number: n for n, number in self.ids.items()}
        for ms, number, value in rows:
            one = self.known.get((ms, places[number]))
            # After a step another sample may stand there: the server has not got that one.
            if one is not None and not one.outcome and one.value == value:
                one.outcome = 1 if good else 2
        self.do(
            lambda: self.store.settle([settlement, settlement] if twice else [settlement], BASE)
        )

    @rule(step=STEPS)
    def step(self, step: int) -> None:
        """The clock is stepped."""
        self.offset += step
        self.do(lambda: self.store.step_clock(self.boot, self.offset, step))
        if self.era is not None:
            self.leave(self.era, step)
        else:
            self.begin_era(self.offset)

    @rule(portions=st.integers(1, 6) | st.just(100))
    def move_some(self, portions: int) -> None:
        """Samples are moved, a few at a time: which ones is told by what is left, in order."""
        for _ in range(portions):
            number = self.unfinished()
            found = self.do(self.store.restamp_samples)
            if number is None:
                assert (found.count, found.dropped, found.more) == (0, 0, False)
                return
            left = self.rows_of(number)
            waiting = self.waiting(number)
            count = len(waiting) - left
            assert count >= 0
            open_still = self.eras_in_database()[number - 1][1] is not None
            assert open_still or not left
            moved = self.move(number, count if open_still else None)
            assert (found.count, found.dropped) == moved
            assert found.more == (self.unfinished() is not None)
        assert portions < 100, "there is no end to it"

    def rows_of(self, era: int) -> int:
        """Count an era's pending samples in the database."""
        sql = "SELECT count(*) FROM samples WHERE era = ? AND checkpoint_id IS NULL"
        found = result(self.store.database.transact(lambda c: c.execute(sql, (era,)).fetchone()))
        return int(found[0])

    def eras_in_database(self) -> list[tuple[bool, int | None]]:
        """Read whether each era is closed, and into which one its samples are to go."""
        sql = "SELECT synchronised, moves_to FROM clock_eras ORDER BY number"
        rows = result(self.store.database.transact(lambda c: c.execute(sql).fetchall()))
        return [(bool(closed), to) for closed, to in rows]

    @rule()
    def trust(self) -> None:
        """The clock turns out to be good."""
        self.do(self.store.trust_clock)
        if self.era is not None:
            self.eras[self.era - 1].closed = True
            self.era = None

    @rule()
    def prune_pending(self) -> None:
        """There is no room."""
        deleted = self.do(self.store.delete_pending)
        rows = self.expected(2**50, (-1, 0, 0))
        lowest = [row for row in rows if row[0][0] == rows[-1][0][0]][:ROWS] if rows else []
        places = {number: n for n, number in self.ids.items()}
        for (_, ms, number), _ in lowest:
            del self.known[ms, places[number]]
        assert deleted.count == len(lowest)

    @rule()
    def prune_settled(self) -> None:
        """What was delivered is old enough."""
        database = self.store.database
        settlement = result(database.transact(retention.newest_settlement))
        key, last = result(database.transact(retention.span, settlement))
        while key is not None:
            after = key
            call = database.transact(retention.delete_settled, after, last, settlement)
            deleted = result(call)
            key = deleted.after
        while result(database.transact(retention.delete_settlements, settlement)) == ROWS:
            pass
        self.known = {k: v for k, v in self.known.items() if not v.outcome}

    @rule(crash=st.booleans(), boot=BOOTS, step=st.just(0) | STEPS)
    def restart(self, crash: bool, boot: str, step: int) -> None:
        """The agent ends, in order or not, and starts, in the same boot or another."""
        if crash:
            for one in self.store.database._pool.connections.values():
                one.close()
            self.store.database._pool.connections.clear()
        else:
            result(Deferred.fromCoroutine(self.store.close(BASE)))
        self.boot, self.offset, self.fail_next = boot, self.offset + step, False
        self.open()

    @rule()
    def salvage(self) -> None:
        """The database is replaced. All of it can be read, so nothing that is pending goes."""
        before = self.store.pending
        result(
            Deferred.fromCoroutine(self.store.lifecycle._replace(sqlite3.DatabaseError("told to")))
        )
        assert self.store.lifecycle.salvaged is not None
        assert self.store.lifecycle.salvaged.recovered == before
        self.known = {k: v for k, v in self.known.items() if not v.outcome}
        self.texts.clear()

    @invariant()
    def agrees(self) -> None:
        """The database holds what the model says, and the count of what is pending is right."""
        if not hasattr(self, "store"):
            return
        rows = result(
            self.store.database.transact(
                lambda cursor: cursor.execute(
                    "SELECT timestamp_ms, tags, metric_value, uploaded FROM metrics"
                    " WHERE value_type = 0"
                ).fetchall()
            )
        )
        count = result(
            self.store.database.transact(
                lambda c: c.execute("SELECT count(*) FROM metrics WHERE uploaded = 0").fetchone()
            )
        )[0]
        assert self.store.pending == count, f"pending {self.store.pending}, in truth {count}"
        wanted = [
            (ms, SERIES[n].tags_json, float(one.value), one.outcome)
            for (ms, n), one in self.known.items()
        ]
        assert sorted(rows) == sorted(wanted)
        assert self.eras_in_database() == [(era.closed, era.to) for era in self.eras]
        oldest = min((ms for ms, _ in self.known), default=None)
        assert self.store.database.oldest_ms == oldest
        assert self.store.database.database_bytes == self.path.stat().st_size


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=60,
    stateful_step_count=30,
)
