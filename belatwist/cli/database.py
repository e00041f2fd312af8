"""Reads the agent's database while the agent may run. Nothing is written, and nothing has to wait.

Each reading opens the file, reads one page of rows and closes the file. So no transaction lasts,
which would keep the agent from emptying the write-ahead log. After the agent has replaced the
database, the next reading takes the new one.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from belatwist.cli.output import reason
from belatwist.errors import BelaError, StartError
from belatwist.model import Series
from belatwist.store import MIN_KEY, Key
from belatwist.store.sql import queries, schema

PAGE = 10_000
"""Rows of one reading, which takes about 20 ms and a few MB."""

MAX_KEY: Key = (1 << 62, 0)
"""No sample stands behind this."""

SAMPLES = "samples"
TEXTS = "texts"

BUSY_SECONDS = 5.0
"""Maximum time to wait for a lock of another program."""

# Left joins, so that SQLite finds the rows in the order of their keys.
_PAGE = """
SELECT x.timestamp_ms, x.series_id, x.value, r.id, {state}
FROM {table} x LEFT JOIN sessions r ON r.number = x.session_number {settlement}
WHERE (x.timestamp_ms, x.series_id) > (?, ?) AND (x.timestamp_ms, x.series_id) < (?, ?)
ORDER BY x.timestamp_ms {order}, x.series_id {order} LIMIT ?
"""
_STATE = """
CASE WHEN x.checkpoint_id IS NULL THEN 'pending' WHEN c.outcome = 2 THEN 'rejected'
ELSE 'uploaded' END
"""
_SETTLEMENT = "LEFT JOIN upload_checkpoints c ON c.id = x.checkpoint_id"
_PARTS = {SAMPLES: (_STATE, _SETTLEMENT), TEXTS: ("'local'", "")}


_NO_LOG = (
    "its write-ahead log cannot be used here: use the service's user, or sudo; or copy the"
    " database and the file that ends in -wal to a folder in which you may write"
)
_LOCKED = "another program has locked it: try again"
_STRANGE = (
    "belongs to another program, or is damaged ({}): name the agent's database (storage.path, or"
    " --database FILE). If this is it, move it away: the service creates a new one when it starts"
)
_MEANINGS = {
    sqlite3.SQLITE_CANTOPEN: _NO_LOG,
    sqlite3.SQLITE_READONLY: _NO_LOG,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_NOTADB: (
        "is not a database: name the agent's (storage.path, or --database FILE)"
    ),
    sqlite3.SQLITE_CORRUPT: "is damaged: the service repairs it when it starts",
}
"""What SQLite's result codes (https://www.sqlite.org/rescode.html) mean here."""


class DatabaseError(BelaError):
    """The database cannot be read. The text names it, gives the reason, and what to do."""


class SampleRow(NamedTuple):
    """One sample.

    :ivar session: the UUID of the agent's run that stored it; ``None`` when it is no longer known.
    :ivar state: ``pending``, ``uploaded`` or ``rejected``; ``local`` for a text, which the agent
        never sends.
    """

    timestamp_ms: int
    series_id: int
    value: float | str
    session: str | None
    state: str

    @property
    def key(self) -> Key:
        """The sample's key."""
        return self.timestamp_ms, self.series_id


class RowPage(NamedTuple):
    """Some rows, and their series by number."""

    rows: list[SampleRow]
    series: Mapping[int, Series]


class DatabaseReader:
    """Reads a database of the agent's.

    :param path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = f"database {path}"

    def page(
        self,
        table: str,
        after: Key = MIN_KEY,
        before: Key = MAX_KEY,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> RowPage:
        """Read samples by their key.

        :param table: :data:`SAMPLES` or :data:`TEXTS`.
        :param after: the key that all rows come after.
        :param before: the key that all rows come before.
        :param newest: read the newest rows, newest first.
        :param limit: maximum number of rows; :data:`PAGE` by default.
        :raises DatabaseError: when the database cannot be read.
        """
        state, settlement = _PARTS[table]
        order = "DESC" if newest else "ASC"
        sql = _PAGE.format(table=table, state=state, settlement=settlement, order=order)
        try:
            with closing(self._open()) as connection:
                self._check_version(connection)
                connection.execute("BEGIN")  # One state for the rows and their series.
                cursor = connection.cursor()
                rows = list(
                    map(SampleRow._make, cursor.execute(sql, (*after, *before, limit or PAGE)))
                )
                series = queries.series_of(cursor, {row.series_id for row in rows})
        except (OSError, sqlite3.Error, StartError) as error:
            raise DatabaseError(self._explain(error)) from error
        except (TypeError, ValueError) as error:  # A series that is missing, or whose tags are not.
            raise DatabaseError(f"{self._name}: is damaged: {error}") from error
        return RowPage(rows, series)

    def pages(self, table: str, after: Key = MIN_KEY, before: Key = MAX_KEY) -> Iterator[RowPage]:
        """Read all pages between two keys, in order.

        :raises DatabaseError: when the database cannot be read.
        """
        while True:
            page = self.page(table, after, before)
            if page.rows:
                yield page
            if len(page.rows) < PAGE:
                return
            after = page.rows[-1].key

    def _open(self) -> sqlite3.Connection:
        # SQLite would only say "unable to open". The file itself is not opened here, because
        # closing it would release every lock that this process holds on it (fcntl(2)).
        if not stat.S_ISREG(self._path.stat().st_mode):
            raise StartError("is not a regular file")
        if not os.access(self._path, os.R_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # Without a log no program has the database open. SQLite would create an empty log, which
        # must not happen in another user's folder, and cannot on a medium mounted read-only.
        alone = not os.path.lexists(f"{self._path}-wal")
        uri = f"file:{quote(str(self._path.absolute()))}?mode=ro{'&immutable=1' if alone else ''}"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        connection.text_factory = lambda raw: raw.decode("utf-8", "backslashreplace")
        return connection

    def _check_version(self, connection: sqlite3.Connection) -> None:
        found = schema.version(connection)
        if found == schema.VERSION:
            return
        if found == 0:
            raise StartError("has no tables yet: start the service once")
        if found < schema.VERSION:
            raise StartError(
                f"has the older schema version {found}, this program reads {schema.VERSION}:"
                " start the service once, which migrates it"
            )
        raise StartError(
            f"has schema version {found}, from a newer program; this one reads {schema.VERSION}"
        )

    def _explain(self, error: Exception) -> str:
        why = f"{error}"
        if isinstance(error, FileNotFoundError):
            why = "no such file: is storage.path right, and has the service run? --database FILE"
            why += " names another"
        elif isinstance(error, PermissionError):
            why = f"{reason(error)}: use the service's user, or sudo"
        elif isinstance(error, OSError):
            why = reason(error)
        else:
            cause = error.__cause__ if isinstance(error, StartError) else error
            code = getattr(cause, "sqlite_errorcode", None) or 0
            if (
                code & 0xFF == sqlite3.SQLITE_ERROR
            ):  # A table or column of our statements is missing.
                return f"{self._name}: {_STRANGE.format(cause)}"
            why = _MEANINGS.get(code & 0xFF, why)
        return f"{self._name}: {why}"
