"""The write-ahead log: how large it is, and writing it back, as functions of a connection."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How writing back the log went.

    :ivar duration_ms: how long it took.
    :ivar old_size: the log's size in bytes, before.
    :ivar new_size: the same, after.
    :ivar busy: whether another program's transaction kept the log from being emptied.
    :ivar log_frames: how many pages the log held.
    :ivar frames_checkpointed: how many of them are in the database now.
    """

    duration_ms: float
    old_size: int
    new_size: int
    busy: bool
    log_frames: int
    frames_checkpointed: int

    @property
    def bytes_reclaimed(self) -> int:
        """How much smaller the log is now."""
        return self.old_size - self.new_size


def size(database: Path) -> int:
    """Return the size of a database's log in bytes; 0 when it has none."""
    return _size(f"{database}-wal")


def sizes(database: Path) -> tuple[int, int]:
    """Return the sizes in bytes of a database's file and of its log; 0 for a missing file."""
    name = str(database)
    return _size(name), _size(f"{name}-wal")


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size  # noqa: PTH116 - a path object costs ten times this
    except OSError:
        return 0


def checkpoint(connection: Connection, database: Path, busy_timeout_ms: int) -> Checkpoint:
    """Write the log back into the database and empty it, without waiting for a lock.

    A reader of pages in the log keeps it from being emptied; all other pages are still written
    back.

    :param busy_timeout_ms: the connection's timeout, which is restored afterwards.
    """
    old = size(database)
    begun = time.monotonic()
    connection.execute("PRAGMA busy_timeout=0").fetchall()
    try:
        # Says how many frames there were; the emptied log of the second one has none.
        _, frames, done = _run(connection, "PASSIVE")
        busy, left, done_of_left = _run(connection, "TRUNCATE")
    finally:
        connection.execute(f"PRAGMA busy_timeout={busy_timeout_ms}").fetchall()
    if busy and left >= 0:
        frames, done = left, done_of_left
    return Checkpoint(
        duration_ms=(time.monotonic() - begun) * 1000,
        old_size=old,
        new_size=size(database),
        busy=bool(busy),
        log_frames=max(frames, 0),
        frames_checkpointed=max(done, 0),
    )


def _run(connection: Connection, mode: str) -> tuple[int, int, int]:
    """Run a checkpoint: https://www.sqlite.org/pragma.html#pragma_wal_checkpoint

    :return: whether it was blocked, frames in the log, frames written back; -1 for unknown.
    """
    (row,) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
    busy, frames, done = row
    return busy, frames, done
