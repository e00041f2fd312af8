"""Every statement on samples, as plain functions of a cursor, within the caller's transaction."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from sqlite3 import SQLITE_CONSTRAINT_CHECK, IntegrityError
from typing import Any, Protocol

from belatwist.model import PRIORITIES, TEXT, Sample, Series
from belatwist.store import Key, Position, Row, Settlement
from belatwist.store.sql.schema import ID_BASE


class Cursor(Protocol):
    """The part of a DB-API cursor (PEP 249) that is used here; adbapi's transaction has it too."""

    @property
    def rowcount(self) -> int:  # noqa: D102
        ...

    @property
    def lastrowid(self) -> int | None:  # noqa: D102
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Any:  # noqa: D102
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Any:  # noqa: D102
        ...

    def fetchone(self) -> Any:  # noqa: D102
        ...

    def fetchall(self) -> list[Any]:  # noqa: D102
        ...


_INSERT = """
INSERT INTO {table} (timestamp_ms, series_id, value, priority, session_number, era)
VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (timestamp_ms, series_id) DO NOTHING
"""
_INSERT_SAMPLE = _INSERT.format(table="samples")
_INSERT_TEXT = _INSERT.format(table="texts")

# INDEXED BY makes it an error, not a slow query, if this index should ever not serve.
PENDING = """
SELECT timestamp_ms, series_id, value
FROM samples INDEXED BY idx_uploaded
WHERE checkpoint_id IS NULL
  AND (priority, timestamp_ms, series_id) > (?, ?, ?) AND timestamp_ms <= ?
ORDER BY priority, timestamp_ms, series_id
LIMIT ?
"""

# Of one priority: the index is in order of time within each.
NEWEST = """
SELECT timestamp_ms, series_id, value
FROM samples INDEXED BY idx_uploaded
WHERE checkpoint_id IS NULL AND priority = ? AND timestamp_ms <= ?
ORDER BY timestamp_ms DESC, series_id DESC
LIMIT ?
"""

_START: Position = (-1, 0, 0)

_MARK = """
UPDATE samples SET checkpoint_id = ?
WHERE timestamp_ms = ? AND series_id = ? AND value = ? AND checkpoint_id IS NULL
"""

COUNT_RANGE = """
SELECT count(*) FROM (
    SELECT 1 FROM samples NOT INDEXED
    WHERE (timestamp_ms, series_id) BETWEEN (?, ?) AND (?, ?) LIMIT ?
)
"""

MARK_RANGE = """
UPDATE samples NOT INDEXED SET checkpoint_id = ?
WHERE (timestamp_ms, series_id) BETWEEN (?, ?) AND (?, ?) AND checkpoint_id IS NULL
"""

_CHECKPOINT = """
INSERT INTO upload_checkpoints (batch_id, chunk_index, last_uploaded_id,
                                first_uploaded_timestamp, last_uploaded_timestamp,
                                upload_time, metrics_count, outcome, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def insert(
    cursor: Cursor,
    samples: Sequence[Sample],
    known: Mapping[Series, int],
    session: int,
    era: int | None = None,
    *,
    room: float = math.inf,
) -> tuple[int, dict[Series, int], list[Sample]]:
    """Insert samples; a sample that is already stored is ignored.

    :param known: ids of series, as far as they are known.
    :param session: the number of the running session.
    :param era: the open clock era; ``None`` when the clock is known to be good.
    :param room: how many series that ``known`` lacks are stored, at most.
    :return: how many numeric samples were new; the ids of series that ``known`` lacked; and the
        samples for whose series there was no room, or no id. The ids hold once the transaction is
        committed.
    """
    found: dict[Series, int] = {}
    refused: list[Sample] = []
    for one in samples:
        if one.series not in known and one.series not in found:
            number = _id_if_left(cursor, one.series) if len(found) < room else None
            if number is None:
                refused.append(one)
            else:
                found[one.series] = number
    ids = {**known, **found} if found else known
    if refused:
        samples = [one for one in samples if one.series in ids]
    rows = [
        (s.timestamp_ms, ids[s.series], s.value, s.series.priority, session, era) for s in samples
    ]
    if not any(s.series.value_type == TEXT for s in samples):
        cursor.executemany(_INSERT_SAMPLE, rows)
        return cursor.rowcount, found, refused
    texts = [s.series.value_type == TEXT for s in samples]
    cursor.executemany(_INSERT_TEXT, [r for r, text in zip(rows, texts, strict=True) if text])
    cursor.executemany(_INSERT_SAMPLE, [r for r, text in zip(rows, texts, strict=True) if not text])
    return cursor.rowcount, found, refused


def _id_if_left(cursor: Cursor, series: Series) -> int | None:
    """Return a series' id, or ``None`` if it has none and all ids are given out."""
    try:
        return series_id(cursor, series)
    except IntegrityError as error:
        if error.sqlite_errorcode != SQLITE_CONSTRAINT_CHECK:
            raise
        return None


def series_id(cursor: Cursor, series: Series) -> int:
    """Return a series' id, making one where it has none yet."""
    identity = (series.name, series.device_id, series.tags_json, series.value_type)
    # It is looked for first: where no id is left, an insert would fail although it has one.
    cursor.execute(
        "SELECT id FROM series WHERE name = ? AND device_id = ? AND tags = ? AND value_type = ?",
        identity,
    )
    found = cursor.fetchone()
    if found is not None:
        return int(found[0])
    cursor.execute(
        "INSERT INTO series (name, device_id, tags, value_type) VALUES (?, ?, ?, ?)", identity
    )
    return int(cursor.lastrowid or 0)


def fetch(cursor: Cursor, limit: int, until_ms: int, after: Position | None = None) -> list[Row]:
    """Read pending samples by priority, then timestamp, then id; see :class:`SampleStore`."""
    cursor.execute(PENDING, (*(after or _START), until_ms, limit))
    return cursor.fetchall()


def fetch_newest(cursor: Cursor, limit: int, until_ms: int) -> list[Row]:
    """Read the newest pending samples, the oldest of them first."""
    rows: list[Row] = []
    for priority in PRIORITIES:
        cursor.execute(NEWEST, (priority, until_ms, limit))
        rows += cursor.fetchall()
    return sorted(rows)[-limit:]


def position(cursor: Cursor, row: Row) -> Position:
    """Return a sample's position in the order of sending."""
    cursor.execute(
        "SELECT priority, timestamp_ms, series_id FROM samples"
        " WHERE timestamp_ms = ? AND series_id = ?",
        row[:2],
    )
    priority, timestamp_ms, series_id = cursor.fetchone()
    return priority, timestamp_ms, series_id


def series_of(cursor: Cursor, ids: Iterable[int]) -> dict[int, Series]:
    """Read series by their ids."""
    result: dict[int, Series] = {}
    for one in ids:
        cursor.execute("SELECT name, device_id, tags, value_type FROM series WHERE id = ?", (one,))
        name, device_id, tags, value_type = cursor.fetchone()
        result[one] = Series.of(name, device_id, json.loads(tags), value_type=value_type)
    return result


def settle(cursor: Cursor, settlements: Sequence[Settlement], now_ms: int, as_of: int) -> int:
    """Record settlements: a row each, to which its samples then point.

    :param now_ms: Unix time in milliseconds.
    :param as_of: how often the store has been written to before this.
    :return: how many samples are no longer pending.
    """
    settled = 0
    for settlement in settlements:
        first, last = min(settlement.rows)[:2], max(settlement.rows)[:2]
        cursor.execute(
            _CHECKPOINT,
            (
                settlement.batch_id,
                settlement.chunk_index,
                last[0] * ID_BASE + last[1],
                first[0],
                last[0],
                now_ms,
                len(settlement.rows),
                int(settlement.outcome),
                settlement.reason,
            ),
        )
        number = cursor.lastrowid
        unchanged = settlement.as_of == as_of
        if unchanged and _is_contiguous(cursor, first, last, len(settlement.rows)):
            cursor.execute(MARK_RANGE, (number, *first, *last))
        else:
            # By its value as well: if the clock was stepped during the upload, another sample of
            # the series may have this key now.
            cursor.executemany(_MARK, [(number, *row) for row in settlement.rows])
        settled += cursor.rowcount
    return settled


def _is_contiguous(cursor: Cursor, first: Key, last: Key, count: int) -> bool:
    """Return whether the range from one sample to another holds exactly so many samples.

    It then holds the samples that were read, if none was written since.

    :param first: its ``(timestamp_ms, series_id)``.
    """
    cursor.execute(COUNT_RANGE, (*first, *last, count + 1))
    return bool(cursor.fetchone()[0] == count)


def count_pending(cursor: Cursor) -> int:
    """Count the pending samples; reads only their index."""
    cursor.execute(
        "SELECT count(*) FROM samples INDEXED BY idx_uploaded WHERE checkpoint_id IS NULL"
    )
    return int(cursor.fetchone()[0])


def oldest(cursor: Cursor) -> int | None:
    """Return the time of the oldest sample, settled ones included; ``None`` when there is none."""
    cursor.execute("SELECT timestamp_ms FROM samples ORDER BY timestamp_ms, series_id LIMIT 1")
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def begin_session(
    cursor: Cursor, session_id: str, now_ms: int, metadata: str
) -> tuple[int, list[str]]:
    """Begin a session; a session that is still active crashed, and becomes failed.

    A failed session ended at its last sample, or when it began if it has none.

    :param metadata: JSON.
    :return: the new session's number, and the ids of the sessions that had crashed.
    """
    cursor.execute("SELECT number, id FROM sessions WHERE status = 'active'")
    crashed = cursor.fetchall()
    for number, _ in crashed:
        cursor.execute(
            "UPDATE sessions SET status = 'failed', end_time = coalesce("
            " (SELECT timestamp_ms FROM samples WHERE session_number = ?"
            "  ORDER BY timestamp_ms DESC LIMIT 1), start_time) WHERE number = ?",
            (number, number),
        )
    cursor.execute(
        "INSERT INTO sessions (id, start_time, status, metadata) VALUES (?, ?, 'active', ?)",
        (session_id, now_ms, metadata),
    )
    return int(cursor.lastrowid or 0), [row[1] for row in crashed]


def end_session(cursor: Cursor, number: int, now_ms: int) -> None:
    """End a session as completed."""
    cursor.execute(
        "UPDATE sessions SET status = 'completed', end_time = ? WHERE number = ?", (now_ms, number)
    )
