"""Reading the agent's database while the agent may run."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest

from belatwist.cli import database
from belatwist.cli.database import MAX_KEY, SAMPLES, TEXTS, DatabaseError, DatabaseReader
from belatwist.model import Sample, Series
from tests.cli.running import CHECKOUT, make, ticks
from tests.store.databases import (
    LOAD,
    STATE,
    accept,
    insert,
    make_foreign,
    make_version,
    make_version_1,
    pending,
    reject,
    settle,
)


def refusal(path: Path) -> str:
    """Return why a database cannot be read."""
    with pytest.raises(DatabaseError) as caught:
        DatabaseReader(path).page(SAMPLES)
    text = str(caught.value)
    assert text.startswith(f"database {path}: ")
    return text.removeprefix(f"database {path}: ")


def test_rows_and_their_states(tmp_path: Path) -> None:
    """Each sample has its series, its session and its state; the state of texts is local."""
    path = make(tmp_path / "m.db", ticks(LOAD, 1000, 3))
    with closing(sqlite3.connect(path)) as connection:
        one, two, _ = pending(connection)
        settle(connection, accept([one]), reject([two], "odd", 1))
        insert(connection, [Sample(STATE, 500, "connected")])
    page = DatabaseReader(path).page(SAMPLES)
    assert [row.state for row in page.rows] == ["uploaded", "rejected", "pending"]
    assert [row.value for row in page.rows] == [0.5, 1.5, 2.5]
    assert {row.session for row in page.rows} == {"s1"}
    assert set(page.series.values()) == {LOAD}
    (text,) = DatabaseReader(path).page(TEXTS).rows
    assert (text.value, text.state) == ("connected", "local")


def test_pages_are_the_whole(tmp_path: Path) -> None:
    """Pages of any size hold every row between the keys once, in order."""
    other = Series.of("system.load_5m", "box")
    path = make(tmp_path / "m.db", ticks(LOAD, 0, 10) + ticks(other, 0, 10))
    whole = DatabaseReader(path).page(SAMPLES).rows
    assert len(whole) == 20
    for size in (1, 3, 19, 20, 21):
        with mock.patch.object(database, "PAGE", size):
            found = [r for page in DatabaseReader(path).pages(SAMPLES) for r in page.rows]
            part = [
                r for p in DatabaseReader(path).pages(SAMPLES, (2000, 1), (5000, 0)) for r in p.rows
            ]
        assert found == whole
        assert part == [row for row in whole if (2000, 1) < row.key < (5000, 0)]


def test_the_newest_come_first_on_demand(tmp_path: Path) -> None:
    """Reading the newest rows begins at the end."""
    path = make(tmp_path / "m.db", ticks(LOAD, 0, 10))
    rows = DatabaseReader(path).page(SAMPLES, newest=True, limit=2).rows
    assert [row.timestamp_ms for row in rows] == [9000, 8000]


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    """If no program has the database open, reading creates no log and changes no byte."""
    path = make(tmp_path / "m.db", ticks(LOAD, 0, 10))
    before = path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]
    DatabaseReader(path).page(SAMPLES)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_nobody_is_held_up(tmp_path: Path) -> None:
    """A reading sees samples in the write-ahead log, and the agent can empty it afterwards."""
    path = make(tmp_path / "m.db", [])
    with closing(sqlite3.connect(path)) as agent:
        insert(agent, ticks(LOAD, 0, 5))
        pages = DatabaseReader(path).pages(SAMPLES)
        with mock.patch.object(database, "PAGE", 2):
            assert len(next(pages).rows) == 2
            insert(agent, ticks(LOAD, 100_000, 5))
            busy, _, _ = agent.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert busy == 0
            assert sum(len(page.rows) for page in pages) == 8


def test_a_replaced_database_is_followed(tmp_path: Path) -> None:
    """After the file was replaced, the next page comes from the new one."""
    path = make(tmp_path / "m.db", ticks(LOAD, 0, 5))
    found = DatabaseReader(path)
    assert len(found.page(SAMPLES).rows) == 5
    path.rename(tmp_path / "m.db.corrupt")
    make(path, ticks(LOAD, 0, 2))
    assert len(found.page(SAMPLES).rows) == 2


def test_no_database(tmp_path: Path) -> None:
    """The error names the file and a likely cause."""
    assert refusal(tmp_path / "m.db").startswith("no such file: is storage.path right")


def test_no_such_kind_of_file(tmp_path: Path) -> None:
    """A folder, another file, another program's database and an empty file are refused."""
    assert refusal(tmp_path) == "is not a regular file"
    other = tmp_path / "other"
    other.write_text("device: {id: box}\n" * 100)
    assert refusal(other) == (
        "is not a database: name the agent's (storage.path, or --database FILE)"
    )
    foreign = tmp_path / "foreign.db"
    make_foreign(foreign)
    assert "another program" in refusal(foreign)
    empty = tmp_path / "empty.db"
    empty.touch()
    assert refusal(empty) == "has no tables yet: start the service once"


def test_other_versions(tmp_path: Path) -> None:
    """The error says which program can use an older or a newer database."""
    make_version_1(tmp_path / "1.db")
    assert refusal(tmp_path / "1.db").startswith("has the older schema version 1")
    make_version(tmp_path / "2.db", 2)
    assert "which migrates it" in refusal(tmp_path / "2.db")
    make_version(tmp_path / "4.db", 4)
    assert "from a newer program" in refusal(tmp_path / "4.db")


def test_the_right_version_without_the_tables(tmp_path: Path) -> None:
    """The error names the missing table, its meaning and the cure, also with braces in the path."""
    advice = (
        "name the agent's database (storage.path, or --database FILE). If this is it, move it away:"
        " the service creates a new one when it starts"
    )
    path = tmp_path / "3.db"
    make_version(path, 3)
    why = "belongs to another program, or is damaged (no such table: samples)"
    assert refusal(path) == f"{why}: {advice}"
    partial = make(tmp_path / "partial{}.db", ticks(LOAD, 0, 5))
    with closing(sqlite3.connect(partial)) as connection:
        connection.execute("DROP TABLE sessions")
        connection.commit()
    assert "no such table: sessions" in refusal(partial)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE schema_version (number INTEGER)")
        connection.commit()
    assert (
        refusal(other)
        == f"belongs to another program, or is damaged (no such column: version): {advice}"
    )


def test_a_locked_one(tmp_path: Path) -> None:
    """If another program has locked the database, reading fails after a bounded wait."""
    path = make(tmp_path / "m.db", ticks(LOAD, 0, 5))
    with closing(sqlite3.connect(path)) as other, mock.patch.object(database, "BUSY_SECONDS", 0):
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        insert(other, ticks(LOAD, 100_000, 1))
        assert refusal(path) == "another program has locked it: try again"


def test_a_damaged_one(tmp_path: Path) -> None:
    """Damage that SQLite or the reader finds is reported."""
    path = make(tmp_path / "m.db", ticks(LOAD, 0, 5000))
    data = bytearray(path.read_bytes())
    data[8192:-4096] = bytes(len(data) - 12288)
    (tmp_path / "holes.db").write_bytes(data)
    assert "is damaged" in refusal(tmp_path / "holes.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE series SET tags = 'rubbish'")
        connection.commit()
    assert "is damaged" in refusal(path)


# What has to be imported first, because the unprivileged user may not read this environment.
UNPRIVILEGED = """
import os, sys
from pathlib import Path
from belatwist.cli.database import SAMPLES, DatabaseReader, DatabaseError
os.seteuid(65534)
try:
    print(len(DatabaseReader(Path(sys.argv[1])).page(SAMPLES).rows))
except DatabaseError as error:
    print(error)
"""


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_without_permission() -> None:
    """A file without permission and a log that cannot be used have different errors."""

    def read() -> str:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(path)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip().removeprefix(f"database {path}: ")

    # Not pytest's own folder, which is for its user alone.
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = make(folder / "m.db", ticks(LOAD, 0, 5))
        path.chmod(0o644)
        assert read() == "5"
        path.chmod(0o600)
        assert read() == "Permission denied: use the service's user, or sudo"
        path.chmod(0o644)
        with closing(sqlite3.connect(path)) as agent:
            insert(agent, ticks(LOAD, 100_000, 5))
            for file in folder.iterdir():
                file.chmod(0o644)
            assert read() == "10"
            (folder / "m.db-shm").chmod(0o600)
            assert read().startswith("its write-ahead log cannot be used here")


def test_the_last_key_is_behind_every_sample(tmp_path: Path) -> None:
    """Samples up to the largest time come before the last key."""
    path = make(tmp_path / "m.db", ticks(LOAD, 2**43 - 1, 1))
    assert len(DatabaseReader(path).page(SAMPLES, before=MAX_KEY).rows) == 1
