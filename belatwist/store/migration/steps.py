"""Brings databases of versions 1 and 2 to version 3, one short transaction after the other.

Version 1 is a table ``metrics`` of five columns. Version 2 gave it more of them (texts, tags, the
session, the state of the upload, the priority) and has the tables ``sessions``,
``upload_checkpoints`` and ``schema_version``. The columns that exist decide how a row is read, so
that any layout between the two works.

The migration renames the old table and moves its rows from its beginning on. A transaction inserts
some rows into the new tables and deletes them from the old one. So it can end anywhere and resume
there, and freed pages are used again. Until the end the database says that it is of its old
version; the table ``migration_progress`` says how far it is.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import SQLITE_INTERRUPT, Connection, Error, OperationalError

from belatwist.errors import StartError
from belatwist.store.migration.legacy import UNKNOWN
from belatwist.store.migration.rows import RowMigrator
from belatwist.store.sql import queries, schema

_NEEDED = {"timestamp_ms", "metric_name", "metric_value", "device_id"}

_COPIES = {
    "schema_version": {"version": "version", "applied_at": "coalesce(applied_at, '')"},
    "sessions": {
        "id": "coalesce(id, 'unnamed-' || rowid)",
        "start_time": "coalesce(start_time, end_time, 0)",
        "end_time": "end_time",
        # A session without an end counts as crashed: opening the database ends it.
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
        "upload_time": "upload_time",
        "metrics_count": "metrics_count",
    },
}
"""Tables that are copied: the new columns, each with its expression on the old table."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a migration.

    :ivar duplicates: rows with the same identity as another row.
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
    if "migration_progress" in tables:
        return
    if missing := _NEEDED - _columns(connection, "metrics"):
        raise StartError(
            "is a database of another program, or damaged:"
            f" its table metrics has no column {min(missing)}"
        )


class Migration:
    """One run of a migration, from the place where an earlier run ended.

    :param now_ms: Unix time in milliseconds, for the records of the migration itself.
    :param rows_a_step: how many rows one transaction moves.
    :ivar version: where the database comes from; known after the first step, as the next two are.
    :ivar moved: how many rows of the old table were moved, in this run and those before it.
    :ivar total: how many there were.
    :ivar result: set after the last step.
    """

    def __init__(self, now_ms: int, *, rows_a_step: int = 5000) -> None:
        self.version = 0
        self.moved = 0
        self.total = 0
        self.result = Result(0, 0, 0, {}, None)
        self._now_ms = now_ms
        self._rows_a_step = rows_a_step
        self._migrator: RowMigrator | None = None

    def step(self, connection: Connection) -> bool:
        """Go one step on, in a transaction of its own.

        After a step that failed this object must not be used again: its ids may have been rolled
        back.

        :return: whether there is more to do.
        """
        tables = _names(connection, "table")
        if "migration_progress" not in tables:
            self._begin(connection, tables)
            return True
        self.version, self.total, self.moved = connection.execute(
            "SELECT version, total, moved FROM migration_progress"
        ).fetchone()
        if "migration_metrics" not in tables:
            self._finish(connection, _shrink(connection))
            return False
        for kind in ("index", "trigger"):
            # Each alone: it reads all of the index, and would have to be kept up while rows go.
            if names := _names(connection, kind, "migration_metrics"):
                quoted = min(names).replace('"', '""')
                connection.execute(f'DROP {kind} "{quoted}"')
                return True
        if self._migrator is None:
            encoding = connection.execute("PRAGMA encoding").fetchone()[0]
            self._migrator = RowMigrator(encoding, self._now_ms)
        with _transaction(connection) as cursor:
            moved = self._migrator.move(cursor, self._rows_a_step)
            if not moved:
                cursor.execute("DROP TABLE migration_metrics")
                cursor.execute("DROP INDEX migration_checkpoints")
        self.moved += moved
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
            cursor.execute("CREATE TABLE migration_progress (version, total, moved)")
            progress = (self.version, self.total)
            cursor.execute("INSERT INTO migration_progress VALUES (?, ?, 0)", progress)
            for name in _COPIES.keys() & tables:
                old = _columns(connection, f"migration_{name}")
                of = {new: text for new, text in _COPIES[name].items() if new in old}
                cursor.execute(
                    f"INSERT OR IGNORE INTO {name} ({', '.join(of)})"  # noqa: S608 - constants
                    f" SELECT {', '.join(of.values())} FROM migration_{name} ORDER BY rowid"
                )
                cursor.execute(f"DROP TABLE migration_{name}")
            cursor.execute(
                "UPDATE upload_checkpoints SET upload_time = ? WHERE upload_time IS NULL",
                (self._now_ms,),
            )
            cursor.execute(
                "CREATE INDEX migration_checkpoints"
                " ON upload_checkpoints (batch_id, chunk_index, outcome)"
            )
        connection.execute("PRAGMA legacy_alter_table=OFF")

    def _finish(self, connection: Connection, unshrunk: str | None) -> None:
        """Say that the database is of our version."""
        with _transaction(connection) as cursor:
            leftovers = {}
            if "migration_leftovers" in _names(connection, "table"):
                cursor.execute("SELECT reason, count(*) FROM migration_leftovers GROUP BY reason")
                leftovers = dict(cursor.fetchall())
            cursor.execute("SELECT (SELECT count(*) FROM samples), (SELECT count(*) FROM texts)")
            samples, texts = cursor.fetchone()
            cursor.execute("DROP TABLE migration_progress")
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

    A database that was laid out in another way (:func:`.schema.lay_out`) is changed only while it
    is written anew, which needs the room of its content twice. Where that is not to be had, the
    free pages are kept, and used again before the file grows.

    :return: why it was not done, in words.
    """

    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    laid_out = pragma("auto_vacuum") == 2 and pragma("page_size") == schema.PAGE_SIZE
    if laid_out and pragma("freelist_count") == 0:
        return None
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    used = (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    disk = os.statvfs(Path(file).parent)
    free = disk.f_bavail * disk.f_frsize
    if free < 2 * used:
        return f"{2 * used:,} bytes are needed for that and {free:,} are free"
    before = pragma("temp_store")
    # The copy that is made on the way would otherwise be made in memory.
    connection.execute("PRAGMA temp_store=1")
    try:
        # First through the log, which holds only used pages; a journal holds free pages as well.
        schema.lay_out(connection)
        connection.execute("VACUUM")
        if pragma("page_size") != schema.PAGE_SIZE:
            _resize_pages(connection)
    except Error as error:
        if error.sqlite_errorcode == SQLITE_INTERRUPT:
            raise  # It is left, and taken up again at the next start.
        return str(error)
    finally:
        connection.execute(f"PRAGMA temp_store={before}")
        connection.execute("PRAGMA journal_mode=wal").fetchall()
    return None


def _resize_pages(connection: Connection) -> None:
    """Give the pages their size, which changes only without a log.

    The lock keeps readers out meanwhile: a reader would prevent the return to the log. Where others
    have the file open already, the pages keep their size.
    """
    connection.execute("PRAGMA locking_mode=exclusive").fetchall()
    try:
        try:
            connection.execute("PRAGMA journal_mode=delete").fetchall()
        except OperationalError as error:
            if error.sqlite_errorcode == SQLITE_INTERRUPT:
                raise
            return
        schema.lay_out(connection)
        connection.execute("VACUUM")
    finally:
        connection.execute("PRAGMA locking_mode=normal").fetchall()


def _names(connection: Connection, kind: str, table: str | None = None) -> set[str]:
    """Return the names of a kind, without SQLite's own; of one table, if one is named."""
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
