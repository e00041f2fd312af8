"""Databases of versions 1 and 2, as the programs before this one made them."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

VERSION_1 = """
CREATE TABLE metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp_ms INTEGER NOT NULL,
    metric_name TEXT NOT NULL,
    metric_value REAL NOT NULL,
    device_id TEXT NOT NULL
);
"""
INDEXES_1 = """
CREATE INDEX idx_timestamp ON metrics(timestamp_ms);
CREATE INDEX idx_name_time ON metrics(metric_name, timestamp_ms);
CREATE INDEX idx_device_time ON metrics(device_id, timestamp_ms);
"""
VERSION_2 = """
CREATE TABLE metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp_ms INTEGER NOT NULL,
    metric_name TEXT NOT NULL,
    metric_value REAL,
    value_text TEXT,              -- For string metrics
    value_type INTEGER DEFAULT 0, -- 0=real, 1=text
    tags TEXT,                     -- Minified JSON, canonical key order
    session_id TEXT,
    device_id TEXT,
    uploaded INTEGER DEFAULT 0,
    priority INTEGER DEFAULT 2,   -- 0=P0, 1=P1, 2=P2, 3=P3
    dedup_key TEXT NOT NULL        -- sha256(name|ts_ms|device|tags)
);
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    start_time INTEGER NOT NULL,
    end_time INTEGER,
    status TEXT,  -- active, completed, failed
    metadata TEXT -- JSON
);
CREATE TABLE IF NOT EXISTS upload_checkpoints (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    batch_id TEXT NOT NULL,       -- UUID for batch tracking
    chunk_index INTEGER NOT NULL, -- 0-based chunk number
    last_uploaded_id INTEGER,
    last_uploaded_timestamp INTEGER,
    upload_time INTEGER,
    metrics_count INTEGER         -- Metrics in this chunk
);
CREATE TABLE IF NOT EXISTS schema_version (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    version INTEGER NOT NULL,
    applied_at TEXT NOT NULL
);
INSERT INTO schema_version (version, applied_at) VALUES (1, '2025-10-01'), (2, '2025-10-02');
"""
MARKS = """
ALTER TABLE metrics ADD COLUMN batch_id TEXT;
ALTER TABLE metrics ADD COLUMN chunk_index INTEGER;
"""
INDEXES_2 = """
CREATE INDEX IF NOT EXISTS idx_timestamp ON metrics(timestamp_ms);
CREATE INDEX IF NOT EXISTS idx_metric_session ON metrics(metric_name, session_id, timestamp_ms);
CREATE INDEX IF NOT EXISTS idx_uploaded ON metrics(uploaded, priority, timestamp_ms, id);
CREATE INDEX IF NOT EXISTS idx_name_dev_time ON metrics(metric_name, device_id, timestamp_ms);
CREATE UNIQUE INDEX IF NOT EXISTS ux_metrics_dedup ON metrics(dedup_key);
"""

Old = Mapping[str, Any]
"""A row of the old ``metrics``: some of its columns."""


def row(**columns: Any) -> dict[str, Any]:
    """A row of version 2, an ordinary one but for what is given."""
    return {
        "timestamp_ms": 1000,
        "metric_name": "m",
        "metric_value": 1.0,
        "device_id": "box",
        "tags": "{}",
    } | columns


def version_1(path: Path, rows: Iterable[Old]) -> None:
    """Make a database of version 1."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        _insert(connection, rows)
        connection.executescript(INDEXES_1)


def version_2(
    path: Path,
    rows: Iterable[Old],
    *,
    sessions: Sequence[Sequence[Any]] = (),
    checkpoints: Sequence[Sequence[Any]] = (),
    marks: bool = True,
    dedup: bool = True,
) -> None:
    """Make a database of version 2, in the state that a killed program leaves it in.

    :param sessions: rows of that table.
    :param checkpoints: rows of that table.
    :param marks: whether ``metrics`` has the columns that say which chunk a row was sent in.
    :param dedup: whether duplicates of a ``dedup_key`` are kept out; without it, it is one text.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.executescript(VERSION_2 + (MARKS if marks else ""))
        _insert(connection, (_keyed(n, one) if dedup else one for n, one in enumerate(rows)))
        connection.executemany("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", sessions)
        connection.executemany(
            "INSERT INTO upload_checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)", checkpoints
        )
        connection.commit()
        connection.executescript(INDEXES_2 if dedup else INDEXES_2.replace("UNIQUE", ""))


def _keyed(number: int, old: Old) -> dict[str, Any]:
    """Add a key that keeps nothing out: what is the same sample may have had another one."""
    return {"dedup_key": hashlib.sha256(b"%d" % number).hexdigest(), **old}


def _insert(connection: sqlite3.Connection, rows: Iterable[Old]) -> None:
    """Insert rows, each with the columns that it has; without ``dedup_key`` where one is wanted."""
    wanted = {one[1] for one in connection.execute("PRAGMA table_info(metrics)")}
    with connection:
        for one in rows:
            values = {k: v for k, v in one.items() if k in wanted}
            if "dedup_key" in wanted:
                values.setdefault("dedup_key", "key")
            names, marks = ", ".join(values), ", ".join("?" * len(values))
            connection.execute(
                f"INSERT INTO metrics ({names}) VALUES ({marks})", list(values.values())
            )


def mixed(count: int) -> Iterator[dict[str, Any]]:
    """Give rows as the old program would leave them after some weeks: every state, all odds.

    Of each thousand, 600 are uploaded in chunks of 50, 10 rejected, and 370 pending. The other 20
    repeat an earlier row: ten are pending where that row is uploaded, ten are the reverse. One row
    in two thousand is a text, and one in ten thousand has no value.
    """
    for n in range(count):
        of_thousand = n % 1000
        again = {98: 700, 99: 300}.get(of_thousand // 10, 0)
        source = n - again
        one = row(
            timestamp_ms=1_760_000_000_000 + source // 80 * 10_000,
            metric_name=f"family.{source % 80 // 8}",
            tags=f'{{"core": "{source % 8}"}}' if n % 2 else f'{{"core":"{source % 8}"}}',
            metric_value=-1.0 if again else float(source),
            session_id=f"session-{source // 50_000}",
            priority=source % 4,
            uploaded=2 if 600 <= of_thousand < 610 else of_thousand < 600 or of_thousand >= 990,
        )
        if one["uploaded"] == 1:
            one |= {"batch_id": f"batch-{n // 1000}", "chunk_index": of_thousand // 50}
        if n % 2000 == 1611:
            one |= {"value_type": 1, "value_text": f"state {n}", "metric_value": None}
        if n % 10_000 == 1612:
            one["metric_value"] = None
        yield one
