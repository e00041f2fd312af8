"""Replaces a damaged database: moves it aside, and copies its pending samples.

The new database is made beside the old one and takes its place when it is finished. If the agent is
killed meanwhile, the next start begins anew, or :func:`finish_replacement` finishes it. Only
databases of the present version are read. Uploaded samples and texts stay in the old file.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from belatwist.model import REAL, Series
from belatwist.store.salvage.reader import AUX_TABLES, READ_ERRORS, DamagedReader
from belatwist.store.sql import schema
from belatwist.store.sql.interrupt import StepInterruptedError

BATCH_SIZE = 5_000
"""Rows of a transaction into the new database."""

MIN_FREE = 8 << 20
"""Bytes that are left free on the disk, so that collection can go on; an eighth of a small disk."""

BLOCK = 1 << 20
"""Bytes that are copied at once."""

_FILES = ("-wal", "-shm", "")  # The database itself last: without it the others mean nothing.
_FRESH = ".new"
_READY = ".ready"
_COPY = "-copy"


@dataclass(frozen=True, slots=True)
class Salvaged:
    """The result of replacing a damaged database.

    :ivar backup_path: where the damaged one is now.
    :ivar recovered: how many pending samples are in the new one.
    :ivar indexed: how many the damaged one's index held; ``None`` if it cannot be read.
    :ivar stopped: why not everything that can be read was copied; ``None`` if it was.
    """

    backup_path: Path
    recovered: int
    indexed: int | None
    stopped: str | None


@dataclass(frozen=True, slots=True)
class Session:
    """The running session, which continues in the new database."""

    number: int
    id: str
    start_ms: int


def finish_replacement(path: Path) -> None:
    """Finish a replacement that a kill interrupted between its two renamings."""
    ready = path.with_name(path.name + _READY)
    if ready.exists():
        _swap_in(ready, path, datetime.now(UTC))


def replace(
    path: Path,
    now: datetime,
    known: Mapping[int, Series],
    session: Session | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Salvaged:
    """Put a new database in the place of a damaged one, which must not be open.

    :param now: the time, in UTC.
    :param known: series by their ids, as far as they are known without the database.
    :param session: the running session, if there is one.
    :param interrupted: returns whether to stop; called often.
    :raises OSError: when the disk does not take a new database; the old one is then in its place.
    :raises sqlite3.Error: the same.
    :raises StepInterruptedError: when it was given up; the same.
    """
    fresh = path.with_name(path.name + _FRESH)
    _remove(fresh)
    try:
        recovered, indexed, stopped = _copy_readable(
            fresh, path, now, known, session, interrupted=interrupted
        )
        _sync(fresh)
    except BaseException:
        _remove(fresh)
        raise
    # From here on the new one counts, wherever a kill comes: see finish_replacement().
    ready = path.with_name(path.name + _READY)
    fresh.rename(ready)
    _sync(path.parent)
    try:
        backup_path = _swap_in(ready, path, now)
    except OSError:
        _remove(ready)
        raise
    return Salvaged(backup_path, recovered, indexed, stopped)


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap_in(ready: Path, path: Path, now: datetime) -> Path:
    """Move the old database aside, as far as it is there, and the new one in its place."""
    backup_path = _move_aside(path, now)
    ready.rename(path)
    _sync(path.parent)
    return backup_path


def _move_aside(path: Path, now: datetime) -> Path:
    """Give a database, its log included, a name that no file has yet."""
    stamp = f"{path.name}.corrupt-{now:%Y%m%dT%H%M%SZ}"
    name, count = stamp, 1
    while any(path.with_name(name + suffix).exists() for suffix in _FILES):
        name, count = f"{stamp}.{count}", count + 1
    for suffix in _FILES:
        one = path.with_name(path.name + suffix)
        if one.exists():
            one.rename(path.with_name(name + suffix))
    return path.with_name(name)


def _copy_readable(
    fresh: Path,
    path: Path,
    now: datetime,
    known: Mapping[int, Series],
    session: Session | None,
    *,
    interrupted: Callable[[], bool],
) -> tuple[int, int | None, str | None]:
    """Make a new database, and copy into it all that can be read of the old one."""
    with closing(sqlite3.connect(fresh)) as target:
        schema.lay_out(target)
        schema.create(target, now.isoformat(timespec="seconds"))
        if session is not None:
            with target:
                target.execute(
                    "INSERT INTO sessions (number, id, start_time, status)"
                    " VALUES (?, ?, ?, 'active')",
                    (session.number, session.id, session.start_ms),
                )
        indexed = None
        stopped: str | None
        try:
            with _opened(path, fresh, known, interrupted) as source:
                indexed = source.count_indexed()
                stopped = _copy_rows(source, target) or source.stopped
        except (*READ_ERRORS, OSError) as error:
            stopped = str(error)
        if interrupted():
            raise StepInterruptedError
        recovered = target.execute("SELECT count(*) FROM samples").fetchone()[0]
    return recovered, indexed, stopped


@contextmanager
def _opened(
    path: Path, fresh: Path, known: Mapping[int, Series], interrupted: Callable[[], bool]
) -> Iterator[DamagedReader]:
    """Open a damaged database; where its first page is lost, a copy that has a new one.

    :param fresh: the new database, beside which there is room for the copy.
    """
    with closing(DamagedReader(path, known, interrupted)) as source:
        if source.has_tables():
            yield source
            return
    copy = fresh.with_name(fresh.name + _COPY)
    try:
        if _has_room(path.parent, path.stat().st_size):
            page = _first_page(path, copy)
            _copy_with_first_page(path, page, copy, interrupted)
        with closing(DamagedReader(copy if copy.exists() else path, known, interrupted)) as source:
            yield source
    finally:
        _remove(copy)


def _first_page(path: Path, scratch: Path) -> bytes:
    """Return the first page of a new database whose pages are as large as a damaged one's.

    Where the tables begin is the same in all that were made so: it is there that trees are to be
    found in the damaged one.

    :param scratch: the name for a database that is made and removed.
    """
    found: dict[int, bytes] = {}
    with path.open("rb") as damaged:
        for size in schema.PAGE_SIZE, schema.OLD_PAGE_SIZE:
            with closing(sqlite3.connect(scratch)) as new:
                schema.lay_out(new, size)
                schema.create(new, "")
                roots = new.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 1")
                places = [(root - 1) * size for (root,) in roots]
            new_one = scratch.read_bytes()
            _remove(scratch)
            trees = 0
            for place in places:
                damaged.seek(place)
                # Bit 3 says that a page is a leaf: the root of a tree that has grown is none.
                trees += damaged.read(1) in {
                    new_one[place : place + 1],
                    bytes([new_one[place] & 7]),
                }
            found.setdefault(trees, new_one[:size])
    return found[max(found)]


def _copy_with_first_page(
    path: Path, first_page: bytes, copy: Path, interrupted: Callable[[], bool]
) -> None:
    """Copy a database, giving it another one's first page.

    The header's fields: https://sqlite.org/fileformat2.html#the_database_header
    """
    size = len(first_page)
    page = bytearray(first_page)
    pages = path.stat().st_size // size
    page[18:20] = b"\2\2"  # There may be a write-ahead log.
    page[28:32] = pages.to_bytes(4, "big")
    page[32:40] = bytes(8)  # No free pages: it is only read.
    page[92:96] = page[24:28]  # The number of pages is valid.
    _copy(path, copy, interrupted)
    log = path.with_name(path.name + "-wal")
    if log.exists():
        _copy(log, copy.with_name(copy.name + "-wal"), interrupted)
    with copy.open("r+b") as other:
        other.write(page)


def _copy(source: Path, target: Path, interrupted: Callable[[], bool]) -> None:
    with source.open("rb") as one, target.open("wb") as other:
        while block := one.read(BLOCK):
            if interrupted():
                raise StepInterruptedError
            other.write(block)


def _copy_rows(source: DamagedReader, target: sqlite3.Connection) -> str | None:
    """Insert the rows of the source, in transactions of bounded size.

    :return: why it ended early, if it did.
    """
    folder = Path(target.execute("PRAGMA database_list").fetchone()[2]).parent
    series = source.series()
    whole = {}
    with target:
        target.executemany(
            "INSERT OR IGNORE INTO series (id, name, device_id, tags, value_type)"
            " VALUES (?, ?, ?, ?, ?)",
            [(number, *identity) for number, identity in series.items()],
        )
        for table, columns in AUX_TABLES.items():
            rows, whole[table] = source.aux_table(table)
            places = ", ".join("?" for _ in columns.split(","))
            target.executemany(
                f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})",  # noqa: S608 - constants
                rows,
            )
        if (number := source.last_settlement()) is not None:
            target.execute(
                "INSERT INTO upload_checkpoints"
                " (id, batch_id, chunk_index, last_uploaded_timestamp, upload_time, metrics_count)"
                " VALUES (?, 'replaced', 0, 0, 0, 0)",
                (number,),
            )
    sessions = {row[0] for row in target.execute("SELECT number FROM sessions")}
    eras = {row[0] for row in target.execute("SELECT number FROM clock_eras")}
    real = {number for number, identity in series.items() if identity[3] == REAL}
    samples = source.pending(real, sessions if whole["sessions"] else None)
    while batch := list(islice(samples, BATCH_SIZE)):
        if not _has_room(folder):
            return "the disk is nearly full"
        lost = {row[4]: row[0] for row in batch if row[4] not in sessions}
        sessions |= lost.keys()
        with target:
            target.executemany(
                "INSERT INTO sessions (number, id, start_time, end_time, status)"
                " VALUES (?, 'lost-' || ?, ?, ?, 'failed')",
                [(number, number, first, first) for number, first in lost.items()],
            )
            target.executemany(
                "INSERT OR IGNORE INTO samples"
                " (timestamp_ms, series_id, value, priority, session_number, era)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(*row[:5], row[5] if row[5] in eras else None) for row in batch],
            )
    return None


def _has_room(folder: Path, size: int = 0) -> bool:
    """Return whether the disk has room for so many bytes and for further collection."""
    disk = os.statvfs(folder)
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return free - size > min(MIN_FREE, total // 8)
