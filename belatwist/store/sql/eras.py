"""Clock eras: which samples were stamped by a clock that was not known to be right.

An era begins when the agent starts in a boot whose clock is not trusted yet, or when the clock is
stepped. Samples stored meanwhile carry its number; others carry none. When the clock is stepped
again, a new era begins. The step moves the pending samples of the previous era into it, so that
they land where they happened. Once the clock is known to be good the era is closed, and its samples
stay where they are.

There may be a million of them, so that they are moved in batches. In each transaction samples
change their era and time together: wherever the agent ends, none is moved twice, and none is lost.
"""

from dataclasses import dataclass
from typing import NamedTuple

from belatwist.clock.sources import STEP_MS
from belatwist.model import PRIORITIES
from belatwist.store import MIN_KEY, Key
from belatwist.store.sql.queries import Cursor
from belatwist.store.sql.retention import MAX_TIMESTAMP
from belatwist.store.sql.schema import ID_BASE

ROWS = 2500
"""How many rows of each priority one batch looks at, at most."""

# A moved sample may take the key of a sample that is still to be moved. So the latest move first
# when the clock was set forward, and the earliest when it was set back.
_BATCH = """
SELECT timestamp_ms, series_id, value, priority, session_number, era
FROM samples INDEXED BY idx_uploaded
WHERE checkpoint_id IS NULL AND priority = ?
  AND (timestamp_ms, series_id) > (?, ?) AND (timestamp_ms, series_id) < (?, ?)
ORDER BY timestamp_ms {0}, series_id {0} LIMIT ?
"""
_UP = _BATCH.format("DESC")
_DOWN = _BATCH.format("ASC")

_LAST: Key = (MAX_TIMESTAMP, ID_BASE)


class Restamp(NamedTuple):
    """Samples to be moved.

    :ivar era: those of this era,
    :ivar to: into this one,
    :ivar step_ms: by so much.
    """

    era: int
    to: int
    step_ms: int


class RestampProgress(NamedTuple):
    """How far a restamp has come: everything beyond this key is moved."""

    era: int
    key: Key


@dataclass(frozen=True, slots=True)
class Restamped:
    """The result of one call.

    :ivar count: how many samples.
    :ivar dropped: how many others were deleted, because their new key is taken.
    :ivar progress: where the next call begins; ``None`` when that is anywhere.
    :ivar more: whether anything is left to be moved.
    """

    count: int
    dropped: int
    progress: RestampProgress | None
    more: bool


def enter(cursor: Cursor, boot_id: str, offset_ms: int) -> int | None:
    """Find the era in which this boot's clock is, beginning one where there is none.

    :param boot_id: identifies this boot.
    :param offset_ms: the wall clock's offset from the boot clock. If it was stepped while an era
        was open and the agent was not running, that is taken note of now.
    :return: the open era's number, or ``None`` when the clock is known to be good already.
    """
    cursor.execute(
        "SELECT number, offset_ms, synchronised FROM clock_eras WHERE boot_id = ?"
        " ORDER BY number DESC LIMIT 1",
        (boot_id,),
    )
    found = cursor.fetchone()
    # Without a boot id nothing is known of earlier eras.
    if found is not None and boot_id:
        number, offset, synchronised = found
        stepped = offset_ms - offset
        if abs(stepped) < STEP_MS:
            return None if synchronised else number
        if not synchronised:
            return step(cursor, number, stepped)
    return begin(cursor, boot_id, offset_ms)


def begin(cursor: Cursor, boot_id: str, offset_ms: int) -> int:
    """Begin an era and return its number."""
    cursor.execute(
        "INSERT INTO clock_eras (boot_id, offset_ms) VALUES (?, ?)", (boot_id, offset_ms)
    )
    return int(cursor.lastrowid or 0)


def exists(cursor: Cursor, era: int) -> bool:
    """Return whether an era is in the database."""
    cursor.execute("SELECT 1 FROM clock_eras WHERE number = ?", (era,))
    return cursor.fetchone() is not None


def step(cursor: Cursor, era: int, step_ms: int) -> int:
    """Take note of a step while an era is open: its samples are to be moved into a new one.

    :return: the new era's number.
    """
    cursor.execute("SELECT boot_id, offset_ms FROM clock_eras WHERE number = ?", (era,))
    boot_id, offset_ms = cursor.fetchone()
    number = begin(cursor, boot_id, offset_ms + step_ms)
    cursor.execute("UPDATE clock_eras SET moves_to = ? WHERE number = ?", (number, era))
    return number


def close(cursor: Cursor, era: int) -> None:
    """Close an era: the clock is known to be good, and its samples are where they belong."""
    cursor.execute("UPDATE clock_eras SET synchronised = 1 WHERE number = ?", (era,))


def unfinished(cursor: Cursor) -> Restamp | None:
    """Find the earliest step whose samples are not all moved, so that each era is whole."""
    cursor.execute(
        "SELECT a.number, b.number, b.offset_ms - a.offset_ms"
        " FROM clock_eras a JOIN clock_eras b ON b.number = a.moves_to ORDER BY a.number LIMIT 1"
    )
    found = cursor.fetchone()
    return None if found is None else Restamp(*found)


def restamp(cursor: Cursor, progress: RestampProgress | None) -> Restamped:
    """Move the next samples that are to be moved.

    :param progress: where the last call ended; ``None`` if that is not known.
    """
    restamping = unfinished(cursor)
    if restamping is None:
        return Restamped(0, 0, None, more=False)
    begin_at = progress.key if progress is not None and progress.era == restamping.era else None
    rows, end = _next_batch(cursor, begin_at, up=restamping.step_ms > 0)
    rows = [row for row in rows if row[5] == restamping.era]
    cursor.executemany(
        "DELETE FROM samples WHERE timestamp_ms = ? AND series_id = ?", [row[:2] for row in rows]
    )
    cursor.executemany(
        "INSERT INTO samples (timestamp_ms, series_id, value, priority, session_number, era)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (timestamp_ms, series_id) DO NOTHING",
        [(row[0] + restamping.step_ms, *row[1:5], restamping.to) for row in rows],
    )
    count = cursor.rowcount if rows else 0
    if end is not None:
        return Restamped(count, len(rows) - count, RestampProgress(restamping.era, end), more=True)
    # Closed, because there is nothing of it that a later step could move.
    cursor.execute(
        "UPDATE clock_eras SET moves_to = NULL, synchronised = 1 WHERE number = ?",
        (restamping.era,),
    )
    return Restamped(count, len(rows) - count, None, more=unfinished(cursor) is not None)


def _next_batch(
    cursor: Cursor, after: Key | None, *, up: bool
) -> tuple[list[tuple[int, int, float, int, int, int | None]], Key | None]:
    """Read the next pending samples of all eras, in the order in which they can be moved.

    :param up: whether the latest go first.
    :return: the samples, and behind which one to go on; ``None`` when these are all.
    """
    first, last = (MIN_KEY, after or _LAST) if up else (after or MIN_KEY, _LAST)
    found = []
    end = None
    for priority in PRIORITIES:
        cursor.execute(_UP if up else _DOWN, (priority, *first, *last, ROWS))
        rows = cursor.fetchall()
        found += rows
        if len(rows) == ROWS:
            # There may be more of this priority behind it: nothing else is moved from there yet.
            end = rows[-1][:2]
            if up:
                first = (end[0], end[1] - 1)
            else:
                last = (end[0], end[1] + 1)
    if end is not None:
        found = [row for row in found if (row[:2] >= end if up else row[:2] <= end)]
    return found, end


class EraState:
    """The eras in the memory of the database's thread; no other thread uses it.

    So samples that were added before a step of the clock are stored before it, and move with it.

    :ivar restamping: whether samples are yet to be moved; none may be read meanwhile.
    """

    def __init__(self) -> None:
        self.restamping = False
        self._era: int | None = None
        self._progress: RestampProgress | None = None
        self._replaced = False

    def load(self, cursor: Cursor) -> None:
        """Read whether samples are yet to be moved."""
        self.restamping = unfinished(cursor) is not None

    def current(self, cursor: Cursor) -> int | None:
        """Return the open era; in a database that has replaced another one it may be lost."""
        if self._replaced:
            self._replaced = False
            self.load(cursor)
            if self._era is not None and not exists(cursor, self._era):
                self._era = None
        return self._era

    def forget(self) -> None:
        """Take note that another database has replaced this one."""
        self._progress = None
        self._replaced = True

    def enter(self, era: int | None, *, restamping: bool) -> None:
        """Take note of the era that a committed transaction has opened or closed."""
        self._era, self.restamping = era, restamping

    def restamp(self, cursor: Cursor) -> Restamped:
        """Move the next samples; :meth:`moved` takes note of it once that is committed."""
        return restamp(cursor, self._progress)

    def moved(self, result: Restamped) -> None:
        """Take note of samples that a committed transaction has moved."""
        self._progress, self.restamping = result.progress, result.more

    def restamp_all(self, cursor: Cursor) -> int:
        """Move all samples that are yet to be moved, and return how many were dropped."""
        dropped, progress, more = 0, self._progress, True
        while more:
            result = restamp(cursor, progress)
            dropped, progress, more = dropped + result.dropped, result.progress, result.more
        return dropped
