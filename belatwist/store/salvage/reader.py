"""Reads the samples of a damaged database that can still be trusted, round the damage.

SQLite reports a damaged page when it reads it; all other pages can still be read on another way.
Its pages have no checksums, so that a row which reads well may still be wrong. A pending sample is
trusted if the index of pending samples confirms it and it does not stand next to damage. That is no
proof: nothing detects a bit that flips inside a value.
"""

import json
import math
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from belatwist.model import Series
from belatwist.store import Key
from belatwist.store.sql.schema import ID_BASE

MAX_GAPS = 20_000
"""Places that are tried between two damaged ones, at most."""

SECONDS = 300.0
"""How long a database is read, at most."""

READ_ERRORS = (sqlite3.Error, MemoryError)
"""Errors of reading damage: a length that is garbage may exceed the memory."""

_LENGTH = 1 << 20

_EARLIEST = (-1, 0)
_LATEST = (1 << 43, 0)  # Beyond it an id would not fit in 64 bits.

# Not by the whole key: SQLite would then leave out columns that it reads as NULL in a damaged page.
_ROWS = """
SELECT timestamp_ms, series_id, value, priority, session_number, era, checkpoint_id
FROM samples NOT INDEXED
WHERE timestamp_ms {0} ? ORDER BY timestamp_ms {1}, series_id {1}
"""
_UP = _ROWS.format(">=", "ASC")
_DOWN = _ROWS.format("<=", "DESC")

_FIRST = "SELECT timestamp_ms, series_id FROM samples NOT INDEXED ORDER BY 1, 2 LIMIT 1"

_IS_INDEXED = """
SELECT 1 FROM samples INDEXED BY idx_uploaded
WHERE checkpoint_id IS NULL AND priority = ? AND timestamp_ms = ? AND series_id = ?
"""
_END = """
SELECT timestamp_ms FROM samples INDEXED BY idx_uploaded
WHERE checkpoint_id IS NULL AND priority = ? ORDER BY timestamp_ms {} LIMIT 1
"""

_SERIES = "SELECT id, name, device_id, tags, value_type FROM series "
AUX_TABLES = {
    "sessions": "number, id, start_time, end_time, status, metadata",
    "clock_eras": "number, boot_id, offset_ms, synchronised, moves_to",
}

Identity = tuple[str, str, str, int]


class DamagedReader:
    """A damaged database, read with caution. It is not changed.

    :param known: series by their ids, as far as they are known without the database.
    :param interrupted: returns whether to stop; all reading then soon ends as if at damage.
    :ivar stopped: why reading ended before everything was tried; ``None`` if it did not.
    """

    def __init__(
        self, path: Path, known: Mapping[int, Series], interrupted: Callable[[], bool]
    ) -> None:
        self._known = {
            number: (one.name, one.device_id, one.tags_json, one.value_type)
            for number, one in known.items()
        }
        self.stopped: str | None = None
        self._sessions: set[int] | None = None
        self._top = _LATEST
        self._interrupted = interrupted
        self._until = time.monotonic() + SECONDS
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
        )
        try:
            self._configure()
        except BaseException:
            self._connection.close()  # The caller does not have this object yet.
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _configure(self) -> None:
        self._connection.text_factory = bytes
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH)
        # A tree that is damaged may have no end.
        self._connection.set_progress_handler(self._is_over, 100_000)
        # With it a table is found though another one's definition is damaged, or pages are missing.
        self._connection.execute("PRAGMA writable_schema = 1")
        self._connection.execute("PRAGMA cell_size_check = 1")

    def has_tables(self) -> bool:
        """Return whether the first page, which locates the tables, can be read."""
        try:
            found = self._connection.execute("SELECT name FROM sqlite_master").fetchall()
        except READ_ERRORS:
            return False
        return {b"series", b"samples"} <= {row[0] for row in found}

    def count_indexed(self) -> int | None:
        """Count the entries in the index of pending samples; ``None`` when it cannot be read."""
        try:
            row = self._connection.execute(
                "SELECT count(*) FROM samples INDEXED BY idx_uploaded WHERE checkpoint_id IS NULL"
            ).fetchone()
        except READ_ERRORS:
            return None
        return int(row[0])

    def series(self) -> dict[int, Identity]:
        """Read every series that its table and the table's index agree on.

        Where one of the two cannot be read the other is believed.
        """
        index = "INDEXED BY sqlite_autoindex_series_1 ORDER BY name {0}, device_id {0}, tags {0}"
        in_table, whole_table = self._read_both_directions(_SERIES + "NOT INDEXED ORDER BY id {0}")
        in_index, whole_index = self._read_both_directions(_SERIES + index)
        found: dict[int, Identity] = {}
        for number in in_table.keys() | in_index.keys():
            one, other = in_table.get(number), in_index.get(number)
            agreed = one == other or (one is None and not whole_table)
            agreed = agreed or (other is None and not whole_index)
            identity = _identity(one or other or ())
            if agreed and identity is not None and 0 < number < ID_BASE:
                found[number] = identity
        return found | self._known

    def aux_table(self, table: str) -> tuple[list[tuple[Any, ...]], bool]:
        """Read a table of :data:`AUX_TABLES`, as far as that is possible.

        :return: its rows, and whether these are all.
        """
        sql = f"SELECT {AUX_TABLES[table]} FROM {table} NOT INDEXED ORDER BY number {{0}}"  # noqa: S608 - constants
        found, whole = self._read_both_directions(sql)
        rows = []
        for number, row in found.items():
            try:
                decoded = [one.decode() if isinstance(one, bytes) else one for one in row]
            except UnicodeDecodeError:
                whole = False
            else:
                rows.append((number, *decoded))
        return rows, whole

    def last_settlement(self) -> int | None:
        """Read the number of the last settlement, so that new numbers follow it."""
        try:
            row = self._connection.execute("SELECT max(id) FROM upload_checkpoints").fetchone()
        except READ_ERRORS:
            return None
        return row[0] if type(row[0]) is int and 0 < row[0] < 1 << 40 else None

    def pending(self, series: set[int], sessions: set[int] | None) -> Iterator[tuple[Any, ...]]:
        """Read the pending samples from both ends and from in between, round the damage.

        :param series: ids of series that are known; a sample of another one says nothing.
        :param sessions: numbers of all sessions; ``None`` when they are not all known.
        :return: time, series, value, priority, session and era of each.
        """
        self._sessions = sessions
        self._top = self._end("DESC", _LATEST, 1)
        gaps = deque([(self._end("ASC", _EARLIEST, -1), self._top)])
        for _ in range(MAX_GAPS):
            if not gaps:
                return
            if self._is_over():
                self.stopped = f"that would have taken longer than {SECONDS:.0f} s"
                return
            low, high = gaps.popleft()
            up = yield from self._walk(low, high, series, up=True)
            if up is None:
                continue
            down = yield from self._walk(high, up, series, up=False)
            if down is not None and down[0] - up[0] > 1:
                middle = ((up[0] + down[0]) // 2, 0)
                gaps += [(up, middle), (middle, down)]

    def _is_over(self) -> bool:
        return self._interrupted() or time.monotonic() > self._until

    def _walk(
        self, start: Key, end: Key, series: set[int], *, up: bool
    ) -> Generator[tuple[Any, ...], None, Key | None]:
        """Read rows one after the other, to the end or to damage.

        A row is believed when those on both sides of it are sound: damage that begins within a page
        may have cut it short.

        :return: the last sound row's key; ``None`` when the end was reached.
        """
        last, held = start, None
        before = None if start[1] == 0 else False  # A place between rows, or the row at damage.
        try:
            for row in self._beyond(start, up=up):
                if not self._is_sound(row, last, up=up):
                    return last
                if held is not None:
                    yield held
                held = None
                if row[:2] >= end if up else row[:2] <= end:
                    return None
                if before is None:
                    before = self._is_bordered(row[:2], up=up)
                if before and row[6] is None and row[1] in series:
                    held = row[:6]
                before, last = True, row[:2]
        except READ_ERRORS:
            return last
        if not up or end != self._top:
            return last  # The row at the end should have come. Downwards, NULL ends it: damage.
        if held is not None:
            yield held
        return None

    def _beyond(self, key: Key, *, up: bool) -> Iterator[tuple[Any, ...]]:
        """Read the rows behind a key, or before it, and any garbage that SQLite reads as a row."""
        rows = self._connection.execute(_UP if up else _DOWN, (key[0],))
        for row in rows:
            if not _is_plausible(row) or (row[:2] > key if up else row[:2] < key):
                yield row
                yield from rows

    def _is_bordered(self, key: Key, *, up: bool) -> bool:
        """Return whether the row before the first one of a walk is sound, or is missing.

        Damage leads a search astray: the first row itself must be met on the way back to it.
        """
        met = False
        try:
            for row in self._connection.execute(_DOWN if up else _UP, (key[0],)):
                if met:
                    return self._is_sound(row, key, up=not up)
                met = row[:2] == key
                if not _is_plausible(row):
                    return False
            return met and (not up or self._connection.execute(_FIRST).fetchone() == key)
        except READ_ERRORS:
            return False

    def _is_sound(self, row: tuple[Any, ...], last: Key, *, up: bool) -> bool:
        """Return whether a row is plausible and in its order."""
        timestamp_ms, series_id, _, priority, session, _, settlement = row
        if not _is_plausible(row) or not (row[:2] > last if up else row[:2] < last):
            return False
        if settlement is not None:
            return True
        if self._sessions is not None and session not in self._sessions:
            return False
        try:
            listed = self._connection.execute(_IS_INDEXED, (priority, timestamp_ms, series_id))
            return listed.fetchone() is not None
        except READ_ERRORS:
            return True  # The index is damaged there, and says nothing.

    def _end(self, order: str, otherwise: Key, beyond: int) -> Key:
        """Find where pending samples begin, or end."""
        found = []
        for priority in range(4):
            try:
                row = self._connection.execute(_END.format(order), (priority,)).fetchone()
            except READ_ERRORS:
                return otherwise
            if row is not None:
                found.append(row[0])
        if not found or not all(type(one) is int for one in found):
            return otherwise
        return (min(found) + beyond if beyond < 0 else max(found) + beyond, 0)

    def _read_both_directions(self, sql: str) -> tuple[dict[int, tuple[Any, ...]], bool]:
        """Read a table from its beginning to damage, and from its end back to damage.

        :return: rows by their first column, which they are without; and whether that is all.
        """
        found: dict[int, tuple[Any, ...]] = {}
        for order in ("ASC", "DESC"):
            try:
                for row in self._connection.execute(sql.format(order)):
                    if type(row[0]) is int:
                        found.setdefault(row[0], row[1:])
            except READ_ERRORS:
                continue
            return found, True
        return found, False


def _is_plausible(row: tuple[Any, ...]) -> bool:
    """Return whether every column holds a possible value."""
    timestamp_ms, series_id, value, priority, session, era, settlement = row
    whole = (timestamp_ms, series_id, priority, session, 1 if era is None else era)
    return (
        all(type(one) is int for one in whole)
        and 0 <= timestamp_ms < _LATEST[0]
        and 0 < series_id < ID_BASE
        and (type(value) is int or (type(value) is float and math.isfinite(value)))
        and 0 <= priority <= 3
        and 0 < session < 1 << 31
        and (settlement is None or (type(settlement) is int and settlement > 0))
    )


def _identity(row: Iterable[Any]) -> Identity | None:
    """Read the identity of a series; ``None`` if it cannot be one."""
    try:
        name, device_id, tags, value_type = row
        texts = name.decode(), device_id.decode(), tags.decode()
        if not isinstance(json.loads(texts[2]), dict) or value_type not in (0, 1):
            return None
    except (ValueError, AttributeError, RecursionError):
        return None
    return (*texts, value_type)
