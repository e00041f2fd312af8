"""Finds out whether a database is damaged."""

import sqlite3
import time

from belatwist.errors import BelaError
from belatwist.store.salvage.reader import AUX_TABLES


class DamagedError(BelaError):
    """The database is damaged, though SQLite has not said so by itself."""


def is_damage(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, shows that the database is damaged."""
    while error is not None:
        code = getattr(error, "sqlite_errorcode", None) or 0
        if isinstance(error, DamagedError) or code & 0xFF in {
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        }:
            return True
        error = error.__cause__
    return False


def check_empty(connection: sqlite3.Connection) -> None:
    """Look at a database without tables: is it a new one, or one whose first page was lost?

    :raises DamagedError: when it has pages that belong to nothing.
    """
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if pages - free > 2:  # The header's, and with auto_vacuum a map of pages.
        raise DamagedError(f"there are no tables, but {pages} pages")


def check(connection: sqlite3.Connection) -> float | None:
    """Look whether a database of the present version is whole.

    All of it is read only when the last session did not end in order.

    :return: how many seconds that has taken; ``None`` when it was not done.
    :raises DamagedError: when it is not.
    """
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    missing = {"series", "samples", "idx_uploaded", "metrics", "upload_checkpoints", *AUX_TABLES}
    if missing := missing - names:
        raise DamagedError(f"it lacks {', '.join(sorted(missing))}")
    if connection.execute("SELECT 1 FROM sessions WHERE status = 'active'").fetchone() is None:
        return None
    began = time.monotonic()
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DamagedError(" ".join(str(found).split()))
    return time.monotonic() - began
