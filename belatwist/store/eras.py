"""Clock eras: which samples were stamped by a clock that was not known to be right.

An era begins when the agent starts in a boot whose clock nobody has vouched for yet, or when the
clock is stepped. Samples stored meanwhile carry its number; others carry none. When the clock is
stepped again, the pending samples of the era move with it, so that they land where they happened.
Once the clock is known to be good the era is closed, and its samples stay where they are.
"""

from belatwist.clock import STEP_MS
from belatwist.store.queries import Cursor

_OF_ERA = "{} FROM samples INDEXED BY idx_uploaded WHERE checkpoint_id IS NULL AND era = ?"


def enter(cursor: Cursor, boot_id: str, offset_ms: int) -> tuple[int | None, int]:
    """Find the era in which this boot's clock is, beginning one where there is none.

    :param boot_id: tells this boot from others.
    :param offset_ms: the wall clock's offset from the boot clock.
    :return: the open era's number, or ``None`` when the clock is known to be good already; and by
        how much the clock was stepped since, while an era was open and the agent was not running.
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
            return (None if synchronised else number), 0
        if not synchronised:
            return number, stepped
    return begin(cursor, boot_id, offset_ms), 0


def begin(cursor: Cursor, boot_id: str, offset_ms: int) -> int:
    """Begin an era and return its number."""
    cursor.execute(
        "INSERT INTO clock_eras (boot_id, offset_ms) VALUES (?, ?)", (boot_id, offset_ms)
    )
    return int(cursor.lastrowid or 0)


def move(cursor: Cursor, era: int, step_ms: int) -> tuple[int, int]:
    """Move the pending samples of an open era by a step of the clock.

    The key of a sample holds its time, so they are taken out and put back: moved in place, one
    could come to stand where another has not left yet.

    :return: how many were moved; and how many were dropped, because another sample of that series
        and millisecond stands there already.
    """
    # Made outside of the transaction, as Python has it; an earlier one may have been rolled back.
    cursor.execute("DROP TABLE IF EXISTS temp.moved")
    cursor.execute("CREATE TEMP TABLE moved AS " + _OF_ERA.format("SELECT *"), (era,))
    cursor.execute(_OF_ERA.format("DELETE"), (era,))
    taken = cursor.rowcount
    cursor.execute(
        "INSERT INTO samples (timestamp_ms, series_id, value, priority, session_number, era)"
        " SELECT timestamp_ms + ?, series_id, value, priority, session_number, era"
        " FROM moved WHERE true ON CONFLICT (timestamp_ms, series_id) DO NOTHING",
        (step_ms,),
    )
    placed = cursor.rowcount
    cursor.execute("DROP TABLE temp.moved")
    cursor.execute(
        "UPDATE clock_eras SET offset_ms = offset_ms + ? WHERE number = ?", (step_ms, era)
    )
    return placed, taken - placed


def close(cursor: Cursor, era: int) -> None:
    """Close an era: the clock is known to be good, and its samples are where they belong."""
    cursor.execute("UPDATE clock_eras SET synchronised = 1 WHERE number = ?", (era,))
