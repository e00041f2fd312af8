"""Makes databases for the tests, and reads them as another program would."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from belatwist.model import TEXT, Sample, Series, sample
from belatwist.store import Outcome, Row, Settlement
from belatwist.store.sql import queries, schema

LOAD = Series.of("system.load_1m", "box")
CORE = Series.of("cpu.usage_percent", "box", {"core": "0"}, priority=1)
STATE = Series.of("srt.state", "box", value_type=TEXT)
BATCH = "6e0c3f6e-6d0c-4a51-9d6c-000000000001"


def fresh(path: str | Path = ":memory:") -> sqlite3.Connection:
    """Make a database that has the schema and a running session, number 1."""
    connection = sqlite3.connect(path)
    schema.create(connection, "2026-01-01T00:00:00+00:00")
    connection.execute("INSERT INTO sessions VALUES (1, 's1', 1000, NULL, 'active', '{}')")
    connection.commit()
    return connection


def insert(connection: sqlite3.Connection, samples: Sequence[Sample]) -> int:
    """Insert samples into session 1, and return how many were new."""
    with connection:
        return queries.insert(connection.cursor(), samples, {}, 1)[0]


def fill(connection: sqlite3.Connection, count: int, series: Sequence[Series] = (LOAD,)) -> None:
    """Insert ``count`` samples, over all of ``series``, from millisecond 1 on."""
    insert(connection, [sample(series[n % len(series)], n + 1, n) for n in range(count)])


def one_priority_each() -> list[Series]:
    """Four series, the most urgent last."""
    return [Series.of("m", "box", {"p": str(p)}, priority=p) for p in (3, 2, 1, 0)]


def pending(
    connection: sqlite3.Connection, limit: int = 1_000_000, until_ms: int = 2**62
) -> list[Row]:
    """Read pending samples."""
    return queries.fetch(connection.cursor(), limit, until_ms)


def accept(rows: Sequence[Row], chunk_index: int = 0) -> Settlement:
    """The server has taken these."""
    return Settlement(Outcome.ACCEPTED, rows, BATCH, chunk_index)


def reject(rows: Sequence[Row], reason: str, chunk_index: int = 0) -> Settlement:
    """The server has refused these."""
    return Settlement(Outcome.REJECTED, rows, BATCH, chunk_index, reason)


def settle(connection: sqlite3.Connection, *settlements: Settlement, now_ms: int = 5000) -> int:
    """Settle, and return how many samples are no longer pending."""
    with connection:
        return queries.settle(connection.cursor(), settlements, now_ms, 0)


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database beside its other users."""
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def make_version_1(path: Path) -> None:
    """Make a database as the first program made it."""
    with reading(path) as connection:
        connection.executescript("""
            CREATE TABLE metrics (
                id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp_ms INTEGER NOT NULL,
                metric_name TEXT NOT NULL, metric_value REAL, device_id TEXT);
            CREATE INDEX idx_timestamp ON metrics(timestamp_ms);
            CREATE INDEX idx_name_time ON metrics(metric_name, timestamp_ms);
            CREATE INDEX idx_device_time ON metrics(device_id, timestamp_ms);
            INSERT INTO metrics (timestamp_ms, metric_name, metric_value, device_id)
            VALUES (1, 'cpu.temperature', 40.5, 'box');
        """)


def make_version(path: Path, version: int) -> None:
    """Make a database that says it is of a version, and has a table besides."""
    with reading(path) as connection:
        connection.executescript(f"""
            CREATE TABLE schema_version (
                id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL,
                applied_at TEXT NOT NULL);
            INSERT INTO schema_version (version, applied_at) VALUES (1, 'then');
            INSERT INTO schema_version (version, applied_at) VALUES ({version}, 'now');
            CREATE TABLE metrics (id INTEGER PRIMARY KEY);
        """)


def make_foreign(path: Path) -> None:
    """Make a database of another program."""
    with reading(path) as connection:
        connection.executescript("CREATE TABLE bookmarks (url TEXT)")
