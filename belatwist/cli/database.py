"""The agent's database, for reading beside it: nothing is written, and nobody is held up.

Each reading opens the file, reads one page of rows and closes it again. So no transaction lasts,
which would keep the write-ahead log from being emptied; and a database that is replaced meanwhile
is followed.
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
"""Rows that are read at once: about 20 ms, and a few MB."""

MAX_KEY: Key = (1 << 62, 0)
"""No sample stands behind this."""

SAMPLES = "samples"
TEXTS = "texts"

BUSY_SECONDS = 5.0
"""How long to wait for a lock that another program holds."""

# The left joins leave it to the key's order how the rows are found.
_PAGE = """
SELECT x.timestamp_ms, x.series_id, x.value, r.id, {state}
FROM {table} x LEFT JOIN sessions r ON r.number = x.session_number {checkpoint}
WHERE (x.timestamp_ms, x.series_id) > (?, ?) AND (x.timestamp_ms, x.series_id) < (?, ?)
ORDER BY x.timestamp_ms {order}, x.series_id {order} LIMIT ?
"""
_STATE = """
CASE WHEN x.checkpoint_id IS NULL THEN 'pending' WHEN c.outcome = 2 THEN 'rejected'
ELSE 'uploaded' END
"""
_CHECKPOINT = "LEFT JOIN upload_checkpoints c ON c.id = x.checkpoint_id"
_PARTS = {SAMPLES: (_STATE, _CHECKPOINT), TEXTS: ("'local'", "")}


_NO_LOG = (
    "its write-ahead log cannot be used here: use the service's user, or sudo; or copy the"
    " database, together with the file whose name ends in -wal, to a folder that can be written to"
)
_LOCKED = "another program keeps it locked: try again"
_STRANGE = (
    "is another program's, or damaged ({}): name the right one (storage.path, or --database FILE);"
    " if this is it, move it away, and the service makes a new one when it starts"
)
_MEANINGS = {
    sqlite3.SQLITE_CANTOPEN: _NO_LOG,
    sqlite3.SQLITE_READONLY: _NO_LOG,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_NOTADB: "is not a database",
    sqlite3.SQLITE_CORRUPT: "is damaged: the service repairs it when it starts",
}
"""What SQLite's result codes (https://www.sqlite.org/rescode.html) mean here."""


class DatabaseError(BelaError):
    """The database cannot be read; the text names it, says why, and what to do."""


class Row(NamedTuple):
    """One sample.

    :ivar session: the UUID of the run that stored it; ``None`` where that is not known any more.
    :ivar state: ``pending``, ``uploaded`` or ``rejected``; ``local`` for a text, which stays here.
    """

    timestamp_ms: int
    series_id: int
    value: float | str
    session: str | None
    state: str

    @property
    def key(self) -> Key:
        """Where it stands."""
        return self.timestamp_ms, self.series_id


class Page(NamedTuple):
    """Some rows, and the series of each."""

    rows: list[Row]
    series: Mapping[int, Series]


class DatabaseReader:
    """A database of the agent's.

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
    ) -> Page:
        """Read samples by their key.

        :param table: :data:`SAMPLES` or :data:`TEXTS`.
        :param after: leave out what is not behind this.
        :param before: leave out what is not ahead of this.
        :param newest: begin at the end, and go back.
        :param limit: how many rows at most; a page if it is not given.
        :raises DatabaseError: when it cannot be read.
        """
        state, checkpoint = _PARTS[table]
        order = "DESC" if newest else "ASC"
        sql = _PAGE.format(table=table, state=state, checkpoint=checkpoint, order=order)
        try:
            with closing(self._open()) as connection:
                self._check_version(connection)
                connection.execute("BEGIN")  # The rows and their series belong together.
                cursor = connection.cursor()
                rows = list(map(Row._make, cursor.execute(sql, (*after, *before, limit or PAGE))))
                series = queries.series_of(cursor, {row.series_id for row in rows})
        except (OSError, sqlite3.Error, StartError) as error:
            raise DatabaseError(self._explain(error)) from error
        except (TypeError, ValueError) as error:  # A series that is missing, or whose tags are not.
            raise DatabaseError(f"{self._name}: is damaged: {error}") from error
        return Page(rows, series)

    def pages(self, table: str, after: Key = MIN_KEY, before: Key = MAX_KEY) -> Iterator[Page]:
        """Read all pages between two keys, in order.

        :raises DatabaseError: when it cannot be read.
        """
        while True:
            page = self.page(table, after, before)
            if page.rows:
                yield page
            if len(page.rows) < PAGE:
                return
            after = page.rows[-1].key

    def _open(self) -> sqlite3.Connection:
        # Says by itself what SQLite calls "unable to open". The file itself is not opened here:
        # closing it would give up every lock that this process holds on it (fcntl(2)).
        if not stat.S_ISREG(self._path.stat().st_mode):
            raise StartError("is not a regular file")
        if not os.access(self._path, os.R_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # Without a log nobody has the database open. SQLite would make an empty log for itself,
        # which is to be avoided where the folder is another user's, and impossible on a medium
        # that is mounted read-only.
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
            if code & 0xFF == sqlite3.SQLITE_ERROR:  # What our statements name is not there.
                return f"{self._name}: {_STRANGE.format(cause)}"
            why = _MEANINGS.get(code & 0xFF, why)
        return f"{self._name}: {why}"
