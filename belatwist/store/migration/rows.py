"""Moves rows of the old table ``metrics`` into the tables of version 3."""

from collections import defaultdict
from collections.abc import Iterable
from sqlite3 import IntegrityError

from belatwist.model import TEXT
from belatwist.store import Outcome
from belatwist.store.migration.legacy import (
    UNKNOWN,
    InvalidRowError,
    LegacyRow,
    checked,
    priority,
    select,
    series,
)
from belatwist.store.sql import queries

_Moved = tuple[int, int, float | str, int, int, int | None]
"""A row's new form: the columns that ``_INSERT_SAMPLE`` names."""

_REMEMBERED = 20_000  # Of each kind, at most: a database may hold more series than memory should.
_MADE_SESSION = '{"made_by":"migration"}'
_REASONS = {
    Outcome.ACCEPTED: "uploaded before the migration",
    Outcome.REJECTED: "rejected before the migration",
}

_RANK = """
CASE coalesce((SELECT outcome FROM upload_checkpoints WHERE id = {}.checkpoint_id), 0)
WHEN 1 THEN 2 WHEN 0 THEN 1 ELSE 0 END
"""

# Of duplicates, the accepted row is kept, because the server has it; else a pending row; and of
# several such rows the first.
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


class RowMigrator:
    """Moves rows, and remembers the ids that they get.

    After a transaction that failed it must not be used again: its ids may have been rolled back.

    :param encoding: the database's (``UTF-8``).
    :param now_ms: Unix time in milliseconds, of uploads of which no other time is known.
    """

    def __init__(self, encoding: str, now_ms: int) -> None:
        self._encoding = encoding
        self._now_ms = now_ms
        self._series: dict[tuple[bytes | None, bytes | None, bytes | None, int], int] = {}
        self._sessions: dict[bytes | None, int] = {}
        self._settlements: dict[tuple[Outcome, bytes | None, int | None], int] = {}

    def move(self, cursor: queries.Cursor, limit: int) -> int:
        """Move the next rows of the old table, within the caller's transaction.

        :return: how many there were, of at most ``limit``.
        """
        for memory in (self._series, self._sessions, self._settlements):
            if len(memory) > _REMEMBERED:
                memory.clear()
        cursor.execute("SELECT name FROM pragma_table_info('migration_metrics')")
        columns = {str(row[0]).lower() for row in cursor.fetchall()}
        cursor.execute(select("migration_metrics", columns), (limit,))
        rows = [LegacyRow(*row) for row in cursor.fetchall()]
        if not rows:
            return 0
        samples: list[_Moved] = []
        texts: list[_Moved] = []
        leftovers = []
        for row in rows:
            try:
                timestamp_ms, value = checked(row, self._encoding)
                number = self._series_id(cursor, row)
            except InvalidRowError as error:
                leftovers.append((str(error), row.rowid))
                continue
            session = self._session(cursor, row, timestamp_ms)
            key = (timestamp_ms, number, value, priority(row), session)
            if row.value_type == TEXT:
                texts.append((*key, None))
            else:
                samples.append((*key, self._settlement(cursor, row)))
        if leftovers:
            self._keep_leftovers(cursor, leftovers)
        cursor.executemany(_INSERT_SAMPLE, samples)
        cursor.executemany(_INSERT_TEXT, [row[:5] for row in texts])
        self._account(cursor, [*samples, *texts])
        cursor.execute("DELETE FROM migration_metrics WHERE rowid <= ?", (rows[-1].rowid,))
        cursor.execute("UPDATE migration_progress SET moved = moved + ?", (len(rows),))
        return len(rows)

    def _series_id(self, cursor: queries.Cursor, row: LegacyRow) -> int:
        key = (row.name, row.device_id, row.tags, row.value_type)
        found = self._series.get(key)
        if found is None:
            one = series(row, self._encoding)
            try:
                found = queries.series_id(cursor, one)
            except IntegrityError as error:
                raise InvalidRowError("no id is left for another series") from error
            self._series[key] = found
        return found

    def _session(self, cursor: queries.Cursor, row: LegacyRow, timestamp_ms: int) -> int:
        """Return the number of a row's session; make a session that is not known yet."""
        found = self._sessions.get(row.session_id)
        if found is None:
            name = (row.session_id or b"").decode(self._encoding, "replace") or UNKNOWN
            cursor.execute(
                "INSERT INTO sessions (id, start_time, end_time, status, metadata)"
                " VALUES (?, ?, ?, 'completed', ?) ON CONFLICT (id) DO NOTHING",
                (name, timestamp_ms, timestamp_ms, _MADE_SESSION),
            )
            cursor.execute("SELECT number FROM sessions WHERE id = ?", (name,))
            found = self._sessions[row.session_id] = int(cursor.fetchone()[0])
        return found

    def _settlement(self, cursor: queries.Cursor, row: LegacyRow) -> int | None:
        """Return the settlement of a row that is no longer pending; make it where there is none."""
        if row.uploaded not in _REASONS:
            return None
        outcome = Outcome(row.uploaded)
        key = (outcome, row.batch_id, row.chunk_index)
        found = self._settlements.get(key)
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
            self._settlements[key] = found
        return found

    @staticmethod
    def _account(cursor: queries.Cursor, rows: Iterable[_Moved]) -> None:
        """Update the sessions and settlements of these rows: their times and counts."""
        sessions: defaultdict[int, list[int]] = defaultdict(list)
        settlements: defaultdict[int, list[int]] = defaultdict(list)
        for timestamp_ms, _, _, _, session, settlement in rows:
            sessions[session].append(timestamp_ms)
            if settlement is not None:
                settlements[settlement].append(timestamp_ms)
        cursor.executemany(
            "UPDATE sessions SET start_time = min(start_time, ?), end_time = max(end_time, ?)"
            " WHERE number = ? AND metadata = ?",
            [(min(times), max(times), i, _MADE_SESSION) for i, times in sessions.items()],
        )
        cursor.executemany(
            "UPDATE upload_checkpoints SET metrics_count = metrics_count + ?,"
            " last_uploaded_timestamp = max(coalesce(last_uploaded_timestamp, ?), ?)"
            " WHERE id = ? AND reason IS NOT NULL",
            [(len(times), min(times), max(times), i) for i, times in settlements.items()],
        )

    @staticmethod
    def _keep_leftovers(cursor: queries.Cursor, leftovers: Iterable[tuple[str, int]]) -> None:
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS migration_leftovers AS"
            " SELECT '' AS reason, * FROM migration_metrics WHERE false"
        )
        cursor.executemany(
            "INSERT INTO migration_leftovers SELECT ?, * FROM migration_metrics WHERE rowid = ?",
            leftovers,
        )
