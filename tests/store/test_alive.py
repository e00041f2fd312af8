"""The number of series: which are alive, what leaves memory, and what is refused."""

import contextlib
import gc
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from belatwist.collectors.network import NetworkTraffic, NetworkTrafficOptions
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series, sample
from belatwist.store.alive import ALIVE_FOR, MAX_NAMED, AliveSeries
from belatwist.store.sql import retention
from belatwist.store.sql.schema import ID_BASE
from belatwist.store.sqlite import SQLiteStore
from belatwist.upload.jsonl import CACHED_SERIES, Encoder
from tests.collectors import kernel_texts
from tests.fakes import InlineReactor, inline_store
from tests.fixture_trees import Board, machine
from tests.log_events import Captured, logged
from tests.store.databases import CORE, LOAD, accept
from tests.store.stores import InFolder, counted, query
from tests.store.test_stateful import Failing, result

EVER = 2**62
HEADER = b"".join(
    (kernel_texts.FIXTURES / "orangepi5plus/proc/net/dev").read_bytes().splitlines(True)[:2]
)


def named(number: int) -> Series:
    """Make a series with a name of its own."""
    return Series.of("m", "box", {"n": str(number)})


def tick(*numbers: int, ms: int = 1) -> list[Sample]:
    """Make a sample of each of some series."""
    return [sample(named(number), ms, 1.0) for number in numbers]


class StoreTests(InFolder):
    """A real store, with room for three series and a clock that the test moves."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = InlineReactor()
        self.telemetry = Telemetry()
        self.store = self.limited(3)

    def limited(self, max_series: int) -> SQLiteStore:
        """Open a store with room for some series."""
        store = inline_store(
            self.folder / f"{max_series}.db",
            telemetry=self.telemetry,
            reactor=self.reactor,
            max_series=max_series,
        )
        self.successResultOf(Deferred.fromCoroutine(store.open("s1", 1000)))
        self._open.append(store)
        return store

    def add(self, samples: list[Sample]) -> int:
        """Store samples."""
        return self.successResultOf(self.store.add(samples))

    def ids(self) -> dict[str, int]:
        """Read the ids of all series in the database by their tag."""
        rows = query(self.store.database.path, "SELECT tags ->> 'n', id FROM series")
        return dict(rows)

    def pass_hours(self, hours: float, *going_on: int) -> None:
        """Let hours pass, in which some series are stored every ten minutes."""
        for _ in range(int(hours * 6)):
            self.reactor.advance(600)
            self.add(tick(*going_on, ms=int(self.reactor.seconds())))

    def test_one_too_many(self) -> None:
        """Beyond the limit new series are not stored; those that are alive are."""
        self.assertEqual(self.add(tick(1, 2)), 2)
        self.assertEqual(self.add(tick(3, 4, 1, 5, 2, ms=2)), 3)
        self.assertEqual(set(self.ids()), {"1", "2", "3"})
        self.assertEqual((self.store.alive, self.store.pending), (3, 5))
        self.assertEqual(counted(self.telemetry, "storage_metrics_refused_total"), 2)
        self.assertEqual(counted(self.telemetry, "storage_metrics_dropped_total"), 0)
        self.assertEqual(self.store.refused.names, ('m {"n":"4"}', 'm {"n":"5"}'))
        self.assertEqual(self.store.refused.at, self.reactor.seconds())

    def test_a_flood_evicts_nobody(self) -> None:
        """However many new names come, for hours, the series that are alive lose no sample."""
        self.add(tick(1, 2, 3))
        for hour in range(30):
            self.reactor.advance(ALIVE_FOR / 5)
            self.add([*tick(*range(100, 150), ms=hour), *tick(1, 2, 3, ms=100 + hour)])
        self.assertEqual(self.store.pending, 3 * 31)
        self.assertEqual(set(self.ids()), {"1", "2", "3"})

    def test_room_is_made_by_those_that_are_gone(self) -> None:
        """A series that is not stored any more is not alive two hours later; others take over."""
        self.add(tick(1, 2, 3))
        self.pass_hours(0.8, 3)
        self.assertEqual(self.store.alive, 3)
        self.pass_hours(2, 3)
        self.assertEqual(self.store.alive, 1)
        self.assertEqual(self.add(tick(4, 5, 6, ms=9)), 2)
        self.assertEqual(set(self.ids()), {"1", "2", "3", "4", "5"})

    def test_a_series_that_comes_back_has_its_id(self) -> None:
        """It is looked up in the database; what is fetched is its, and a known sample is known."""
        self.add(tick(1, 2))
        before = self.ids()
        self.pass_hours(3, 2)
        self.assertEqual(self.add(tick(1)), 0)
        self.add(tick(1, ms=2))
        self.assertEqual(self.ids(), before)
        batch = self.successResultOf(self.store.fetch(2, 2))
        self.assertEqual([batch.series[row[1]] for row in batch.rows], [named(1), named(2)])

    def test_samples_of_series_that_left_memory_are_sent(self) -> None:
        """A backlog outlives the memory of its series: each batch has the series of its rows."""
        self.add(tick(1, 2, 3))
        self.pass_hours(3)
        self.add(tick(4))
        for fetch in self.store.fetch, self.store.fetch_newest:
            batch = self.successResultOf(fetch(10, EVER))
            self.assertEqual(
                {batch.series[row[1]] for row in batch.rows}, set(map(named, range(1, 5)))
            )
            self.assertEqual(set(batch.series), {row[1] for row in batch.rows})

    def test_memory_of_what_is_read_is_bounded(self) -> None:
        """However many series a backlog has, twice the limit are remembered, at most."""
        for first in range(0, 60, 3):
            self.add(tick(first, first + 1, first + 2, ms=first))
            self.pass_hours(3)
        known = self.store.known_series()
        place = None
        for _ in range(20):
            batch = self.successResultOf(self.store.fetch(3, EVER, place))
            place = batch.last
            self.assertEqual(len(batch.series), 3)
            self.assertLessEqual(len(self.store.known_series()), 6)
        self.assertLessEqual(len(known), 6)

    def test_a_failed_transaction(self) -> None:
        """What was rolled back has no id in memory and takes no room."""
        ((number, one),) = self.store.database._pool.connections.items()
        failing = Failing(one)
        self.store.database._pool.connections[number] = failing
        failing.fail = True
        self.failureResultOf(self.store.add(tick(1, 2)), sqlite3.OperationalError)
        self.assertEqual((self.store.alive, self.store.known_series()), (0, {}))
        self.add(tick(3, 2, 1))
        self.assertEqual(self.ids(), {"3": 1, "2": 2, "1": 3})

    def test_a_failing_disk_ages_nobody(self) -> None:
        """While nothing can be stored, however long, the series that are alive stay alive."""
        self.add(tick(1, 2, 3))
        self.pass_hours(0.5, 1, 2, 3)
        ((number, one),) = self.store.database._pool.connections.items()
        failing = Failing(one)
        self.store.database._pool.connections[number] = failing
        for hour in range(9):
            self.reactor.advance(3600)
            failing.fail = True
            self.failureResultOf(self.store.add(tick(1, ms=hour)), sqlite3.OperationalError)
        self.assertEqual(self.add(tick(9, 1, 2, 3, ms=99)), 3)

    def test_the_log(self) -> None:
        """The first refusal is logged with a name, and that new series are stored again."""
        with Captured() as log:
            self.add(tick(1, 2, 3, 4))
            self.add(tick(5, ms=2))
            ((_, fields),) = [e for e in logged(log, "{count} sample") if e[0] == "warn"]
            self.assertEqual(
                (fields["count"], fields["reason"]), (1, "storage.max_series (3) are alive")
            )
            self.assertEqual((fields["metric"], fields["tags"]), ("m", '{"n":"4"}'))
            self.pass_hours(3, 1)
            self.assertEqual(log.texts(LogLevel.info), [])
            self.add(tick(4, ms=3))
        self.assertIn("New series are stored again", log.texts(LogLevel.info)[0])

    def test_few_names_are_kept(self) -> None:
        """Of many refused series health names some, and a long name is cut."""
        long = Series.of("m" * 5000, "box")
        self.add(tick(1, 2, 3))
        self.add([sample(long, 1, 1.0), *tick(*range(10, 200)), *tick(*range(10, 200), ms=2)])
        self.assertEqual(len(self.store.refused.names), MAX_NAMED)
        self.assertLessEqual(max(map(len, self.store.refused.names)), 100)

    def test_texts_are_series_too(self) -> None:
        """A text of a series too many is not stored either, and is no failure."""
        state = Series.of("state", "box", value_type=1)
        self.add(tick(1, 2, 3))
        self.assertEqual(self.add([Sample(state, 1, "up"), *tick(1, ms=2)]), 1)
        self.assertEqual(query(self.store.database.path, "SELECT count(*) FROM texts"), [(0,)])

    def test_a_refused_sample_while_others_are_to_be_moved(self) -> None:
        """It does not look like one that is in the way of those that a step has left to move."""
        self.successResultOf(self.store.enter_era("boot", 0))
        self.add(tick(1, 2, 3))
        self.successResultOf(self.store.step_clock("boot", 5000, 5000))
        self.assertEqual(self.add(tick(1, 4, ms=7)), 1)
        self.assertTrue(self.store._eras.restamping)

    def test_no_id_is_left(self) -> None:
        """Once all ids are given out, new series are refused; those that have one are stored."""
        self.add(tick(1, 2))
        self.pass_hours(3, 2)
        last = ID_BASE - 1
        self.successResultOf(
            self.store.database.transact(
                lambda c: c.execute(
                    "INSERT INTO series (id, name, device_id, tags, value_type)"
                    " VALUES (?, 'last', 'box', '{}', 0)",
                    (last,),
                )
            )
        )
        self.assertEqual(self.add(tick(4, 1, 2, ms=9)), 2)
        self.assertEqual(self.store.refused.reason, "the database has given out all ids for series")
        self.assertEqual(self.store.refused.names, ('m {"n":"4"}',))

    def test_another_database(self) -> None:
        """After a replacement memory is empty; the series are found again by the same ids."""
        self.add(tick(1, 2, 3))
        before = self.ids()
        self.successResultOf(
            Deferred.fromCoroutine(self.store.lifecycle._replace(sqlite3.DatabaseError("told to")))
        )
        self.assertEqual(self.store.alive, 0)
        self.add(tick(3, 2, 1, ms=2))
        self.assertEqual(self.ids(), before)

    def test_what_is_alive_is_not_deleted(self) -> None:
        """Retention's search, however it overlaps with storing, deletes no series in use."""
        store = self.store = self.limited(20)
        self.add(tick(*range(10)))
        rows = self.successResultOf(store.fetch(100, EVER)).rows
        self.successResultOf(store.settle([accept(rows)], 1))
        self.pass_hours(3, 9)
        since = self.reactor.seconds()
        self.add(tick(1, ms=10))  # The search has passed this place.
        self.reactor.advance(ALIVE_FOR / 2)
        with mock.patch.object(retention, "SERIES", 0):
            deleted = self.successResultOf(store.delete_series({10}, since))
        self.assertEqual(deleted, 8)
        self.assertEqual(set(self.ids()), {"1", "9"})
        self.add(tick(1, 0, ms=11))
        self.assertGreater(self.ids()["0"], 10)

    def test_a_search_that_took_too_long(self) -> None:
        """It deletes nothing: a series stored since then may have left memory again."""
        store = self.store = self.limited(20)
        self.add(tick(*range(10)))
        since = self.reactor.seconds()
        self.add(tick(1, ms=10))
        self.pass_hours(3, 9)
        with mock.patch.object(retention, "SERIES", 0):
            self.assertEqual(self.successResultOf(store.delete_series({10}, since)), 0)
            later = self.reactor.seconds()
            self.assertEqual(self.successResultOf(store.delete_series({2, 10}, later)), 8)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder for a database."""
    with TemporaryDirectory() as name:
        yield Path(name)


def remembered() -> int:
    """Count the series that anything in this process holds."""
    gc.collect()
    return sum(isinstance(one, Series) for one in gc.get_objects())


def churn(ticks: int, limit: int) -> tuple[int, int]:
    """Collect, store, encode and settle ticks of 31 interfaces whose names never come back.

    :return: how many series are held after that, and after four hours in which one goes on.
    """
    reactor, board, encoder = InlineReactor(), Board("proc", "orangepi5plus"), Encoder()
    traffic = NetworkTraffic(machine(board), NetworkTrafficOptions())
    before = remembered()
    with folder() as where:
        store = inline_store(where / "metrics.db", reactor=reactor, max_series=limit)
        result(Deferred.fromCoroutine(store.open("s1", 1)))

        def one_tick(ms: int, names: list[str]) -> None:
            lines = (f"{name}: {' '.join('1' * 16)}\n".encode() for name in names)
            board.texts["net/dev"] = HEADER + b"".join(lines)
            result(store.add([*traffic.collect(ms), sample(LOAD, ms, 1.0)]))
            batch = result(store.fetch(1000, EVER))
            rows, _ = encoder.partition(batch.rows, batch.series)
            encoder.encode(rows, batch.series)
            result(store.settle([accept(rows)], ms))

        for number in range(ticks):
            reactor.advance(10)
            one_tick(number + 1, [f"x{number}n{i}" for i in range(31)])
        flooded = remembered() - before
        for number in range(24):
            reactor.advance(600)
            one_tick(ticks + number + 1, ["usb0"])
        left = remembered() - before
        result(Deferred.fromCoroutine(store.close(2)))
    return flooded, left


def test_new_names_do_not_pile_up() -> None:
    """Nothing of collecting, storing and encoding grows with the names of the past."""
    limit = 400
    flooded, left = churn(200, limit)
    spare = 31 * 6 + 50  # Those of the last tick.
    assert flooded <= limit + spare
    assert left <= limit + 50


def test_the_encoder_forgets() -> None:
    """It caches a bounded number of series; what it has forgotten is encoded as before."""
    encoder = Encoder()
    first = encoder.encode([(1, 1, 2.0)], {1: LOAD})
    encoder.encode([(1, n, 2.0) for n in range(CACHED_SERIES + 9)], _Many())
    encoder.partition([(1, n, 2.0) for n in range(CACHED_SERIES + 9)], _Many())
    for cache in encoder._head, encoder._reason:
        assert cache.cache_info().currsize == CACHED_SERIES
    assert encoder.encode([(1, 1, 2.0)], {1: LOAD}) == first


class _Many(dict[int, Series]):
    """A series for every number."""

    def __missing__(self, number: int) -> Series:
        return named(number)


NUMBERS = st.lists(st.integers(0, 7), max_size=6)


class AliveMachine(RuleBasedStateMachine):
    """A store with room for three series, and a model that says what must have become of each."""

    LIMIT = 3

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.reactor = InlineReactor()
        self.ids: dict[int, int] = {}
        self.stored_at: dict[int, float] = {}
        self.stored: set[tuple[int, int]] = set()
        self.ms = self.sessions = 0

    @initialize()
    def open(self) -> None:
        """Open the store."""
        self.store = inline_store(
            Path(self.folder.name) / "metrics.db", reactor=self.reactor, max_series=self.LIMIT
        )
        self.sessions += 1
        result(Deferred.fromCoroutine(self.store.open(f"s{self.sessions}", 1)))

    def teardown(self) -> None:
        """Close it."""
        result(Deferred.fromCoroutine(self.store.close(2)))
        self.folder.cleanup()

    @rule(numbers=NUMBERS, fail=st.booleans())
    def add(self, numbers: list[int], fail: bool) -> None:
        """A tick comes; perhaps the first try fails, as on a full disk."""
        self.ms += 1
        if fail:
            ((number, one),) = self.store.database._pool.connections.items()
            failing = one if isinstance(one, Failing) else Failing(one)
            self.store.database._pool.connections[number] = failing
            failing.fail = True
            with contextlib.suppress(sqlite3.OperationalError):
                result(self.store.add(tick(*numbers, ms=self.ms)))
        now = self.reactor.seconds()
        new = result(self.store.add(tick(*numbers, ms=self.ms)))
        rows = result(
            self.store.database.transact(
                lambda c: c.execute(
                    "SELECT tags ->> 'n', series_id FROM samples JOIN series"
                    " ON series.id = series_id WHERE timestamp_ms = ?",
                    (self.ms,),
                ).fetchall()
            )
        )
        found = {int(name): number for name, number in rows}
        assert new == len(found)
        for name, number in found.items():
            assert self.ids.setdefault(name, number) == number
        alive = {n for n, at in self.stored_at.items() if now - at <= ALIVE_FOR}
        assert alive & set(numbers) <= found.keys(), "a series that is alive lost a sample"
        if len(self.stored_at.keys() | set(numbers)) <= self.LIMIT:
            assert found.keys() == set(numbers), "there was room"
        self.stored_at.update(dict.fromkeys(found, now))
        self.stored |= {(self.ms, name) for name in found}

    @rule(seconds=st.sampled_from([10, 600, 1800, 3599, 3600, 9000]))
    def wait(self, seconds: int) -> None:
        """Time passes. In an hour without a tick memory forgets nobody."""
        self.reactor.advance(seconds)

    @rule(limit=st.integers(1, 9))
    def fetch(self, limit: int) -> None:
        """The uploader reads: every row has its series."""
        batch = result(self.store.fetch(limit, EVER))
        for ms, number, _ in batch.rows:
            name = int(dict(batch.series[number].tags)["n"])
            assert self.ids[name] == number
            assert (ms, name) in self.stored

    @rule()
    def restart(self) -> None:
        """The agent ends and starts: nothing is alive."""
        result(Deferred.fromCoroutine(self.store.close(2)))
        self.open()
        self.stored_at = {}

    @invariant()
    def is_bounded(self) -> None:
        """No more are alive than may be, and no id is given twice."""
        if hasattr(self, "store"):
            assert self.store.alive <= self.LIMIT
            assert len(set(self.ids.values())) == len(self.ids)


TestAlive = AliveMachine.TestCase
TestAlive.settings = settings(
    max_examples=40,
    stateful_step_count=30,
)


def test_what_is_stored_costs_nothing_more() -> None:
    """While all series are known and none is missing, no series is looked at but to store it."""
    clock = Clock()
    alive = AliveSeries(10, 60.0, clock.seconds)
    alive.stored({LOAD: 1, CORE: 2})

    def nothing() -> Iterator[Sample]:
        raise AssertionError("looked at")
        yield

    alive.touch(nothing())
