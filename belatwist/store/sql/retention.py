"""The statements of retention: functions of a cursor, each a small transaction of its caller.

Samples are deleted once they are settled (accepted or rejected) and old enough, or when the
database is too large. Each function reads a bounded number of rows and returns where the next call
begins. A write waits for one call at most.

A sample's own time does not tell its age here: it may be days old when it is uploaded. Settlements
(rows of ``upload_checkpoints``) are numbered in the order in which they were made, at any time of
the wall clock. So all samples up to one settlement are old enough; :class:`.ExpiryClock` finds it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from belatwist.store import MIN_KEY, Key
from belatwist.store.sql.queries import Cursor
from belatwist.store.sql.schema import ID_BASE

ROWS = 2000
"""How many rows one call deletes at most. A transaction of 500 writes twice the bytes per row."""

SCAN = 20_000
"""How many rows one call looks at, at most."""

SESSIONS = 100
"""This many of the latest sessions are kept, with samples or without."""

SERIES = 10_000
"""Series without samples are kept until there are more series than this."""

MAX_TIMESTAMP = (1 << 63) - 1
"""No sample is stamped later."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The result of one call.

    :ivar count: how many rows.
    :ivar first_ms: the timestamp of the oldest one; 0 when there was none.
    :ivar last_ms: the timestamp of the newest one; 0 when there was none.
    :ivar after: where the next call begins; ``None`` when nothing is left to look at.
    """

    count: int = 0
    first_ms: int = 0
    last_ms: int = 0
    after: Key | None = None


class Size(NamedTuple):
    """How large the database is, without its write-ahead log, in bytes.

    :ivar file: the file, once the log has been written back into it.
    :ivar free: its unused part.
    """

    file: int
    free: int

    @property
    def used(self) -> int:
        """The part that holds data."""
        return self.file - self.free


def size(cursor: Cursor) -> Size:
    """Read the database's size; costs next to nothing."""
    cursor.execute(
        "SELECT page_count * page_size, freelist_count * page_size"
        " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    )
    return Size(*cursor.fetchone())


def newest_settlement(cursor: Cursor) -> int:
    """Return the newest settlement's id; 0 when there is none."""
    cursor.execute("SELECT max(id) FROM upload_checkpoints")
    return int(cursor.fetchone()[0] or 0)


def span(cursor: Cursor, settlement: int) -> tuple[Key, int]:
    """Find where the samples of all settlements up to one are.

    A settlement that does not say where its samples begin may have them anywhere.

    :return: where to begin to look, and the last timestamp to look at.
    """
    cursor.execute(
        "SELECT min(ifnull(first_uploaded_timestamp, ?)),"
        " max(iif(first_uploaded_timestamp IS NULL, ?, last_uploaded_timestamp))"
        " FROM upload_checkpoints WHERE id <= ?",
        (MIN_KEY[0], MAX_TIMESTAMP, settlement),
    )
    first_ms, last_ms = cursor.fetchone()
    return (MIN_KEY if first_ms is None else (first_ms, 0)), MIN_KEY[
        0
    ] if last_ms is None else last_ms


def delete_settled(cursor: Cursor, after: Key, last_ms: int, settlement: int) -> Deleted:
    """Delete samples that were settled up to a settlement, the oldest first.

    :param after: begin behind this sample.
    :param last_ms: the last timestamp to look at.
    """
    end = _key_at(cursor, "samples", after, last_ms, SCAN)
    cursor.execute(
        "SELECT timestamp_ms, series_id FROM samples NOT INDEXED"
        " WHERE (timestamp_ms, series_id) > (?, ?) AND (timestamp_ms, series_id) <= (?, ?)"
        " AND checkpoint_id <= ? ORDER BY timestamp_ms, series_id LIMIT ?",
        (*after, *(end or (last_ms, ID_BASE)), settlement, ROWS),
    )
    keys = cursor.fetchall()
    if not keys:
        return Deleted(after=end)
    cursor.execute(
        "DELETE FROM samples"
        " WHERE (timestamp_ms, series_id) > (?, ?) AND (timestamp_ms, series_id) <= (?, ?)"
        " AND checkpoint_id <= ?",
        (*after, *keys[-1], settlement),
    )
    return _deleted(keys, keys[-1] if len(keys) == ROWS else end)


def delete_texts(cursor: Cursor, before_ms: int) -> Deleted:
    """Delete texts that are stamped earlier, the oldest first; they are never uploaded."""
    cursor.execute(
        "SELECT timestamp_ms, series_id FROM texts WHERE timestamp_ms < ?"
        " ORDER BY timestamp_ms, series_id LIMIT ?",
        (before_ms, ROWS),
    )
    keys = cursor.fetchall()
    if keys:
        cursor.execute(
            "DELETE FROM texts WHERE (timestamp_ms, series_id) <= (?, ?)", tuple(keys[-1])
        )
    return _deleted(keys, keys[-1] if len(keys) == ROWS else None)


def delete_pending(cursor: Cursor) -> Deleted:
    """Delete pending samples: the oldest of the lowest priority.

    Where priorities are mixed, this frees pages of the index at once. It frees a page of the table
    only when most of its rows are gone, so that more rows go than the bytes suggest.
    """
    cursor.execute(
        "SELECT timestamp_ms, series_id FROM samples INDEXED BY idx_uploaded"
        " WHERE checkpoint_id IS NULL AND priority ="
        " (SELECT max(priority) FROM samples INDEXED BY idx_uploaded WHERE checkpoint_id IS NULL)"
        " ORDER BY timestamp_ms, series_id LIMIT ?",
        (ROWS,),
    )
    keys = cursor.fetchall()
    cursor.executemany("DELETE FROM samples WHERE timestamp_ms = ? AND series_id = ?", keys)
    return _deleted(keys, keys[-1] if keys else None)


def delete_settlements(cursor: Cursor, settlement: int) -> int:
    """Delete settlements, up to one, whose samples are all deleted.

    The newest one stays, so that no number is ever given twice; it says that it has no samples.

    :return: how many; :data:`ROWS` means that there may be more.
    """
    cursor.execute(
        "DELETE FROM upload_checkpoints WHERE id IN (SELECT id FROM upload_checkpoints"
        " WHERE id <= ? AND id < (SELECT max(id) FROM upload_checkpoints) ORDER BY id LIMIT ?)",
        (settlement, ROWS),
    )
    deleted = cursor.rowcount
    cursor.execute(
        "UPDATE upload_checkpoints SET first_uploaded_timestamp = ?"
        " WHERE id <= ? AND first_uploaded_timestamp IS NOT ?",
        (MAX_TIMESTAMP, settlement, MAX_TIMESTAMP),
    )
    return deleted


def note_deleted(cursor: Cursor, before_ms: int) -> None:
    """Record that all settled samples with an earlier time are deleted."""
    cursor.execute(
        "DELETE FROM upload_checkpoints WHERE first_uploaded_timestamp IS NOT NULL"
        " AND last_uploaded_timestamp < ? AND id < (SELECT max(id) FROM upload_checkpoints)",
        (before_ms,),
    )
    cursor.execute(
        "UPDATE upload_checkpoints SET first_uploaded_timestamp = ?"
        " WHERE first_uploaded_timestamp < ?",
        (before_ms, before_ms),
    )


def needs_cleanup(cursor: Cursor) -> bool:
    """Return whether there are so many sessions or series that unused ones should go."""
    cursor.execute(
        "SELECT (SELECT count(*) FROM sessions) > ? OR (SELECT count(*) FROM series) > ?",
        (SESSIONS, SERIES),
    )
    return bool(cursor.fetchone()[0])


def collect_used(
    cursor: Cursor, table: str, after: Key, sessions: set[int], series: set[int]
) -> Key | None:
    """Find which sessions and series some of a table's rows belong to, and add them to the sets.

    :param table: ``samples`` or ``texts``.
    :param after: begin behind this row.
    :return: where the next call begins; ``None`` at the end of the table.
    """
    end = _key_at(cursor, table, after, MAX_TIMESTAMP, SCAN)
    cursor.execute(
        f"SELECT DISTINCT session_number, series_id FROM {table} NOT INDEXED"  # noqa: S608 - one of two names
        " WHERE (timestamp_ms, series_id) > (?, ?) AND (timestamp_ms, series_id) <= (?, ?)",
        (*after, *(end or (MAX_TIMESTAMP, ID_BASE))),
    )
    for session, one in cursor.fetchall():
        sessions.add(session)
        series.add(one)
    return end


def delete_sessions(cursor: Cursor, used: Collection[int], before_ms: int) -> int:
    """Delete sessions that have ended before a time and are not used, but for the latest.

    :param used: sessions that have samples.
    :return: how many; :data:`ROWS` means that there may be more.
    """
    cursor.execute(
        "SELECT number FROM sessions WHERE status != 'active'"
        " AND ifnull(end_time, start_time) < ? AND number NOT IN"
        " (SELECT number FROM sessions ORDER BY number DESC LIMIT ?)",
        (before_ms, SESSIONS),
    )
    unused = [row for row in cursor.fetchall() if row[0] not in used][:ROWS]
    cursor.executemany("DELETE FROM sessions WHERE number = ?", unused)
    return len(unused)


def delete_series(cursor: Cursor, used: Collection[int]) -> int:
    """Delete series that are not used, when there are more than :data:`SERIES`.

    The last one stays, so that no id is ever given twice.

    :param used: series that have samples, or may have by now.
    :return: how many; :data:`ROWS` means that there may be more.
    """
    cursor.execute("SELECT id FROM series ORDER BY id DESC")
    ids = cursor.fetchall()
    unused = [row for row in ids[1:] if row[0] not in used][:ROWS] if len(ids) > SERIES else []
    cursor.executemany("DELETE FROM series WHERE id = ?", unused)
    return len(unused)


def _key_at(cursor: Cursor, table: str, after: Key, last_ms: int, count: int) -> Key | None:
    """Return the key of the row that is ``count`` rows behind another; ``None`` if none is."""
    cursor.execute(
        f"SELECT timestamp_ms, series_id FROM {table} NOT INDEXED"  # noqa: S608 - one of two names
        " WHERE (timestamp_ms, series_id) > (?, ?) AND timestamp_ms <= ?"
        " ORDER BY timestamp_ms, series_id LIMIT 1 OFFSET ?",
        (*after, last_ms, count - 1),
    )
    found: Key | None = cursor.fetchone()
    return found


def _deleted(keys: list[Key], after: Key | None) -> Deleted:
    if not keys:
        return Deleted(after=after)
    return Deleted(len(keys), keys[0][0], keys[-1][0], after)
