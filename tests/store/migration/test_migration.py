"""Databases of versions 1 and 2 become version 3, with any content and after any interruption."""

import json
import math
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from belatwist.errors import StartError
from belatwist.model import Series, sample
from belatwist.store.migration import steps
from belatwist.store.sql import schema
from tests import strategies
from tests.fakes import inline_store
from tests.log_events import Captured
from tests.process import TIMEOUT, Twistd, free_port, write_config
from tests.store import suite
from tests.store.databases import fresh, make_version, reading
from tests.store.migration import legacy_databases
from tests.store.migration.legacy_databases import row, version_1, version_2
from tests.store.stores import InFolder, query, sessions

NOW_MS = 1_770_000_000_000
MADE = '{"made_by":"migration"}'
VIEW = (
    "SELECT metric_name, timestamp_ms, device_id, tags, value_type,"
    " coalesce(value_text, metric_value), uploaded FROM metrics"
)

Identity = tuple[str, int, str, str, int]
Content = dict[Identity, tuple[float | str, int | None]]
"""What the view says: value and state of each identity."""


def opened(path: Path) -> sqlite3.Connection:
    """Open a database as the store does."""
    connection = sqlite3.connect(path)
    schema.configure(connection, synchronous="full", cache_mb=8, mmap_mb=0)
    return connection


def migrated(path: Path, *, rows_a_step: int = 5000) -> steps.Result:
    """Migrate to the end, and hold what must be so after any migration."""
    with closing(opened(path)) as connection:
        migration = steps.Migration(NOW_MS, rows_a_step=rows_a_step)
        while migration.step(connection):
            pass
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert schema.version(connection) == schema.VERSION
    return migration.result


def content(path: Path) -> Content:
    """Read the view; no identity may be in it twice."""
    rows = query(path, VIEW)
    found: Content = {one[:5]: one[5:] for one in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database is to be."""
    return tmp_path / "metrics.db"


def layout(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return everything that a database's schema says."""
    return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def test_version_1(path: Path) -> None:
    """Every row of version 1 is a pending sample without tags, in a session made for them."""
    version_1(
        path,
        [
            {"timestamp_ms": 2000, "metric_name": "cpu.temperature", "metric_value": 40.5,
             "device_id": "box"},
            {"timestamp_ms": 1000, "metric_name": "cpu.temperature", "metric_value": 40.0,
             "device_id": "box"},
            {"timestamp_ms": 2000, "metric_name": "cpu.temperature", "metric_value": 41.0,
             "device_id": "box"},
        ],
    )  # fmt: skip
    assert migrated(path) == steps.Result(2, 0, 1, {}, None)
    assert content(path) == {
        ("cpu.temperature", 2000, "box", "{}", 0): (40.5, 0),
        ("cpu.temperature", 1000, "box", "{}", 0): (40.0, 0),
    }
    assert query(path, "SELECT DISTINCT session_id, priority, batch_id FROM metrics") == [
        ("before-migration", 2, None)
    ]
    assert query(path, "SELECT start_time, end_time, status, metadata FROM sessions") == [
        (1000, 2000, "completed", MADE)
    ]
    assert query(path, "SELECT version, applied_at FROM schema_version") == [
        (3, "2026-02-02T02:40:00+00:00")
    ]


@pytest.mark.parametrize("make", [version_1, version_2])
def test_an_empty_table(
    path: Path, make: Callable[[Path, Iterable[legacy_databases.Old]], None]
) -> None:
    """A database without a single row is migrated as well."""
    make(path, [])
    assert migrated(path) == steps.Result(0, 0, 0, {}, None)
    assert content(path) == {}


@pytest.mark.parametrize("make", [version_1, version_2])
def test_the_layout_is_that_of_a_new_database(
    path: Path, make: Callable[[Path, Iterable[legacy_databases.Old]], None]
) -> None:
    """A migrated database cannot be told from a new one by its schema, nor by its pragmas."""
    make(path, [row()])
    migrated(path)
    with reading(path) as connection, closing(fresh()) as new:
        assert layout(connection) == layout(new)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_what_lies_between_the_versions(path: Path) -> None:
    """A database that an earlier migration left between 1 and 2 is migrated by its columns."""
    version_2(path, [row(uploaded=1)], marks=False)
    with reading(path) as connection:
        connection.executescript(
            "DELETE FROM schema_version; DROP TABLE sessions; DROP INDEX idx_uploaded;"
            "ALTER TABLE metrics DROP COLUMN priority"
        )
    migrated(path)
    assert content(path) == {("m", 1000, "box", "{}", 0): (1.0, 1)}


def test_the_history_of_versions_is_kept(path: Path) -> None:
    """``schema_version`` tells when each version was applied."""
    version_2(path, [])
    migrated(path)
    assert query(path, "SELECT version, applied_at FROM schema_version ORDER BY id") == [
        (1, "2025-10-01"),
        (2, "2025-10-02"),
        (3, "2026-02-02T02:40:00+00:00"),
    ]


@pytest.mark.parametrize(
    ("columns", "tags"),
    [
        ({"tags": None}, "{}"),
        ({"tags": ""}, "{}"),
        ({"tags": " \n"}, "{}"),
        ({"tags": "{}"}, "{}"),
        ({"tags": "null"}, "{}"),
        ({"tags": '{ "b" : "2",  "a": "1" }'}, '{"a":"1","b":"2"}'),
        ({"tags": b'{"core":"0"}'}, '{"core":"0"}'),
        ({"tags": '{"core":0,"x":1.50,"on":true,"off":false,"none":null,"":"e"}'},
         '{"":"e","core":"0","off":"false","on":"true","x":"1.50"}'),
        ({"tags": '{"a":"","b":"\\u00e9"}'}, '{"b":"é"}'),
        ({"tags": '{"a":"1","a":"2"}'}, '{"a":"2"}'),
        ({"tags": '{"big":' + "9" * 5000 + "}"}, '{"big":"' + "9" * 5000 + '"}'),
    ],
)  # fmt: skip
def test_tags(path: Path, columns: legacy_databases.Old, tags: str) -> None:
    """Tags come in any spelling, and are kept in the canonical one."""
    version_2(path, [row(**columns)])
    assert migrated(path).leftovers == {}
    assert list(content(path)) == [("m", 1000, "box", tags, 0)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"uploaded": 0}, 0),
        ({"uploaded": None}, 0),
        ({"uploaded": 1}, 1),
        ({"uploaded": 2}, 2),
        ({"uploaded": True}, 1),
        ({"uploaded": 3}, 0),
        ({"uploaded": -1}, 0),
        ({"uploaded": "yes"}, 0),
        ({"uploaded": b"\xff"}, 0),
    ],
)
@pytest.mark.parametrize("marks", [True, False])
def test_state(path: Path, columns: legacy_databases.Old, expected: int, marks: bool) -> None:
    """What was sent is not sent again, what was rejected stays so, all else is pending."""
    version_2(path, [row(**columns)], marks=marks)
    migrated(path)
    assert content(path) == {("m", 1000, "box", "{}", 0): (1.0, expected)}
    pending = "SELECT count(*) FROM samples INDEXED BY idx_uploaded WHERE checkpoint_id IS NULL"
    assert query(path, pending) == [(int(expected == 0),)]


@pytest.mark.parametrize(
    ("given_priority", "expected"),
    [(0, 0), (3, 3), (None, 2), (-5, 0), (99, 3), ("high", 2), (1.5, 2), (2**62, 3)],
)
def test_priority(path: Path, given_priority: object, expected: int) -> None:
    """A priority is brought within the bounds of those that are ever sent."""
    version_2(path, [row(priority=given_priority)])
    migrated(path)
    assert query(path, "SELECT priority FROM metrics") == [(expected,)]


ODD: list[tuple[dict[str, Any], str]] = [
    ({"metric_value": None}, "the value is no finite number"),
    ({"metric_value": math.inf}, "the value is no finite number"),
    ({"metric_value": -math.inf}, "the value is no finite number"),
    ({"metric_value": math.nan}, "the value is no finite number"),
    ({"metric_value": "much"}, "the value is no finite number"),
    ({"metric_value": b"\xff\xfe"}, "the value is no finite number"),
    ({"value_type": 1}, "there is no text"),
    ({"value_type": 1, "value_text": b"\xff"}, "a text is not valid Unicode"),
    ({"value_type": 7}, "the value is of no known type"),
    ({"value_type": "text"}, "the value is of no known type"),
    ({"timestamp_ms": 1.5}, "the timestamp is no time in whole milliseconds"),
    ({"timestamp_ms": "noon"}, "the timestamp is no time in whole milliseconds"),
    ({"timestamp_ms": 2**43}, "the timestamp is no time in whole milliseconds"),
    ({"timestamp_ms": -(2**43)}, "the timestamp is no time in whole milliseconds"),
    ({"metric_name": ""}, "the name is empty"),
    ({"metric_name": b"\xff"}, "a text is not valid Unicode"),
    ({"device_id": b"\xc3("}, "a text is not valid Unicode"),
    ({"tags": "{"}, "the tags are not JSON"),
    ({"tags": '{"a":"1"} '+ "{}"}, "the tags are not JSON"),
    ({"tags": "[" * 100_000}, "the tags are not JSON"),
    ({"tags": '["a"]'}, "the tags are no JSON object"),
    ({"tags": "5"}, "the tags are no JSON object"),
    ({"tags": '{"a":{"b":"c"}}'}, "a tag is no text"),
    ({"tags": '{"a":["b"]}'}, "a tag is no text"),
    ({"tags": '{"a":"\\ud800"}'}, "a text is not valid Unicode"),
    ({"tags": b'{"a":"\xff"}'}, "a text is not valid Unicode"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "reason"), ODD)
def test_what_cannot_be_a_sample_is_kept_aside(
    path: Path, columns: legacy_databases.Old, reason: str
) -> None:
    """An odd row is put aside whole, with the reason; its neighbours are migrated."""
    version_2(path, [row(timestamp_ms=1), row(**columns), row(timestamp_ms=3)])
    with reading(path) as connection:
        connection.text_factory = bytes
        odd = connection.execute("SELECT * FROM metrics WHERE id = 2").fetchall()
    assert migrated(path) == steps.Result(2, 0, 0, {reason: 1}, None)
    with reading(path) as connection:
        connection.text_factory = bytes
        kept = connection.execute("SELECT * FROM migration_leftovers").fetchall()
    assert [repr(one) for one in kept] == [repr((reason.encode(), *one)) for one in odd]
    assert [key[1] for key in content(path)] == [1, 3]


def test_odd_but_possible(path: Path) -> None:
    """What is unusual and can be a sample is one, with its value as it was."""
    version_2(
        path,
        [
            row(timestamp_ms=0),
            row(timestamp_ms=-1),
            row(timestamp_ms=2**43 - 1, metric_value=5e-324),
            row(device_id=None, value_type=None),
            row(metric_name="a\0b", tags='{"t":"\\u0000"}'),
            row(value_type=1, value_text="", metric_value=3.0),
            row(value_type=1, value_text="lost", uploaded=1, timestamp_ms=7, dedup_key="7"),
            row(value_type=1, value_text="found", timestamp_ms=7, dedup_key="8"),
        ],
    )
    assert migrated(path) == steps.Result(5, 2, 1, {}, None)
    assert content(path) == {
        ("m", 0, "box", "{}", 0): (1.0, 0),
        ("m", -1, "box", "{}", 0): (1.0, 0),
        ("m", 2**43 - 1, "box", "{}", 0): (5e-324, 0),
        ("m", 1000, "", "{}", 0): (1.0, 0),
        ("a\0b", 1000, "box", '{"t":"\\u0000"}', 0): (1.0, 0),
        ("m", 1000, "box", "{}", 1): ("", None),
        ("m", 7, "box", "{}", 1): ("lost", None),
    }


@pytest.mark.parametrize(
    ("states", "winner"),
    [
        ((0, 0), 0),
        ((0, 1), 1),
        ((1, 0), 0),
        ((1, 1), 0),
        ((2, 1), 1),
        ((1, 2), 0),
        ((2, 0), 1),
        ((0, 2), 0),
        ((2, 2), 0),
        ((2, 0, 1), 2),
        ((0, 2, 1, 1, 0), 2),
    ],
)
@pytest.mark.parametrize("rows_a_step", [1, 100])
def test_duplicates(path: Path, states: Sequence[int], winner: int, rows_a_step: int) -> None:
    """Rows of the same identity become one: the first that was accepted, else is pending.

    Tags are the same in any spelling.
    """
    rows = [
        row(
            uploaded=state,
            metric_value=float(n),
            priority=n % 4,
            session_id=f"s{n}",
            batch_id="b",
            chunk_index=n,
            tags=('{"a":"1","b":"2"}', '{"b": "2", "a": "1"}')[n % 2],
        )
        for n, state in enumerate(states)
    ]
    version_2(path, rows)
    assert migrated(path, rows_a_step=rows_a_step).duplicates == len(states) - 1
    columns = "metric_value, uploaded, priority, session_id, chunk_index"
    chunk = winner if states[winner] else None
    assert query(path, f"SELECT {columns} FROM metrics") == [
        (float(winner), states[winner], winner % 4, f"s{winner}", chunk)
    ]


def test_settlements(path: Path) -> None:
    """Settlements are kept; an uploaded row points at its own, or at one that is made for it."""
    version_2(
        path,
        [
            row(timestamp_ms=1, uploaded=1, batch_id="a", chunk_index=1),
            row(timestamp_ms=2, uploaded=1, batch_id="b", chunk_index=0),
            row(timestamp_ms=3, uploaded=1, batch_id="b", chunk_index=0),
            row(timestamp_ms=4, uploaded=1, batch_id="b", chunk_index=None),
            row(timestamp_ms=5, uploaded=1, batch_id="", chunk_index=5),
            row(timestamp_ms=6, uploaded=2, batch_id="a", chunk_index=1),
            row(timestamp_ms=7, uploaded=0, batch_id="a", chunk_index=1),
        ],
        checkpoints=[(3, "a", 0, 17, 18, 19, 50), (4, "a", 1, 27, 28, None, None)],
    )
    migrated(path, rows_a_step=2)
    columns = (
        "id, batch_id, chunk_index, last_uploaded_id, last_uploaded_timestamp, upload_time,"
        " metrics_count, outcome, reason"
    )
    assert query(path, f"SELECT {columns} FROM upload_checkpoints ORDER BY id") == [
        (3, "a", 0, 17, 18, 19, 50, 1, None),
        (4, "a", 1, 27, 28, NOW_MS, None, 1, None),
        (5, "b", 0, None, 3, NOW_MS, 2, 1, "uploaded before the migration"),
        (6, "before-migration", 0, None, 5, NOW_MS, 2, 1, "uploaded before the migration"),
        (7, "a", 1, None, 6, NOW_MS, 1, 2, "rejected before the migration"),
    ]
    assert query(path, "SELECT timestamp_ms, checkpoint_id FROM samples") == [
        *((1, 4), (2, 5), (3, 5), (4, 6), (5, 6), (6, 7), (7, None)),
    ]


def test_sessions(path: Path) -> None:
    """Sessions are kept, in their order; those that only rows tell of are made from them."""
    version_2(
        path,
        [
            row(timestamp_ms=5, session_id="done"),
            row(timestamp_ms=9, session_id="unheard"),
            row(timestamp_ms=3, session_id="unheard"),
            row(timestamp_ms=6, session_id="unheard"),
            row(timestamp_ms=7, session_id=None),
            row(timestamp_ms=8, session_id=""),
        ],
        sessions=[
            ("done", 1, 4, "completed", '{"a":1}'),
            ("crashed", 2, None, "active", None),
            ("odd", 3, None, None, None),
            ("odder", 4, 5, "paused", None),
            (None, 5, 6, "failed", None),
        ],
    )
    migrated(path, rows_a_step=2)
    columns = "number, id, start_time, end_time, status, metadata"
    assert query(path, f"SELECT {columns} FROM sessions ORDER BY number") == [
        (1, "done", 1, 4, "completed", '{"a":1}'),
        (2, "crashed", 2, None, "active", None),
        (3, "odd", 3, None, "active", None),
        (4, "odder", 4, 5, "completed", None),
        (5, "unnamed-5", 5, 6, "failed", None),
        (6, "unheard", 3, 9, "completed", MADE),
        (7, "before-migration", 7, 8, "completed", MADE),
    ]
    assert query(path, "SELECT timestamp_ms, session_id FROM metrics ORDER BY id") == [
        *((3, "unheard"), (5, "done"), (6, "unheard")),
        *((7, "before-migration"), (8, "before-migration"), (9, "unheard")),
    ]


def test_no_id_is_left_for_a_series(path: Path) -> None:
    """A row whose series cannot get an id is put aside, and ends nothing."""
    version_2(path, [row(timestamp_ms=1), row(metric_name="other"), row(timestamp_ms=3)])
    with closing(opened(path)) as connection:
        migration = steps.Migration(NOW_MS)
        migration.step(connection)
        values = (schema.ID_BASE - 2, "filler", "box", "{}", 0)
        connection.execute("INSERT INTO series VALUES (?, ?, ?, ?, ?)", values)
        connection.commit()
        while migration.step(connection):
            pass
    assert migration.result.leftovers == {"no id is left for another series": 1}
    assert [key[1] for key in content(path)] == [1, 3]


def test_more_series_than_are_remembered(path: Path) -> None:
    """What is remembered of ids is bounded, and looked up again where it was forgotten."""
    version_2(path, [row(timestamp_ms=n // 7, tags=f'{{"n":"{n % 7}"}}') for n in range(70)])
    with mock.patch("belatwist.store.migration.rows._REMEMBERED", 3):
        assert migrated(path, rows_a_step=5).samples == 70
    assert query(path, "SELECT count(*) FROM series") == [(7,)]


def test_views_of_others_read_the_new_view(path: Path) -> None:
    """What an operator built on the old table works on; triggers and indexes of it are gone."""
    version_2(path, [row(timestamp_ms=1), row(timestamp_ms=2)])
    with reading(path) as connection:
        connection.executescript("""
            CREATE TABLE notes (text);
            CREATE VIEW latest AS SELECT max(timestamp_ms) AS at FROM metrics;
            CREATE INDEX "my ""own"" index" ON metrics (session_id);
            CREATE TRIGGER keep BEFORE DELETE ON metrics
            BEGIN SELECT RAISE(ABORT, 'never'); END;
        """)
    migrated(path)
    assert query(path, "SELECT at FROM latest") == [(2,)]
    assert query(path, "SELECT count(*) FROM notes") == [(0,)]


def test_space_is_given_back(path: Path) -> None:
    """The file shrinks, its log is emptied, and on the way it hardly grows."""
    version_2(path, legacy_databases.mixed(10_000))
    before = path.stat().st_size
    largest = 0
    with closing(opened(path)) as connection:
        migration = steps.Migration(NOW_MS, rows_a_step=500)
        while migration.step(connection):
            wal = path.with_name("metrics.db-wal").stat().st_size
            largest = max(largest, path.stat().st_size + wal)
        assert path.with_name("metrics.db-wal").stat().st_size == 0
        assert connection.execute("PRAGMA temp_store").fetchone() == (2,)
        assert connection.execute("PRAGMA page_size").fetchone() == (schema.PAGE_SIZE,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    # SQLite writes its log back at a thousand pages, which have the old size until the end.
    assert largest < before + 1100 * 4096 + 500 * 400
    assert path.stat().st_size < before / 5


def test_while_others_read_the_pages_keep_their_size(path: Path) -> None:
    """A program that has the file open keeps it from being laid out anew, and from nothing else."""
    version_2(path, legacy_databases.mixed(10_000))
    before = path.stat().st_size
    with closing(opened(path)) as connection, closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
        migration = steps.Migration(NOW_MS, rows_a_step=500)
        while migration.step(connection):
            pass
        assert migration.result.unshrunk is None
        assert connection.execute("PRAGMA page_size").fetchone() == (4096,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert path.stat().st_size < before / 5


def test_a_reader_that_comes_meanwhile(path: Path) -> None:
    """While the file is laid out anew nobody else is let in: the log could not be had again."""
    version_2(path, legacy_databases.mixed(1000))
    readers = []

    def run(statement: str) -> None:
        if statement == "VACUUM" and not path.with_name("metrics.db-wal").exists():
            reader = sqlite3.connect(path, timeout=0, isolation_level=None)
            readers.append(reader)
            reader.execute("BEGIN")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                reader.execute("SELECT count(*) FROM sqlite_master").fetchall()

    with closing(opened(path)) as connection:
        connection.execute("PRAGMA busy_timeout=1")
        connection.set_trace_callback(run)
        migration = steps.Migration(NOW_MS)
        while migration.step(connection):
            pass
        assert migration.result.unshrunk is None
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(readers) == 1
    readers[0].close()
    assert query(path, "PRAGMA page_size") == [(schema.PAGE_SIZE,)]


def test_laying_out_anew_takes_no_more_than_is_asked_for(path: Path) -> None:
    """A log or a journal is never larger than the content: not as large as the file before."""
    version_2(path, legacy_databases.mixed(10_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    migration = steps.Migration(NOW_MS, rows_a_step=500)
    with closing(opened(path)) as connection:
        migration.step(connection)
        while query(path, "SELECT 1 FROM sqlite_master WHERE name = 'migration_metrics'"):
            migration.step(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        most = path.stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            assert not migration.step(connection)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert migration.result.unshrunk is None
    assert query(path, "PRAGMA page_size") == [(schema.PAGE_SIZE,)]


def test_without_room_the_free_pages_are_kept(path: Path) -> None:
    """On a full disk nothing is written anew; the migration is finished all the same."""
    version_2(path, legacy_databases.mixed(1000))
    full = os.statvfs_result((4096, 4096, 1000, 1, 1, 0, 0, 0, 0, 255))
    with mock.patch("os.statvfs", return_value=full):
        result = migrated(path)
    assert result.unshrunk is not None
    assert result.unshrunk.endswith("bytes are needed for that and 4,096 are free")
    assert query(path, "PRAGMA auto_vacuum") == [(0,)]
    assert query(path, "PRAGMA freelist_count")[0][0] > 0


def test_a_reader_keeps_the_file_from_shrinking_only(path: Path) -> None:
    """Another program that reads all the while does not keep the migration from its end."""
    version_2(path, legacy_databases.mixed(1000))
    with reading(path) as other:
        cursor = other.execute("SELECT count(*) FROM metrics")
        other.execute("BEGIN")
        other.execute("SELECT * FROM metrics").fetchone()
        with closing(opened(path)) as connection:
            connection.execute("PRAGMA busy_timeout=1")
            migration = steps.Migration(NOW_MS)
            while migration.step(connection):
                pass
        cursor.close()
    assert migration.result.samples > 0
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


# Any content of version 2.

_name = strategies.texts
_tags = st.one_of(
    st.sampled_from([None, "", "{}", " {} ", "null", "{", "[]", '{"a":1}', '{"a":"1"}']),
    strategies.tags().map(json.dumps),
    strategies.tags().map(lambda tags: json.dumps(dict(sorted(tags.items())[::-1]), indent=1)),
)
_row = st.fixed_dictionaries(
    {
        "timestamp_ms": st.integers(1, 4) | strategies.timestamps,
        "metric_name": st.sampled_from(["a", "b"]) | _name,
        "metric_value": strategies.numbers | st.sampled_from([None, math.inf, math.nan]),
        "value_text": st.none() | _name,
        "value_type": st.sampled_from([0, 0, 0, 1, None]),
        "tags": _tags,
        "session_id": st.sampled_from([None, "", "known", "unknown"]),
        "device_id": st.sampled_from(["box", "box", None, "other"]),
        "uploaded": st.sampled_from([0, 0, 1, 2, None]),
        "priority": st.sampled_from([0, 1, 2, 3, None, -1]),
        "batch_id": st.sampled_from([None, "kept", "made"]),
        "chunk_index": st.sampled_from([None, 0, 1]),
    }
)


def expected(rows: Iterable[Mapping[str, Any]]) -> tuple[Content, int]:
    """Say what is to come of rows, told by the rules; and how many cannot be samples."""
    found: Content = {}
    odd = 0
    rank = {1: 2, 0: 1, 2: 0}
    for one in rows:
        kind = one["value_type"] or 0
        value = one["value_text"] if kind else one["metric_value"]
        try:
            tags = json.loads(one["tags"] or "{}") or {}
            tags = {k: str(v) for k, v in tags.items()}
        except (ValueError, AttributeError):
            tags = None
        if one["tags"] == "[]":
            tags = None
        finite = value is not None and (kind == 1 or math.isfinite(value))
        if tags is None or not finite or not one["metric_name"]:
            odd += 1
        else:
            series = Series.of(one["metric_name"], one["device_id"] or "", tags)
            key = (series.name, one["timestamp_ms"], series.device_id, series.tags_json, kind)
            state = None if kind else one["uploaded"] or 0
            known = found.get(key)
            if known is None or (
                known[1] is not None and state is not None and rank[state] > rank[known[1]]
            ):
                found[key] = (value, state)
    return found, odd


@settings(max_examples=120)
@given(st.lists(_row, max_size=25), st.integers(1, 8), st.booleans())
def test_any_content(rows: list[dict[str, Any]], rows_a_step: int, marks: bool) -> None:
    """Every identity is there exactly once, with its value and its state; nothing is lost."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.db"
        version_2(
            path,
            rows,
            sessions=[("known", 1, None, "active", None)],
            checkpoints=[(1, "kept", 0, 1, 1, 1, 1)],
            marks=marks,
        )
        result = migrated(path, rows_a_step=rows_a_step)
        wanted, odd = expected(rows)
        assert content(path) == wanted
    assert sum(result.leftovers.values()) == odd
    assert result.samples + result.texts + result.duplicates + odd == len(rows)


# Ended anywhere.


def interrupted(path: Path, after: int) -> bool:
    """Migrate until some number of SQLite's instructions are done; tell whether that ended it."""
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return int(calls > after)

    with closing(opened(path)) as connection:
        migration = steps.Migration(NOW_MS, rows_a_step=7)
        connection.set_progress_handler(count, 100)
        try:
            while migration.step(connection):
                pass
        except sqlite3.OperationalError as error:
            return str(error) == "interrupted"
        return False


def test_it_can_be_ended_anywhere(tmp_path: Path) -> None:
    """Ended after any number of instructions and begun again, it comes to the same."""
    origin = tmp_path / "origin.db"
    rows = [
        *legacy_databases.mixed(30),
        row(uploaded=1),
        row(tags="{"),
        row(value_type=1, value_text="x"),
    ]
    version_2(origin, rows, sessions=[("s", 1, None, "active", None)])
    wanted, _ = expected({"value_text": None, "value_type": 0, "uploaded": 0} | r for r in rows)
    ended = 0
    for after in range(10_000):
        path = tmp_path / f"{after}.db"
        shutil.copyfile(origin, path)
        if not interrupted(path, after):
            break
        ended += 1
        with reading(path) as connection:
            steps.check(connection)
            version = schema.version(connection)
            assert version in {2, 3}
        if version == 2:
            migrated(path)
        assert content(path) == wanted
        assert query(path, "SELECT count(*) FROM migration_leftovers") == [(1,)]
        path.unlink()
    assert ended > 20


ROWS = 200_000
PROGRAM = f"""
import sys
from pathlib import Path
from belatwist.store.migration import steps
from tests.store.migration.test_migration import opened
connection = opened(Path(sys.argv[1]))
migration = steps.Migration({NOW_MS})
print("begin", flush=True)
while migration.step(connection):
    print(migration.moved, flush=True)
print("done", flush=True)
"""


def run_until(path: Path, steps: int, seconds: float) -> str:
    """Migrate in a process that is killed some time after some steps; its last line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        for _ in range(steps + 1):
            process.stdout.readline()
        timer = threading.Timer(seconds, process.send_signal, [signal.SIGKILL])
        timer.start()
        lines = process.stdout.read().splitlines()
        process.wait()
        timer.cancel()
    assert process.returncode == -signal.SIGKILL
    return lines[-1] if lines else ""


@pytest.mark.process
def test_killed_ten_times(path: Path) -> None:
    """Two hundred thousand rows, SIGKILL at ten random moments of one migration: all is there."""
    rng = random.Random(20)
    version_2(path, legacy_databases.mixed(ROWS))
    wanted, odd = expected(
        {"value_text": None, "value_type": 0} | one | {"uploaded": int(one["uploaded"])}
        for one in legacy_databases.mixed(ROWS)
    )
    moved = []
    for _ in range(10):
        assert run_until(path, rng.randrange(4), rng.uniform(0, 0.03)) != "done"
        with reading(path) as connection:
            assert schema.version(connection) == 2
            tables = {one[0] for one in connection.execute("SELECT name FROM sqlite_master")}
            if "migration_progress" in tables:
                moved += connection.execute("SELECT moved FROM migration_progress").fetchone()
    assert moved == sorted(moved)
    assert 0 < moved[-1] < ROWS
    result = migrated(path)
    assert content(path) == wanted
    assert result == steps.Result(
        sum(1 for key in wanted if key[4] == 0),
        sum(1 for key in wanted if key[4] == 1),
        ROWS - len(wanted) - odd,
        {"the value is no finite number": odd},
        None,
    )


# The store, and the service.


class StoreTests(InFolder):
    """Opening a store on an earlier database."""

    def test_opening_migrates(self) -> None:
        """What was pending is pending, what is known is not stored again, the log says what was."""
        rows = [row(timestamp_ms=n, uploaded=n % 3) for n in range(1, 10)]
        rows += [row(timestamp_ms=3), row(tags="{"), row(metric_value=None)]
        version_2(self.path, rows, sessions=[("old", 1, None, "active", None)])
        with Captured() as log:
            store = self.opened(self.path, now_ms=NOW_MS)
        self.assertEqual(store.pending, 3)
        rows_pending = self.successResultOf(store.fetch(10, suite.EVER)).rows
        self.assertEqual([one[0] for one in rows_pending], [3, 6, 9])
        known = sample(Series.of("m", "box"), 1, 5.0)
        self.assertEqual(self.successResultOf(store.add([known])), 0)
        self.assertEqual(sessions(self.path)["old"], ("failed", 1))
        self.assertEqual(
            log.texts(LogLevel.info)[:2],
            [
                "Migrating the database from version 2: 0 of 12 rows",
                "Migrated the database from version 2 to 3: 12 rows, 1 of them duplicates,"
                " in 0.0 s",
            ],
        )
        self.assertEqual(
            log.texts(LogLevel.warn)[0],
            "2 rows cannot be samples; the table migration_leftovers keeps them:"
            " 1 because the tags are not JSON; 1 because the value is no finite number",
        )

    def test_opening_can_be_interrupted(self) -> None:
        """A stop need not wait for a long migration: it ends with a transaction, and goes on."""
        version_2(self.path, [row()])
        store = inline_store(self.path)
        store.database.interrupt()
        self.successResultOf(Deferred.fromCoroutine(store.open("s1", 1000)))
        self.close(store)
        self.assertEqual(query(self.path, "SELECT count(*) FROM sessions"), [(0,)])
        with reading(self.path) as connection:
            self.assertEqual(schema.version(connection), 2)
        self.assertEqual(self.opened(self.path).pending, 1)

    def test_a_table_of_that_name_is_not_enough(self) -> None:
        """A database that lacks our columns is refused, and stays as it was."""
        for script in (
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, value REAL)",
            "CREATE TABLE metrics (timestamp_ms, metric_name, device_id)",
            f"{legacy_databases.VERSION_2}; DROP TABLE metrics",
            "CREATE TABLE schema_version (version INTEGER)",
        ):
            self.path.unlink(missing_ok=True)
            with reading(self.path) as connection:
                connection.executescript(script)
            before = self.path.read_bytes()
            store = inline_store(self.path)
            opening = Deferred.fromCoroutine(store.open("s1", NOW_MS))
            error = self.failureResultOf(opening, StartError)
            self.close(store)
            self.assertIn("is a database of another program", str(error.value))
            self.assertEqual(self.path.read_bytes(), before)

    def test_little_room_is_said(self) -> None:
        """When the file cannot be made smaller, one line says why."""
        version_2(self.path, [row()])
        full = os.statvfs_result((4096, 4096, 1000, 1, 1, 0, 0, 0, 0, 255))
        with Captured() as log, mock.patch("os.statvfs", return_value=full):
            self.opened(self.path)
        self.assertEqual(len(log.texts(LogLevel.warn)), 1)
        self.assertIn("could not be made smaller", log.texts(LogLevel.warn)[0])


def test_another_table_in_the_way(path: Path) -> None:
    """Where a table of somebody else's has a name of ours, nothing at all is changed."""
    version_2(path, [row()])
    with reading(path) as connection:
        connection.execute("CREATE TABLE series (mine)")
        before = layout(connection)
    with closing(opened(path)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="table series already exists"):
            steps.Migration(NOW_MS).step(connection)
        assert layout(connection) == before
        assert connection.execute("SELECT count(*) FROM metrics").fetchone() == (1,)


@pytest.mark.process
def test_the_service_uploads_only_what_was_pending(tmp_path: Path) -> None:
    """A real start on an old database: migrated, said so, and nothing is sent a second time."""
    now = 1_760_000_000_000
    rows = [
        row(timestamp_ms=now + n, metric_name="old.metric", uploaded=n % 3 if n % 3 < 2 else 0)
        for n in range(300)
    ]
    version_2(tmp_path / "metrics.db", rows, sessions=[("old", now, None, "active", None)])
    url = f"http://127.0.0.1:{free_port()}"
    remote = {"enabled": True, "url": f"{url}/api/v1/import", "upload_interval": "1s"}
    config = write_config(
        tmp_path,
        remote=remote,
        metrics=[{"name": "cpu.usage", "enabled": False}],
        monitoring={"clock_hold": "100ms"},
    )
    with Twistd("bela", "--config", str(config), "--with-receiver", cwd=tmp_path) as service:
        service.expect_event("migration.completed")
        service.expect_event("upload.completed")
        with urllib.request.urlopen(f"{url}/api/v1/series", timeout=TIMEOUT) as answer:
            received = {one["metric"]["__name__"]: one["samples"] for one in json.load(answer)}
        assert service.stop() == 0
    assert received["old_metric"] == 200
    state = "SELECT uploaded, batch_id = 'before-migration', count(*) FROM metrics"
    assert query(
        tmp_path / "metrics.db", f"{state} WHERE metric_name = 'old.metric' GROUP BY 1, 2"
    ) == [(1, 0, 200), (1, 1, 100)]
    assert sessions(tmp_path / "metrics.db")["old"][0] == "failed"


@pytest.mark.process
def test_version_4_is_refused_untouched(tmp_path: Path) -> None:
    """A real start on a newer database: one line, status 1, not a byte changed."""
    path = tmp_path / "metrics.db"
    make_version(path, 4)
    before = path.read_bytes()
    config = write_config(tmp_path)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        assert "version 4" in service.expect_event("Start failed: database ")["msg"]
        assert service.wait() == 1
    assert path.read_bytes() == before
