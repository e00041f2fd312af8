"""Brings databases of versions 1 and 2 to version 3, one short transaction after the other.

Version 1 is a table ``metrics`` of five columns. Version 2 gave it more of them (texts, tags, the
session, the state of the upload, the priority) and has the tables ``sessions``,
``upload_checkpoints`` and ``schema_version``. What a row says is told by the columns that are
there, so that whatever lies between the two serves as well.

The old table is renamed, and its rows are moved from its beginning on: a transaction inserts some
into the new tables and deletes them from the old one, so that it can end anywhere and go on from
there, and freed pages are used again. Until the end the database says that it is of its old
version; the table ``migration`` says how far it is.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection, Error, IntegrityError

from belatwist.errors import StartError
from belatwist.store import Outcome, queries, schema
from belatwist.store.oldrows import UNKNOWN, OddRowError, OldRow, is_text, select, series

_OLD = "migration_metrics"
_NEEDED = {"timestamp_ms", "metric_name", "metric_value", "device_id"}
_REMEMBERED = 20_000
_MADE_SESSION = '{"made_by":"migration"}'
_REASONS = {
    Outcome.ACCEPTED: "uploaded before the migration",
    Outcome.REJECTED: "rejected before the migration",
}

_COPIES = {
    "schema_version": {"version": "version", "applied_at": "coalesce(applied_at, '')"},
    "sessions": {
        "id": "coalesce(id, 'unnamed-' || rowid)",
        "start_time": "coalesce(start_time, end_time, 0)",
        "end_time": "end_time",
        # One without an end is taken for one that crashed: opening the database ends it.
        "status": "CASE WHEN status IN ('active', 'completed', 'failed') THEN status"
        " WHEN end_time IS NULL THEN 'active' ELSE 'completed' END",
        "metadata": "metadata",
    },
    "upload_checkpoints": {
        "id": "id",
        "batch_id": f"coalesce(batch_id, '{UNKNOWN}')",
        "chunk_index": "coalesce(chunk_index, 0)",
        "last_uploaded_id": "last_uploaded_id",
        "last_uploaded_timestamp": "last_uploaded_timestamp",
        "upload_time": "coalesce(upload_time, :now_ms)",
        "metrics_count": "metrics_count",
    },
}
"""What is taken over as it stands: the new columns, each with what it is of the old table."""

_RANK = """
CASE coalesce((SELECT outcome FROM upload_checkpoints WHERE id = {}.checkpoint_id), 0)
WHEN 1 THEN 2 WHEN 0 THEN 1 ELSE 0 END
"""

# Of duplicates the server has one if any was accepted: that one is kept, else one that is still to
# be sent, and of several the first.
_INSERT_SAMPLE = f"""
INSERT INTO samples (timestamp_ms, series_id, value, priority, session_number, checkpoint_id)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (timestamp_ms, series_id) DO UPDATE SET
    value = excluded.value, priority = excluded.priority,
    session_number = excluded.session_number, checkpoint_id = excluded.checkpoint_id
WHERE {_RANK.format("excluded")} > {_RANK.format("samples")}
"""  # noqa: S608 - no part of it comes from outside

_INSERT_TEXT = """
INSERT INTO texts (timestamp_ms, series_id, value, priority, session_number)
VALUES (?, ?, ?, ?, ?) ON CONFLICT (timestamp_ms, series_id) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a migration came to.

    :ivar duplicates: rows that said what another one says.
    :ivar leftovers: rows that cannot be samples, and were put aside, by the reason.
    :ivar unshrunk: why the file was left at its size; ``None`` when it was not.
    """

    samples: int
    texts: int
    duplicates: int
    leftovers: dict[str, int]
    unshrunk: str | None


def check(connection: Connection) -> None:
    """Refuse a database that has the name of our table and not its columns, without writing.

    :raises StartError: when it is no database of version 1 or 2.
    """
    tables = _names(connection, "table")
    if "migration" in tables:
        return
    if missing := _NEEDED - _columns(connection, "metrics"):
        raise StartError(
            "is a database of another program, or damaged:"
            f" its table metrics has no column {min(missing)}"
        )


class Migration:
    """One run of a migration, from wherever the one before it was ended.

    :param now_ms: Unix time in milliseconds, for what is recorded of the migration itself.
    :param rows_a_step: how many rows one transaction moves.
    :ivar version: where the database comes from; known after the first step, as the next two are.
    :ivar moved: how many rows of the old table were moved, in this run and those before it.
    :ivar total: how many there were.
    :ivar result: what it came to, after the last step.
    """

    def __init__(self, now_ms: int, *, rows_a_step: int = 5000) -> None:
        self.version = 0
        self.moved = 0
        self.total = 0
        self.result: Result | None = None
        self._now_ms = now_ms
        self._rows_a_step = rows_a_step
        self._encoding = ""
        self._series: dict[tuple[bytes | None, bytes | None, bytes | None, int], int] = {}
        self._sessions: dict[bytes | None, int] = {}
        self._checkpoints: dict[tuple[Outcome, bytes | None, int | None], int] = {}

    def step(self, connection: Connection) -> bool:
        """Go one step on, in a transaction of its own.

        After a step that failed this object must not be used again: what it remembers may have
        been rolled back.

        :return: whether there is more to do.
        """
        tables = _names(connection, "table")
        if "migration" not in tables:
            self._begin(connection, tables)
            return True
        (self.version, self.total, self.moved), self._encoding = (
            connection.execute("SELECT version, total, moved FROM migration").fetchone(),
            connection.execute("PRAGMA encoding").fetchone()[0],
        )
        if _OLD not in tables:
            unshrunk = _shrink(connection)
            self._finish(connection, unshrunk)
            return False
        for kind in ("index", "trigger"):
            # Each alone: it reads all of the index, and would have to be kept up while rows go.
            if names := _names(connection, kind, _OLD):
                connection.execute(f'DROP {kind} "{min(names)}"')
                return True
        with _transaction(connection) as cursor:
            if not self._move(cursor):
                cursor.execute(f"DROP TABLE {_OLD}")
                cursor.execute("DROP INDEX migration_checkpoints")
        return True

    def _begin(self, connection: Connection, tables: set[str]) -> None:
        """Put the new tables where the old ones were, and take over the small ones."""
        # So that views which others made on the old table are about the new view afterwards.
        connection.execute("PRAGMA legacy_alter_table=ON")
        with _transaction(connection) as cursor:
            cursor.execute("SELECT count(*) FROM metrics")
            self.total = cursor.fetchone()[0]
            self.version = schema.version(connection)
            for name in tables & {"metrics", *_COPIES}:
                cursor.execute(f"ALTER TABLE {name} RENAME TO migration_{name}")
            cursor.execute("DROP INDEX IF EXISTS idx_uploaded")
            schema.create_tables(connection)
            cursor.execute("CREATE TABLE migration (version INTEGER, total INTEGER, moved INTEGER)")
            cursor.execute("INSERT INTO migration VALUES (?, ?, 0)", (self.version, self.total))
            for name in _COPIES.keys() & tables:
                old = _columns(connection, f"migration_{name}")
                of = {new: text for new, text in _COPIES[name].items() if new in old}
                cursor.execute(
                    f"INSERT OR IGNORE INTO {name} ({', '.join(of)})"  # noqa: S608 - constants
                    f" SELECT {', '.join(of.values())} FROM migration_{name} ORDER BY rowid",
                    {"now_ms": self._now_ms},
                )
                cursor.execute(f"DROP TABLE migration_{name}")
            cursor.execute(
                "CREATE INDEX migration_checkpoints"
                " ON upload_checkpoints (batch_id, chunk_index, outcome)"
            )
        connection.execute("PRAGMA legacy_alter_table=OFF")

    def _move(self, cursor: queries.Cursor) -> int:
        """Move the next rows; returns how many there were."""
        for memory in (self._series, self._sessions, self._checkpoints):
            if len(memory) > _REMEMBERED:
                memory.clear()
        cursor.execute(f"SELECT name FROM pragma_table_info('{_OLD}')")
        columns = {str(row[0]).lower() for row in cursor.fetchall()}
        cursor.execute(select(_OLD, columns), (self._rows_a_step,))
        rows = [OldRow(*row) for row in cursor.fetchall()]
        if not rows:
            return 0
        samples, texts, leftovers = [], [], []
        for row in rows:
            try:
                value = row.checked_value(self._encoding)
                key = (row.timestamp_ms, self._series_id(cursor, row), value, row.own_priority())
            except OddRowError as error:
                leftovers.append((str(error), row.rowid))
                continue
            if is_text(row):
                texts.append((*key, self._session(cursor, row)))
            else:
                checkpoint = self._checkpoint(cursor, row)
                samples.append((*key, self._session(cursor, row), checkpoint))
        if leftovers:
            self._put_aside(cursor, leftovers)
        cursor.executemany(_INSERT_SAMPLE, samples)
        cursor.executemany(_INSERT_TEXT, texts)
        self._account(cursor, [*samples, *((*row, None) for row in texts)])
        cursor.execute(f"DELETE FROM {_OLD} WHERE rowid <= ?", (rows[-1].rowid,))  # noqa: S608
        self.moved += len(rows)
        cursor.execute("UPDATE migration SET moved = ?", (self.moved,))
        return len(rows)

    def _series_id(self, cursor: queries.Cursor, row: OldRow) -> int:
        key = (row.name, row.device_id, row.tags, row.value_type)
        found = self._series.get(key)
        if found is None:
            one = series(row, self._encoding)
            try:
                found = queries.series_id(cursor, one)
            except IntegrityError as error:
                raise OddRowError("no id is left for another series") from error
            self._series[key] = found
        return found

    def _session(self, cursor: queries.Cursor, row: OldRow) -> int:
        """Return the number of a row's session; one that nothing else is known of is made."""
        found = self._sessions.get(row.session_id)
        if found is None:
            name = (row.session_id or b"").decode(self._encoding, "replace") or UNKNOWN
            cursor.execute(
                "INSERT INTO sessions (id, start_time, end_time, status, metadata)"
                " VALUES (?, ?, ?, 'completed', ?) ON CONFLICT (id) DO NOTHING",
                (name, row.timestamp_ms, row.timestamp_ms, _MADE_SESSION),
            )
            cursor.execute("SELECT number FROM sessions WHERE id = ?", (name,))
            found = self._sessions[row.session_id] = int(cursor.fetchone()[0])
        return found

    def _checkpoint(self, cursor: queries.Cursor, row: OldRow) -> int | None:
        """Return what a row that is no longer pending points at; where it is not there, made."""
        if row.uploaded not in _REASONS:
            return None
        outcome = Outcome(row.uploaded)
        key = (outcome, row.batch_id, row.chunk_index)
        found = self._checkpoints.get(key)
        if found is None:
            batch, chunk = (row.batch_id or b"").decode(self._encoding, "replace"), row.chunk_index
            if not batch or chunk is None:
                batch, chunk = UNKNOWN, 0
            cursor.execute(
                "SELECT id FROM upload_checkpoints WHERE batch_id = ? AND chunk_index = ?"
                " AND outcome = ? LIMIT 1",
                (batch, chunk, outcome),
            )
            if known := cursor.fetchone():
                found = int(known[0])
            else:
                cursor.execute(
                    "INSERT INTO upload_checkpoints"
                    " (batch_id, chunk_index, upload_time, metrics_count, outcome, reason)"
                    " VALUES (?, ?, ?, 0, ?, ?)",
                    (batch, chunk, self._now_ms, outcome, _REASONS[outcome]),
                )
                found = int(cursor.lastrowid or 0)
            self._checkpoints[key] = found
        return found

    @staticmethod
    def _account(cursor: queries.Cursor, rows: Iterable[Sequence[object]]) -> None:
        """Bring what was made for these rows up to date: when it was, and how many they are."""
        sessions: defaultdict[object, list[int]] = defaultdict(list)
        checkpoints: defaultdict[object, list[int]] = defaultdict(list)
        for timestamp_ms, _, _, _, session, checkpoint in rows:
            assert isinstance(timestamp_ms, int)
            sessions[session].append(timestamp_ms)
            if checkpoint is not None:
                checkpoints[checkpoint].append(timestamp_ms)
        cursor.executemany(
            "UPDATE sessions SET start_time = min(start_time, ?), end_time = max(end_time, ?)"
            f" WHERE number = ? AND metadata = '{_MADE_SESSION}'",  # noqa: S608
            [(min(times), max(times), number) for number, times in sessions.items()],
        )
        cursor.executemany(
            "UPDATE upload_checkpoints SET metrics_count = metrics_count + ?,"
            " last_uploaded_timestamp = max(coalesce(last_uploaded_timestamp, ?), ?)"
            " WHERE id = ? AND reason IS NOT NULL",
            [(len(times), min(times), max(times), i) for i, times in checkpoints.items()],
        )

    @staticmethod
    def _put_aside(cursor: queries.Cursor, leftovers: Iterable[tuple[str, int]]) -> None:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS migration_leftovers AS"
            f" SELECT '' AS reason, * FROM {_OLD} WHERE false"  # noqa: S608
        )
        cursor.executemany(
            f"INSERT INTO migration_leftovers SELECT ?, * FROM {_OLD} WHERE rowid = ?",  # noqa: S608
            leftovers,
        )

    def _finish(self, connection: Connection, unshrunk: str | None) -> None:
        """Say that the database is of our version."""
        with _transaction(connection) as cursor:
            leftovers = {}
            if "migration_leftovers" in _names(connection, "table"):
                cursor.execute("SELECT reason, count(*) FROM migration_leftovers GROUP BY reason")
                leftovers = dict(cursor.fetchall())
            cursor.execute("SELECT (SELECT count(*) FROM samples), (SELECT count(*) FROM texts)")
            samples, texts = cursor.fetchone()
            cursor.execute("DROP TABLE migration")
            now = datetime.fromtimestamp(self._now_ms / 1000, UTC).isoformat(timespec="seconds")
            cursor.execute(
                "INSERT INTO schema_version (version, applied_at) VALUES (?, ?)",
                (schema.VERSION, now),
            )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        duplicates = self.total - samples - texts - sum(leftovers.values())
        self.result = Result(samples, texts, duplicates, leftovers, unshrunk)


def _shrink(connection: Connection) -> str | None:
    """Give back the pages that the old table has left, and have later ones be given back as well.

    A database that was made without ``auto_vacuum`` takes it only while it is written anew, which
    needs the room of its content twice. Where that is not to be had, the free pages are kept, and
    used again before the file grows.

    :return: why it was not done, in words.
    """

    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    if pragma("freelist_count") == 0 and pragma("auto_vacuum") == 2:
        return None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    used = (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    disk = os.statvfs(Path(file).parent)
    free = disk.f_bavail * disk.f_frsize
    if free < 2 * used:
        return f"{2 * used:,} bytes are needed for that and {free:,} are free"
    before = pragma("temp_store")
    try:
        connection.execute("PRAGMA auto_vacuum=2")
        # The copy that is made on the way would otherwise be made in memory.
        connection.execute("PRAGMA temp_store=1")
        connection.execute("VACUUM")
    except Error as error:
        return str(error)
    finally:
        connection.execute(f"PRAGMA temp_store={before}")
    return None


def _names(connection: Connection, kind: str, table: str | None = None) -> set[str]:
    """Return what a database has of a kind, SQLite's own left out; of one table, if one is named."""
    rows = connection.execute(
        "SELECT name FROM sqlite_master"
        " WHERE type = ? AND tbl_name = coalesce(?, tbl_name) AND sql IS NOT NULL",
        (kind, table),
    )
    return {row[0] for row in rows}


def _columns(connection: Connection, table: str) -> set[str]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {str(row[0]).lower() for row in rows}


@contextmanager
def _transaction(connection: Connection) -> Iterator[queries.Cursor]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.cursor()
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
