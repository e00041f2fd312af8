"""The pool of one connection, and functions of a connection as such."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool

from belatwist.errors import StartError
from belatwist.store.migration import steps
from belatwist.store.salvage import damage
from belatwist.store.sql import schema
from belatwist.store.sql.interrupt import StepMonitor

INTERRUPT_CHECK_EVERY = 100_000
"""Instructions of SQLite's virtual machine between two looks at whether to go on: some 10 ms."""


def make(path: Path, reactor: Any, monitor: StepMonitor, **settings: Any) -> ConnectionPool:
    """Make a pool; nothing is opened yet.

    :param settings: those of :func:`.schema.configure`.
    """

    def prepare(connection: sqlite3.Connection) -> None:
        try:
            # First, because configure() writes: a refused database stays untouched.
            _check_version(connection)
            schema.configure(connection, **settings)
            connection.set_progress_handler(monitor.interrupted, INTERRUPT_CHECK_EVERY)
        except BaseException:
            connection.close()  # The pool does not know it yet.
            raise

    return ConnectionPool(
        "sqlite3",
        str(path),
        cp_reactor=reactor,
        cp_min=1,
        cp_max=1,
        cp_noisy=False,
        cp_openfun=prepare,
        # The pool closes its connection from the reactor's thread.
        check_same_thread=False,
    )


def make_schema(connection: Any) -> int:
    """Create the schema where there is none, and return its version."""
    found = schema.version(connection)
    if found == 0:
        damage.check_empty(connection)
        schema.create(connection, datetime.now(UTC).isoformat(timespec="seconds"))
    return found or schema.VERSION


def vacuum(connection: Any, pages: int) -> None:
    """Give free pages back to the file system."""
    # execute() would free a single page: it gives up after the first row, which has no columns.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def _check_version(connection: sqlite3.Connection) -> None:
    """Refuse a database that this version cannot use, without writing to it."""
    found = schema.version(connection)
    if 0 < found < schema.VERSION:
        steps.check(connection)
    if found > schema.VERSION:
        raise StartError(
            f"has schema version {found}, from a newer program; this one knows {schema.VERSION}:"
            " install that program again, or set storage.path to a new file"
        )
