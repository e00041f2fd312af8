"""The database's schema, version 3.

The identity of a series is stored once; a sample is a few small numbers, clustered by time. Its key
(timestamp, series) is its identity: the same name, device, tags, type and millisecond is the same
sample, so that no hash is needed to keep duplicates out.

The view ``metrics`` spells every sample out, one row each, for people and for programs that know
nothing of this layout. It is the contract; the tables may change.
"""

from sqlite3 import Connection, DatabaseError

from belatwist.errors import StartError

VERSION = 3

ID_BASE = 1 << 20
"""A sample's id is ``timestamp_ms * ID_BASE + series_id``. Series ids stay below it, so that this
is unique, ordered by time, and within 64 bits until the year 2248."""

OLD_PAGE_SIZE = 4096
"""SQLite's default, and that of databases which were made with it or could not be laid out anew."""

PAGE_SIZE = 1024
"""Bytes of a page. A tick changes half a dozen pages, some of them by a few bytes, and the log
takes each of them whole. With SQLite's default, 4096, the card is written half as much again."""

# 1048576 is ID_BASE.
_DDL = """
CREATE TABLE schema_version (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    version INTEGER NOT NULL,
    applied_at TEXT NOT NULL
);
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    start_time INTEGER NOT NULL,
    end_time INTEGER,
    status TEXT NOT NULL CHECK (status IN ('active', 'completed', 'failed')),
    metadata TEXT
);
CREATE TABLE series (
    id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 1048575),
    name TEXT NOT NULL,
    device_id TEXT NOT NULL,
    tags TEXT NOT NULL,
    value_type INTEGER NOT NULL CHECK (value_type IN (0, 1)),
    UNIQUE (name, device_id, tags, value_type)
);
CREATE TABLE clock_eras (
    number INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL,
    offset_ms INTEGER NOT NULL,
    synchronised INTEGER NOT NULL DEFAULT 0,
    moves_to INTEGER REFERENCES clock_eras (number)
);
CREATE TABLE upload_checkpoints (
    id INTEGER PRIMARY KEY,
    batch_id TEXT NOT NULL,
    chunk_index INTEGER NOT NULL,
    last_uploaded_id INTEGER,
    first_uploaded_timestamp INTEGER,
    last_uploaded_timestamp INTEGER,
    upload_time INTEGER,
    metrics_count INTEGER,
    outcome INTEGER NOT NULL DEFAULT 1 CHECK (outcome IN (1, 2)),
    reason TEXT
);
CREATE TABLE samples (
    timestamp_ms INTEGER NOT NULL,
    series_id INTEGER NOT NULL REFERENCES series (id),
    value NUMERIC NOT NULL,
    priority INTEGER NOT NULL,
    session_number INTEGER NOT NULL REFERENCES sessions (number),
    checkpoint_id INTEGER REFERENCES upload_checkpoints (id),
    era INTEGER REFERENCES clock_eras (number),
    PRIMARY KEY (timestamp_ms, series_id)
) WITHOUT ROWID;
CREATE INDEX idx_uploaded ON samples (priority, timestamp_ms, series_id)
WHERE checkpoint_id IS NULL;
CREATE TABLE texts (
    timestamp_ms INTEGER NOT NULL,
    series_id INTEGER NOT NULL REFERENCES series (id),
    value TEXT NOT NULL,
    priority INTEGER NOT NULL,
    session_number INTEGER NOT NULL REFERENCES sessions (number),
    era INTEGER REFERENCES clock_eras (number),
    PRIMARY KEY (timestamp_ms, series_id)
) WITHOUT ROWID;
CREATE VIEW metrics AS
SELECT
    x.timestamp_ms * 1048576 + x.series_id AS id,
    x.timestamp_ms AS timestamp_ms,
    s.name AS metric_name,
    CAST(x.value AS REAL) AS metric_value,
    NULL AS value_text,
    s.value_type AS value_type,
    s.tags AS tags,
    r.id AS session_id,
    s.device_id AS device_id,
    CASE WHEN x.checkpoint_id IS NULL THEN 0 ELSE c.outcome END AS uploaded,
    x.priority AS priority,
    x.timestamp_ms || '-' || x.series_id AS dedup_key,
    c.batch_id AS batch_id,
    c.chunk_index AS chunk_index
FROM samples x
JOIN series s ON s.id = x.series_id
LEFT JOIN sessions r ON r.number = x.session_number
LEFT JOIN upload_checkpoints c ON c.id = x.checkpoint_id
UNION ALL
SELECT
    x.timestamp_ms * 1048576 + x.series_id,
    x.timestamp_ms, s.name, NULL, x.value, s.value_type, s.tags, r.id, s.device_id,
    NULL, x.priority, x.timestamp_ms || '-' || x.series_id, NULL, NULL
FROM texts x
JOIN series s ON s.id = x.series_id
LEFT JOIN sessions r ON r.number = x.session_number;
"""


# Only a database without tables takes these. Freed pages can then be given back piecemeal.
_LAYOUT = {"page_size": PAGE_SIZE, "auto_vacuum": 2}


def lay_out(connection: Connection, page_size: int = PAGE_SIZE) -> None:
    """Say how the file of a new database is to be laid out; must come before all else."""
    for pragma, value in {**_LAYOUT, "page_size": page_size}.items():
        connection.execute(f"PRAGMA {pragma}={value}")


def configure(
    connection: Connection,
    *,
    synchronous: str,
    cache_mb: int,
    mmap_mb: int,
    busy_timeout_ms: int = 5000,
) -> None:
    """Set the pragmas of a new connection and read each back.

    :param synchronous: ``full`` (a committed tick survives a power cut) or ``normal``.
    :param busy_timeout_ms: how long to wait for a lock that another connection holds.
    :raises StartError: when SQLite does not take a pragma: on a network file system, for example,
        it has no write-ahead log.
    """
    wanted: dict[str, str | int] = {
        "busy_timeout": busy_timeout_ms,  # First: the next ones may have to wait for a lock.
        **_LAYOUT,
        "journal_mode": "wal",
        "synchronous": {"normal": 1, "full": 2}[synchronous],
        "temp_store": 2,
        # Overwriting deleted rows with zeros makes more pages to write.
        "secure_delete": 0,
        "mmap_size": mmap_mb * 1024 * 1024,
        "cache_size": -cache_mb * 1024,
    }
    for pragma, value in wanted.items():
        connection.execute(f"PRAGMA {pragma}={value}").fetchall()
    for pragma, value in wanted.items():
        if pragma in _LAYOUT:
            continue  # An older database keeps its layout.
        found = connection.execute(f"PRAGMA {pragma}").fetchone()
        if found is None or found[0] != value:
            got = found[0] if found else "nothing"
            raise StartError(f"PRAGMA {pragma}: asked for {value}, the database says {got}")


def version(connection: Connection) -> int:
    """Return the version of the schema that a database holds: 0 for an empty one.

    :raises StartError: when the file is not a database, or holds tables of another program.
    """
    try:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if "schema_version" in names:
            found = connection.execute("SELECT max(version) FROM schema_version").fetchone()[0]
            if found:
                return int(found)
    except DatabaseError as error:
        raise StartError(f"cannot be read as a database: {error}") from error
    if "metrics" in names:
        return 1
    if names:
        raise StartError("is a database of another program: it has no table of samples")
    return 0


def create_tables(connection: Connection) -> None:
    """Create tables, indexes and the view, within the caller's transaction."""
    for statement in _DDL.split(";\n"):
        if statement.strip():
            connection.execute(statement)


def create(connection: Connection, now: str) -> None:
    """Create the schema in an empty database, in one transaction, and make it durable at once.

    :param now: ISO 8601 time, recorded as ``applied_at``.
    """
    connection.execute("BEGIN IMMEDIATE")
    create_tables(connection)
    connection.execute(
        "INSERT INTO schema_version (version, applied_at) VALUES (?, ?)", (VERSION, now)
    )
    connection.commit()
    # Without this a power cut leaves a file without tables until the first automatic checkpoint.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
