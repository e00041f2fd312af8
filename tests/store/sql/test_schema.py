"""The schema: versions, pragmas, and the view ``metrics``."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from belatwist.errors import StartError
from belatwist.model import Sample, Series, sample
from belatwist.store.sql import queries, schema
from tests.store.databases import (
    BATCH,
    CORE,
    LOAD,
    STATE,
    accept,
    fresh,
    insert,
    make_foreign,
    make_version,
    make_version_1,
    reading,
    reject,
    settle,
)

COLUMNS = [
    *("id", "timestamp_ms", "metric_name", "metric_value", "value_text", "value_type", "tags"),
    *("session_id", "device_id", "uploaded", "priority", "dedup_key", "batch_id", "chunk_index"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a database is to be."""
    return tmp_path / "metrics.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A database in a file, without anything in it."""
    with closing(sqlite3.connect(path)) as opened:
        yield opened


def configure(connection: sqlite3.Connection, **changes: Any) -> None:
    """Configure as the store does by default."""
    options: dict[str, Any] = {"synchronous": "full", "cache_mb": 8, "mmap_mb": 0}
    schema.configure(connection, **options | changes)


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    """Read a pragma."""
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def filled() -> sqlite3.Connection:
    """A database with a pending, an accepted, a rejected and a text sample, at 1 to 4 ms."""
    connection = fresh()
    insert(
        connection,
        [
            sample(LOAD, 1, 0.5),
            sample(CORE, 2, 7),
            sample(CORE, 3, -0.25),
            Sample(STATE, 4, "connected"),
        ],
    )
    settle(connection, accept([(2, 2, 7)], 3), reject([(3, 2, -0.25)], "HTTP 422", 4))
    return connection


def metrics(connection: sqlite3.Connection, columns: str, where: str = "1") -> list[Any]:
    """Read columns of the view, by id."""
    return connection.execute(f"SELECT {columns} FROM metrics WHERE {where} ORDER BY id").fetchall()


def test_an_empty_database_has_version_0(connection: sqlite3.Connection) -> None:
    """A new file, and one whose tables were never committed, are version 0."""
    assert schema.version(connection) == 0
    connection.execute("PRAGMA journal_mode=wal").fetchall()
    assert schema.version(connection) == 0


def test_a_version_1_database_is_told_by_its_table(path: Path) -> None:
    """The first layout has no ``schema_version``: its table of samples tells it."""
    make_version_1(path)
    with reading(path) as connection:
        assert schema.version(connection) == 1


@pytest.mark.parametrize("version", [2, 3, 4, 99])
def test_a_version_is_the_latest_that_was_applied(path: Path, version: int) -> None:
    """Of several recorded versions the highest is the database's."""
    make_version(path, version)
    with reading(path) as connection:
        assert schema.version(connection) == version


def test_a_created_database_is_of_our_version(db: sqlite3.Connection) -> None:
    """What is created says which version it is, and when it was made."""
    assert schema.version(db) == schema.VERSION
    rows = db.execute("SELECT version, applied_at FROM schema_version").fetchall()
    assert rows == [(3, "2026-01-01T00:00:00+00:00")]


def test_a_foreign_database_is_refused(path: Path) -> None:
    """A database of another program is not taken for an empty one."""
    make_foreign(path)
    with (
        reading(path) as connection,
        pytest.raises(StartError, match=r"^is a database of another program: it has no table"),
    ):
        schema.version(connection)


@pytest.mark.parametrize("content", [b"not a database, not at all " * 100, b"\0" * 5000])
def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    """A file of something else is refused in words."""
    path.write_bytes(content)
    with (
        reading(path) as connection,
        pytest.raises(StartError, match=r"^cannot be read as a database: [^\n]+$"),
    ):
        schema.version(connection)


def test_creating_is_durable_at_once(path: Path, connection: sqlite3.Connection) -> None:
    """The tables are in the file itself, not only in the log that a power cut may take away."""
    configure(connection)
    schema.create(connection, "now")
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    with reading(copy) as other:
        assert schema.version(other) == schema.VERSION
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_creating_is_one_transaction(connection: sqlite3.Connection) -> None:
    """A creation that is cut off leaves nothing behind, so that the next start makes it anew."""

    def deny(action: int, name: str | None, *rest: object) -> int:
        late = action == sqlite3.SQLITE_CREATE_VIEW
        return sqlite3.SQLITE_DENY if late else sqlite3.SQLITE_OK

    connection.set_authorizer(deny)
    with pytest.raises(sqlite3.DatabaseError):
        schema.create(connection, "now")
    connection.rollback()
    connection.set_authorizer(None)
    assert schema.version(connection) == 0
    schema.create(connection, "now")
    assert schema.version(connection) == schema.VERSION


@pytest.mark.parametrize(("synchronous", "number"), [("full", 2), ("normal", 1)])
def test_pragmas(connection: sqlite3.Connection, synchronous: str, number: int) -> None:
    """Every pragma has the value that was asked for."""
    configure(connection, synchronous=synchronous, cache_mb=4, mmap_mb=16, busy_timeout_ms=1234)
    schema.create(connection, "now")
    found = {
        name: pragma(connection, name)
        for name in (
            *("journal_mode", "synchronous", "busy_timeout", "temp_store", "mmap_size"),
            *("cache_size", "auto_vacuum", "secure_delete"),
        )
    }
    assert found == {
        "journal_mode": "wal",
        "synchronous": number,
        "busy_timeout": 1234,
        "temp_store": 2,
        "mmap_size": 16 * 1024 * 1024,
        "cache_size": -4 * 1024,
        "auto_vacuum": 2,
        "secure_delete": 0,
    }


def test_a_lock_is_waited_for_five_seconds(connection: sqlite3.Connection) -> None:
    """Unless told otherwise, another program's lock is waited for."""
    configure(connection)
    assert pragma(connection, "busy_timeout") == 5000


def test_without_a_log_it_does_not_start() -> None:
    """Where there can be no write-ahead log, the database is refused."""
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(StartError, match=r"^PRAGMA journal_mode: asked for wal, .* says memory$"),
    ):
        configure(connection)


def test_a_pragma_that_is_not_obeyed_is_refused(connection: sqlite3.Connection) -> None:
    """More mapping than this SQLite allows is refused, with what was asked for and what it has."""
    with pytest.raises(StartError, match=r"^PRAGMA mmap_size: asked for 4294967296, .* says \d+$"):
        configure(connection, mmap_mb=4096)


def test_an_older_database_keeps_its_auto_vacuum(path: Path) -> None:
    """What only an empty database takes does not keep one with tables from being opened."""
    with reading(path) as older:
        older.execute("CREATE TABLE t (a)")
        older.commit()
        configure(older)
        assert pragma(older, "auto_vacuum") == 0


def test_the_view_has_the_documented_columns(db: sqlite3.Connection) -> None:
    """The view is what other programs read: its columns, in their order."""
    assert [row[1] for row in db.execute("PRAGMA table_info(metrics)")] == COLUMNS


def test_the_view_spells_every_sample_out() -> None:
    """Each sample is one row with its series, its session and what became of it."""
    with closing(filled()) as connection:
        rows = metrics(connection, "*")
    base = 1 << 20
    load = ("system.load_1m", 0.5, None, 0, "{}", "s1", "box")
    cores = [("cpu.usage_percent", v, None, 0, '{"core":"0"}', "s1", "box") for v in (7.0, -0.25)]
    state = ("srt.state", None, "connected", 1, "{}", "s1", "box")
    assert rows == [
        (base + 1, 1, *load, 0, 2, "1-1", None, None),
        (2 * base + 2, 2, *cores[0], 1, 1, "2-2", BATCH, 3),
        (3 * base + 2, 3, *cores[1], 2, 1, "3-2", BATCH, 4),
        (4 * base + 3, 4, *state, None, 2, "4-3", None, None),
    ]


def test_the_view_gives_numbers_as_reals() -> None:
    """``metric_value`` is a real number whatever form the table keeps it in."""
    with closing(filled()) as connection:
        types = metrics(connection, "typeof(metric_value)", "value_type = 0")
    assert types == [("real",)] * 3


def test_uploaded_counts_pending_samples_only() -> None:
    """0 is pending, 1 accepted, 2 rejected; a text is never sent, and waits for nothing."""
    with closing(filled()) as connection:
        assert metrics(connection, "timestamp_ms", "uploaded = 0") == [(1,)]
        assert metrics(connection, "timestamp_ms", "uploaded = 1") == [(2,)]
        assert metrics(connection, "timestamp_ms", "uploaded = 2") == [(3,)]
        assert metrics(connection, "timestamp_ms", "uploaded IS NULL") == [(4,)]


def test_ids_and_keys_are_unique_and_ids_ordered_by_time(db: sqlite3.Connection) -> None:
    """No two samples, texts included, share an id or a key; a later one has the larger id."""
    many = [Series.of("m", "box", {"n": str(n)}) for n in range(30)]
    insert(db, [sample(one, ms, 1) for ms in (1, 2, 10**12, 2**43 - 1) for one in many])
    insert(db, [Sample(STATE, ms, "x") for ms in (1, 2, 10**12, 2**43 - 1)])
    rows = metrics(db, "id, timestamp_ms, dedup_key, typeof(id)")
    assert len({row[0] for row in rows}) == len({row[2] for row in rows}) == len(rows) == 4 * 31
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert {row[3] for row in rows} == {"integer"}


def test_a_series_id_stays_below_the_base(db: sqlite3.Connection) -> None:
    """An id that would break the order of sample ids is refused, not stored."""
    db.execute("INSERT INTO series VALUES (?, 'm', 'box', '{}', 0)", (schema.ID_BASE - 1,))
    with pytest.raises(sqlite3.IntegrityError):
        queries.series_id(db.cursor(), LOAD)
    assert insert(db, [sample(LOAD, 1, 1)]) == 0
    assert metrics(db, "id") == []
    assert db.execute("SELECT name FROM series").fetchall() == [("m",)]


def sqlite3_program() -> str:
    """Find the plain ``sqlite3`` program; a missing one fails where CI has installed it."""
    program = shutil.which("sqlite3")
    if program is None:
        assert not os.environ.get("BELA_REQUIRE_VICTORIA"), "the sqlite3 program is missing"
        pytest.skip("the sqlite3 program is not installed")
    return program


@pytest.mark.process
def test_the_view_is_readable_by_the_plain_program(path: Path) -> None:
    """An operator's ``sqlite3`` reads the view, also while the agent has the database open."""
    program = sqlite3_program()
    with closing(sqlite3.connect(path)) as connection, closing(filled()) as source:
        source.backup(connection)
        configure(connection)
        expected = [dict(zip(COLUMNS, row, strict=True)) for row in metrics(connection, "*")]
        output = subprocess.run(
            [program, "-json", path, "SELECT * FROM metrics ORDER BY id"],
            check=True,
            capture_output=True,
            timeout=30,
        )
    assert output.stderr == b""
    assert json.loads(output.stdout) == expected
