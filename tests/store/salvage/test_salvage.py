"""Damaged databases are moved aside and replaced, and their trustworthy samples recovered."""

import contextlib
import os
import random
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel

from belatwist.model import Series, sample
from belatwist.store.salvage import reader, replacement
from belatwist.store.salvage.replacement import Salvaged
from belatwist.store.sql import queries, schema
from tests.fakes import inline_store
from tests.log_events import Captured
from tests.store import suite
from tests.store.databases import CORE, LOAD, accept, insert, reading, settle
from tests.store.stores import InFolder, query, sessions

PAGE = schema.PAGE_SIZE
NOW = datetime(2026, 11, 22, 10, 33, 56, tzinfo=UTC)
START_MS = 1_800_000_000_000
SERIES = [Series.of("cpu.usage", "böx", {"core": str(n)}, priority=n % 4) for n in range(40)]
Content = dict[tuple[int, int], tuple[Any, ...]]


def content(path: Path) -> Content:
    """Read every pending sample, its series and session spelled out, by time and id."""
    rows = query(
        path,
        "SELECT timestamp_ms, series_id, value, x.priority, name, device_id, tags, r.id FROM"
        " samples x JOIN series s ON s.id = series_id JOIN sessions r ON r.number = session_number"
        " WHERE checkpoint_id IS NULL",
    )
    return {row[:2]: row[2:] for row in rows}


@cache
def healthy() -> tuple[bytes, Content, dict[str, tuple[int, ...]]]:
    """Make a database with uploaded and pending samples.

    :return: its bytes, what is pending in it, and the pages of each of its trees.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.db"
        store = inline_store(path)
        Deferred.fromCoroutine(store.open("s1", 1000))
        for at in range(300):
            store.add([sample(s, START_MS + at * 5000, at + n / 7) for n, s in enumerate(SERIES)])
        with reading(path) as connection:
            rows = connection.execute(
                "SELECT timestamp_ms, series_id, value FROM samples"
                " ORDER BY timestamp_ms, series_id LIMIT 4000"
            ).fetchall()
        for at in range(0, len(rows), 400):
            store.settle([accept(rows[at : at + 400])], 9)
        Deferred.fromCoroutine(store.close(2000))
        pending = content(path)
        pages: dict[str, tuple[int, ...]] = {}
        with reading(path) as connection:
            for name, page in connection.execute("SELECT name, pageno FROM dbstat"):
                pages[name] = (*pages.get(name, ()), page)
        return path.read_bytes(), pending, pages


def overwritten(*pages: int, garbage: bytes | None = None) -> bytes:
    """Return the healthy database with garbage in some of its pages."""
    data = bytearray(healthy()[0])
    for page in pages:
        fill = random.Random(page).randbytes(PAGE) if garbage is None else garbage * PAGE
        data[(page - 1) * PAGE : page * PAGE] = fill
    return bytes(data)


class Killed(BaseException):
    """The process is gone; nothing of ours runs any more."""


def killed_at(number: int) -> Any:
    """Make a rename that works until the so-manieth comes."""
    rename = Path.rename
    calls: list[Path] = []

    def renamed(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == number:
            raise Killed
        return rename(path, target)

    return renamed


class ReplaceTests(InFolder):
    """Which samples are recovered, and which are not."""

    def replaced(self, data: bytes, known: dict[int, Series] | None = None) -> Salvaged:
        """Replace a database with these bytes; every recovered sample must have been in it."""
        self.path.write_bytes(data)
        done = replacement.replace(self.path, NOW, known or {})
        found = content(self.path)
        self.assertEqual(len(found), done.recovered)
        original = healthy()[1]
        self.assertEqual({key for key, row in found.items() if original.get(key) != row}, set())
        self.assertEqual(done.backup_path.read_bytes(), data)
        self.assertEqual(query(self.path, "PRAGMA integrity_check"), [("ok",)])
        self.assertEqual(query(self.path, "PRAGMA auto_vacuum"), [(2,)])
        left = {p.name for p in self.folder.iterdir()} - {"metrics.db"}
        self.assertEqual({n for n in left if not n.startswith("metrics.db.corrupt-")}, set())
        return done

    def test_a_healthy_one(self) -> None:
        """All pending samples are recovered, no uploaded ones."""
        done = self.replaced(healthy()[0])
        self.assertEqual((done.recovered, done.indexed, done.stopped), (8000, 8000, None))
        self.assertEqual(done.backup_path.name, "metrics.db.corrupt-20261122T103356Z")

    def test_a_damaged_leaf(self) -> None:
        """It costs its own samples and the two next to it."""
        _, _, pages = healthy()
        leaf = pages["samples"][len(pages["samples"]) * 3 // 4]
        done = self.replaced(overwritten(leaf))
        self.assertGreater(done.recovered, 8000 - 160)
        self.assertLess(done.recovered, 8000)
        self.assertIsNone(done.stopped)

    def test_several_damaged_leaves(self) -> None:
        """What lies between them is found as well."""
        leaves = healthy()[2]["samples"][-40:-2:9]
        for garbage in (None, b"\0", b"\xff"):
            done = self.replaced(overwritten(*leaves, garbage=garbage))
            self.assertGreater(done.recovered, 8000 - 170 * len(leaves))
            self.assertLess(done.recovered, 8000)

    def test_damage_elsewhere_costs_nothing(self) -> None:
        """Each of the other trees may be lost as a whole: the index, or one of two of a series."""
        pages = healthy()[2]
        for name in pages.keys() - {"samples", "sessions", "sqlite_schema"}:
            self.assertEqual(self.replaced(overwritten(*pages[name])).recovered, 8000, name)

    def test_the_series_are_lost(self) -> None:
        """Without them samples have no names, unless the running process still knows them."""
        pages = healthy()[2]
        lost = overwritten(*pages["series"], *pages["sqlite_autoindex_series_1"])
        self.assertEqual(self.replaced(lost).recovered, 0)
        known = dict(enumerate(SERIES, start=1))
        self.assertEqual(self.replaced(lost, known).recovered, 8000)

    def test_the_header_is_lost(self) -> None:
        """Where the tables are is known all the same."""
        data = healthy()[0]
        self.assertEqual(self.replaced(b"\xa5" * 100 + data[100:]).recovered, 8000)
        self.assertEqual(self.replaced(overwritten(1)).recovered, 8000)
        self.assertEqual(self.replaced(overwritten(1, garbage=b"\0")).recovered, 8000)

    def test_the_file_is_cut(self) -> None:
        """What is left of it is read."""
        data = healthy()[0]
        done = self.replaced(data[: len(data) // 2 + 77])
        self.assertGreater(done.recovered, 500)
        for size in (1, 100, 511, 512, PAGE, PAGE + 1):
            self.assertEqual(self.replaced(data[:size]).recovered, 0)

    def test_something_else(self) -> None:
        """A file of another kind holds nothing to carry over."""
        self.assertEqual(self.replaced(b"metrics, but not in a database\n" * 200).recovered, 0)

    def test_the_write_ahead_log_counts(self) -> None:
        """Samples that are only in the log are recovered, and the log is moved aside, too."""
        store = self.opened(self.path)
        self.successResultOf(store.add([sample(LOAD, 5, 1), sample(CORE, 6, 2)]))
        for suffix in ("", "-wal"):
            source = self.path.with_name(self.path.name + suffix)
            (self.folder / f"crashed.db{suffix}").write_bytes(source.read_bytes())
        path = self.folder / "crashed.db"
        path.write_bytes(b"\xa5" * 50 + path.read_bytes()[50:])
        done = replacement.replace(path, NOW, {})
        self.assertEqual(done.recovered, 2)
        self.assertTrue(done.backup_path.with_name(done.backup_path.name + "-wal").exists())
        self.assertEqual({row[4] for row in content(path).values()}, {"{}", '{"core":"0"}'})

    def test_nothing_is_overwritten(self) -> None:
        """Each damaged database gets a name of its own, also within a second."""
        names = [self.replaced_once(n) for n in range(3)]
        first = "metrics.db.corrupt-20261122T103356Z"
        self.assertEqual(names, [first, f"{first}.1", f"{first}.2"])
        self.assertEqual([(self.folder / name).read_bytes() for name in names], [b"0", b"1", b"2"])

    def replaced_once(self, number: int) -> str:
        """Replace a file that holds a digit."""
        self.path.write_bytes(str(number).encode())
        return replacement.replace(self.path, NOW, {}).backup_path.name

    def test_an_interrupted_replacement_is_finished(self) -> None:
        """Killed before any of the renamings, the next start has the pending rows all the same."""
        for kill_at in range(1, 6):
            with self.subTest(kill_at=kill_at):
                self.setUp()
                self.path.write_bytes(overwritten(20))
                for suffix in ("-wal", "-shm"):
                    Path(f"{self.path}{suffix}").write_bytes(b"")
                with (
                    mock.patch.object(Path, "rename", killed_at(kill_at)),
                    contextlib.suppress(Killed),
                ):
                    replacement.replace(self.path, NOW, {})
                store = self.opened(self.path, "s2")
                self.assertGreater(store.pending, 7000)
                self.close(store)

    def test_a_killed_replacement_begins_anew(self) -> None:
        """Half a new database beside the damaged one is thrown away."""
        (self.folder / "metrics.db.new").write_bytes(b"half")
        (self.folder / "metrics.db.new-journal").write_bytes(b"half")
        self.assertEqual(self.replaced(healthy()[0]).recovered, 8000)

    def test_little_space(self) -> None:
        """The new database is made all the same, and the result has the reason."""
        with mock.patch.object(replacement, "_has_room", return_value=False):
            done = self.replaced(healthy()[0])
        self.assertEqual((done.recovered, done.stopped), (0, "the disk is nearly full"))

    def test_no_time(self) -> None:
        """Reading ends after its time, and the result has the reason."""
        with mock.patch.object(reader, "SECONDS", -1.0):
            done = self.replaced(healthy()[0])
        self.assertEqual(done.recovered, 0)
        self.assertIn("longer than", done.stopped or "")

    def test_the_disk_does_not_take_a_new_one(self) -> None:
        """Then the damaged one is still in its place, and nothing is left beside it."""
        self.path.write_bytes(healthy()[0])
        full = sqlite3.OperationalError("database or disk is full")
        with (
            mock.patch.object(schema, "create", side_effect=full),
            self.assertRaises(sqlite3.OperationalError),
        ):
            replacement.replace(self.path, NOW, {})
        self.assertEqual([p.name for p in self.folder.iterdir()], ["metrics.db"])


def damaged_by(draw: random.Random, data: bytes) -> bytes:
    """Damage a database as disks do: sectors and pages of garbage, a file that is cut."""
    result = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        size = draw.choice([512, 512, 1024, PAGE, 16 * PAGE])
        at = draw.randrange(len(result) // size) * size
        fill = [bytes(size), b"\xff" * size, draw.randbytes(size)]
        result[at : at + size] = draw.choice(fill)
    if draw.random() < 0.2:
        del result[draw.randrange(len(result)) :]
    return bytes(result)


@pytest.mark.parametrize("seed", range(25))
def test_sectors_of_garbage(seed: int, tmp_path: Path) -> None:
    """Whatever the damage to sectors: a new database, in time, and every row in it was there."""
    data, original, _ = healthy()
    path = tmp_path / "metrics.db"
    path.write_bytes(damaged_by(random.Random(seed), data))
    done = replacement.replace(path, NOW, {})
    found = content(path)
    assert len(found) <= done.recovered
    assert {key: row for key, row in found.items() if original.get(key, row)[:1] != row[:1]} == {}
    assert {key for key in found if key not in original} == set()
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=200))
def test_random_bytes(changes: list[tuple[float, int]]) -> None:
    """Single bytes that change: no row is made up, and its name, time and priority are right.

    A value may be another one: where nothing but its own bytes changed, nobody can tell.
    """
    data, original, _ = healthy()
    changed = bytearray(data)
    for place, byte in changes:
        changed[int(place * len(changed))] = byte
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.db"
        path.write_bytes(changed)
        replacement.replace(path, NOW, {})
        found = content(path)
        assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert found.keys() <= original.keys()
    wrong = [k for k, row in found.items() if original[k][1:5] != row[1:5]]
    assert wrong == []
    assert sum(original[key][0] != row[0] for key, row in found.items()) <= len(changes)


class OpeningTests(InFolder):
    """A damaged database at the start, and a start that refuses what is not damaged."""

    def test_a_damaged_database(self) -> None:
        """It is replaced, the log says so, and the pending samples can be fetched."""
        self.path.write_bytes(b"\xa5" * 100 + healthy()[0][100:])
        with Captured() as log:
            store = self.opened(self.path, "s2")
        self.assertEqual(store.pending, 8000)
        assert store.lifecycle.salvaged is not None
        self.assertEqual(store.lifecycle.salvaged.recovered, 8000)
        self.assertIn("file is not a database; a new one replaces it", log.texts(LogLevel.error)[0])
        self.assertIn("8000 of 8000 pending samples were recovered", log.texts(LogLevel.warn)[0])
        batch = self.successResultOf(store.fetch(10000, suite.EVER))
        self.assertEqual(
            {(at, batch.series[n], value) for at, n, value in batch.rows},
            {(key[0], SERIES[key[1] - 1], row[0]) for key, row in healthy()[1].items()},
        )
        self.assertEqual(sessions(self.path)["s1"], ("completed", 2000))
        self.assertEqual(self.successResultOf(store.add([sample(SERIES[0], 5, 1)])), 1)

    def test_damage_that_shows_as_the_session_begins(self) -> None:
        """One replacement answers it: the session does not run yet, so that none runs beside it."""
        self.path.write_bytes(healthy()[0])
        malformed = sqlite3.DatabaseError("database disk image is malformed")
        malformed.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        with mock.patch.object(queries, "count_pending", side_effect=[malformed, 8000]):
            store = self.opened(self.path, "s2")
        self.assertEqual(store.pending, 8000)
        self.assertEqual(len(list(self.folder.glob("*.corrupt-*Z"))), 1)
        self.assertEqual(list(self.folder.glob("*Z.1")), [])
        self.assertEqual(sessions(self.path)["s2"], ("active", None))

    def test_the_first_page_of_an_older_database(self) -> None:
        """Its pages are larger than a new one's; it is read all the same."""
        old = schema.OLD_PAGE_SIZE
        self.path.write_bytes(healthy()[0])
        # The tables are made as the schema makes them, so that they begin where they do.
        older = self.folder / "older.db"
        with closing(sqlite3.connect(older)) as connection:
            schema.lay_out(connection, old)
            schema.create(connection, "")
            connection.execute("ATTACH ? AS healthy", (str(self.path),))
            for table in ("sessions", "series", "upload_checkpoints", "samples"):
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM healthy.{table}")
            connection.commit()
        self.path.write_bytes(b"\xa5" * old + older.read_bytes()[old:])
        store = self.opened(self.path, "s2")
        done = store.lifecycle.salvaged
        assert done is not None
        self.assertEqual((done.recovered, done.indexed), (8000, 8000))

    def test_no_database(self) -> None:
        """A file of something else is moved aside, too: it cannot be told from a damaged one."""
        self.path.write_bytes(b"metrics, but not in a database\n" * 200)
        with Captured() as log:
            self.assertEqual(self.opened(self.path).pending, 0)
        self.assertIn("0 of an unknown number of pending samples", log.texts(LogLevel.warn)[0])
        self.assertEqual(len(list(self.folder.glob("metrics.db.corrupt-*"))), 1)

    def test_an_empty_file(self) -> None:
        """A file without a byte is a database that was about to begin."""
        self.path.touch()
        store = self.opened(self.path)
        self.assertIsNone(store.lifecycle.salvaged)

    def test_quick_check_after_a_crash(self) -> None:
        """Damage that opening does not meet is found when the last session did not end."""
        self.path.write_bytes(overwritten(healthy()[2]["samples"][5]))
        store = self.opened(self.path, "s2")
        self.assertIsNone(store.lifecycle.salvaged)
        self.close(store)
        with reading(self.path) as connection:
            connection.execute("UPDATE sessions SET status = 'active' WHERE id = 's2'")
            connection.commit()
        store = self.opened(self.path, "s3")
        assert store.lifecycle.salvaged is not None
        self.assertEqual(store.pending, 8000)
        self.assertEqual(sessions(self.path)["s2"][0], "failed")

    def test_tables_are_missing(self) -> None:
        """A version without its tables is damage, and so are pages without any table."""
        self.close(self.opened(self.path))
        with reading(self.path) as connection:
            connection.executescript("DROP VIEW metrics; DROP TABLE samples")
        self.assertIsNotNone(self.opened(self.path, "s2").lifecycle.salvaged)
        data = bytearray(healthy()[0])
        # The first page's tree, after the header, without an entry.
        data[100:108] = b"\x0d\0\0\0\0\x10\0\0"
        other = self.folder / "other.db"
        other.write_bytes(data)
        store = self.opened(other, "s2")
        self.assertEqual(store.pending, 8000)

    def test_a_folder_without_space(self) -> None:
        """Where not even an empty database can be made, the start is refused in one line."""
        self.path.write_bytes(b"no database" * 100)
        store = inline_store(self.path)
        full = sqlite3.OperationalError("database or disk is full")
        with mock.patch.object(schema, "create", side_effect=full):
            failure = self.failureResultOf(Deferred.fromCoroutine(store.open("s1", 1)))
        self.assertEqual(str(failure.value), f"database {self.path}: database or disk is full")
        self.close(store)
        self.assertEqual([p.name for p in self.folder.iterdir()], ["metrics.db"])


class RunningTests(InFolder):
    """Damage that is met while the agent runs."""

    def setUp(self) -> None:
        super().setUp()
        self.path.write_bytes(healthy()[0])
        self.store = self.opened(self.path, "s2")
        self.clock: MemoryReactorClock = self.store.database._reactor
        self.damage()

    def damage(self, *pages: int) -> None:
        """Overwrite pages in the running database; without any given, the samples' root."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with self.path.open("r+b") as file:
            for page in pages or (healthy()[2]["samples"][-9],):
                file.seek((page - 1) * PAGE)
                file.write(os.urandom(PAGE))
        # What SQLite has in its cache is not read again until somebody else has written.
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("UPDATE schema_version SET applied_at = applied_at || '.'")
            connection.commit()

    def test_the_session_goes_on(self) -> None:
        """The failing call fails; the database is replaced; the next call finds the new one."""
        pending = self.store.pending
        with Captured() as log:
            self.failureResultOf(self.store.fetch(10_000, suite.EVER), sqlite3.DatabaseError)
        self.assertIn("malformed", log.texts(LogLevel.error)[0])
        assert self.store.lifecycle.salvaged is not None
        # What was lost is counted.
        self.assertEqual(self.store.lost_at, self.clock.seconds())
        counted = {name: value for name, _, value in self.store._telemetry.values()}
        lost = pending - self.store.pending
        self.assertEqual(counted["storage_metrics_dropped_total"], lost)
        self.assertGreater(lost, 0)
        self.assertGreater(self.store.pending, 8000 - 160)
        self.assertEqual(self.store.pending, self.store.lifecycle.salvaged.recovered)
        before = self.store.pending
        self.assertEqual(self.successResultOf(self.store.add([sample(SERIES[0], 5, 1)])), 1)
        batch = self.successResultOf(self.store.fetch(10_000, suite.EVER))
        self.assertEqual(len(batch.rows), before + 1)
        self.successResultOf(self.store.settle([accept(batch.rows[:100])], 9))
        self.close(self.store, 7000)
        self.assertEqual(sessions(self.path)["s2"], ("completed", 7000))
        found = content(self.path)
        self.assertEqual(len(found), before + 1 - 100)
        self.assertEqual(
            query(self.path, "SELECT DISTINCT session_id FROM metrics WHERE timestamp_ms = 5"),
            [("s2",)],
        )

    def test_not_again_at_once(self) -> None:
        """A disk that damages all it is given is not replaced without end."""
        self.failureResultOf(self.store.fetch(10_000, suite.EVER), sqlite3.DatabaseError)
        first = self.store.lifecycle.salvaged
        with reading(self.path) as connection:
            (page,) = connection.execute(
                "SELECT max(pageno) FROM dbstat WHERE name = 'samples'"
            ).fetchone()
        self.damage(page)
        self.failureResultOf(self.store.fetch(10_000, suite.EVER), sqlite3.DatabaseError)
        self.assertIs(self.store.lifecycle.salvaged, first)
        self.clock.advance(601)
        self.failureResultOf(self.store.fetch(10_000, suite.EVER), sqlite3.DatabaseError)
        self.assertIsNot(self.store.lifecycle.salvaged, first)
        self.successResultOf(self.store.fetch(10_000, suite.EVER))

    def test_it_cannot_be_replaced(self) -> None:
        """Then the state stays as it is, is logged, and the agent goes on."""
        full = sqlite3.OperationalError("database or disk is full")
        with mock.patch.object(schema, "create", side_effect=full), Captured() as log:
            self.failureResultOf(self.store.fetch(10_000, suite.EVER), sqlite3.DatabaseError)
        self.assertEqual(
            log.texts(LogLevel.error)[1:],
            ["The damaged database could not be replaced: database or disk is full"],
        )
        self.assertIsNone(self.store.lifecycle.salvaged)


def test_a_lost_session_leaves_a_trace(tmp_path: Path) -> None:
    """Where the sessions are lost, samples belong to one that says so, and numbers stay unique."""
    data, _, pages = healthy()
    path = tmp_path / "metrics.db"
    path.write_bytes(overwritten(*pages["sessions"]))
    assert len(data) == path.stat().st_size
    replacement.replace(path, NOW, {}, replacement.Session(7, "running", 3))
    assert query(path, "SELECT number, id, status FROM sessions ORDER BY number") == [
        (1, "lost-1", "failed"),
        (7, "running", "active"),
    ]


def test_settled_samples_stay_behind(tmp_path: Path) -> None:
    """Nothing that the server has becomes pending again; new settlements have later numbers."""
    path = tmp_path / "metrics.db"
    with reading(path) as connection:
        schema.create(connection, "now")
        connection.execute("INSERT INTO sessions VALUES (1, 's1', 1000, NULL, 'active', '{}')")
        insert(connection, [sample(LOAD, n, n) for n in range(1, 11)])
        settle(connection, accept([(n, 1, n) for n in range(1, 10, 2)]))
    replacement.replace(path, NOW, {})
    assert [key[0] for key in content(path)] == [2, 4, 6, 8, 10]
    with reading(path) as connection:
        settle(connection, accept([(2, 1, 2)]))
    assert query(path, "SELECT max(id) FROM upload_checkpoints") == [(2,)]
