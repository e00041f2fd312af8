"""The store on SQLite: one connection, one thread, through adbapi."""

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.enterprise.adbapi import ConnectionPool, Transaction
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from belatwist.errors import StartError
from belatwist.model import Sample, Series
from belatwist.store import Batch, Position, Row, Verdict, eras, queries, schema

T = TypeVar("T")


class SQLiteStore:
    """A :class:`~belatwist.store.SampleStore` in a file.

    :param path: the database; it is made, with its folder, where it is missing.
    :param reactor: where the pool lives.
    :param synchronous: ``full`` or ``normal``.
    :param cache_mb: the page cache's limit.
    :param mmap_mb: how much of the file may be mapped.
    :param busy_timeout_ms: how long to wait for a lock that another program holds.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        reactor: Any,
        *,
        synchronous: str,
        cache_mb: int,
        mmap_mb: int,
        busy_timeout_ms: int = 5000,
    ) -> None:
        self.path = path
        self.pending = 0
        self._ids: dict[Series, int] = {}
        self._series: dict[int, Series] = {}
        self._session = 0
        self._era: int | None = None

        def prepare(connection: sqlite3.Connection) -> None:
            try:
                # First, because configure() writes: what is refused is left untouched.
                _check_version(connection)
                schema.configure(
                    connection,
                    synchronous=synchronous,
                    cache_mb=cache_mb,
                    mmap_mb=mmap_mb,
                    busy_timeout_ms=busy_timeout_ms,
                )
            except BaseException:
                connection.close()  # The pool does not know it yet.
                raise

        self._pool = ConnectionPool(
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

    async def open(self, session_id: str, now_ms: int) -> None:
        """Open the database, make or check its schema, and begin the session.

        :param session_id: a UUID.
        :param now_ms: Unix time in milliseconds.
        :raises StartError: when this file cannot serve; the text says why and names it.
        """
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            await self._pool.runWithConnection(_make_schema)
            crashed = await self._run(self._begin, session_id, now_ms)
        except (OSError, sqlite3.Error, StartError) as error:
            raise StartError(f"database {self.path}: {error}") from error
        for one in crashed:
            self.log.warn("session {session_id} did not end: it is marked failed", session_id=one)

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Store samples in one transaction; see :class:`~belatwist.store.SampleStore`."""

        def committed(result: tuple[int, dict[Series, int]]) -> int:
            # Only now: ids from a transaction that was rolled back would point nowhere.
            new, ids = result
            self._ids.update(ids)
            self._series.update((number, series) for series, number in ids.items())
            self.pending += new
            return new

        return self._run(self._insert, samples).addCallback(committed)

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples; see :class:`~belatwist.store.SampleStore`."""
        return self._run(self._fetch, limit, until_ms, after)

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples; see :class:`~belatwist.store.SampleStore`."""
        return self._run(self._fetch_newest, limit, until_ms)

    def settle(self, verdicts: Sequence[Verdict], now_ms: int) -> "Deferred[None]":
        """Record verdicts; see :class:`~belatwist.store.SampleStore`."""

        def committed(settled: int) -> None:
            self.pending -= settled

        return self._run(queries.settle, verdicts, now_ms).addCallback(committed)

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is known to be good; see :mod:`.eras`.

        :param offset_ms: the wall clock's offset from the boot clock.
        :return: whether it is. If not, what is stored from now on may be moved later.
        """
        return self._run(self._enter_era, boot_id, offset_ms)

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[tuple[int, int]]":
        """Take note that the clock was stepped: pending samples of an open era move with it.

        :param offset_ms: the wall clock's offset after the step.
        :return: how many samples were moved, and how many of them dropped as duplicates.
        """

        def committed(result: tuple[int, int]) -> tuple[int, int]:
            self.pending -= result[1]
            return result

        return self._run(self._step_clock, boot_id, offset_ms, step_ms).addCallback(committed)

    def trust_clock(self) -> "Deferred[None]":
        """Take note that the clock is known to be good: what is stored stays where it is."""
        return self._run(self._trust_clock)

    async def close(self, now_ms: int) -> None:
        """End the session and close the database, after everything that was begun.

        SQLite writes the log back into the file when the last connection closes.
        """
        try:
            if self._session:
                await self._run(queries.end_session, self._session, now_ms)
        finally:
            self._pool.close()

    def _run(self, function: "Callable[..., T]", *args: object) -> "Deferred[T]":
        return cast("Deferred[T]", self._pool.runInteraction(function, *args))

    def _begin(self, cursor: Transaction, session_id: str, now_ms: int) -> list[str]:
        metadata = json.dumps({"pid": os.getpid()})
        self._session, crashed = queries.begin_session(cursor, session_id, now_ms, metadata)
        self.pending = queries.count_pending(cursor)
        return crashed

    def _insert(
        self, cursor: Transaction, samples: Sequence[Sample]
    ) -> tuple[int, dict[Series, int]]:
        return queries.insert(cursor, samples, self._ids, self._session, self._era)

    # The era is read and set on the database's thread alone: what was handed in before a step is
    # stored before it, and moves with it.

    def _enter_era(self, cursor: Transaction, boot_id: str, offset_ms: int) -> bool:
        self._era, stepped = eras.enter(cursor, boot_id, offset_ms)
        if self._era is not None and stepped:
            _, lost = eras.move(cursor, self._era, stepped)
            self.pending -= lost
        return self._era is None

    def _step_clock(
        self, cursor: Transaction, boot_id: str, offset_ms: int, step_ms: int
    ) -> tuple[int, int]:
        if self._era is not None:
            return eras.move(cursor, self._era, step_ms)
        self._era = eras.begin(cursor, boot_id, offset_ms)
        return 0, 0

    def _trust_clock(self, cursor: Transaction) -> None:
        if self._era is not None:
            eras.close(cursor, self._era)
            self._era = None

    def _fetch(
        self, cursor: Transaction, limit: int, until_ms: int, after: Position | None
    ) -> Batch:
        rows = queries.fetch(cursor, limit, until_ms, after)
        last = queries.position(cursor, rows[-1]) if rows else None
        return Batch(rows, self._series_of(cursor, rows), last)

    def _fetch_newest(self, cursor: Transaction, limit: int, until_ms: int) -> Batch:
        rows = queries.fetch_newest(cursor, limit, until_ms)
        return Batch(rows, self._series_of(cursor, rows))

    def _series_of(self, cursor: Transaction, rows: Sequence[Row]) -> Mapping[int, Series]:
        missing = {row[1] for row in rows} - self._series.keys()
        if missing:
            self._series.update(queries.series_of(cursor, missing))
        return self._series


def _make_schema(connection: Any) -> None:
    """Create the schema where there is none; runs in the pool's thread."""
    if schema.version(connection) == 0:
        schema.create(connection, datetime.now(UTC).isoformat(timespec="seconds"))


def _check_version(connection: sqlite3.Connection) -> None:
    """Refuse a database that this version cannot use, without writing to it."""
    found = schema.version(connection)
    if 0 < found < schema.VERSION:
        raise StartError(
            f"has schema version {found}, from an earlier program, which this version does not"
            " read: move it aside, or set storage.path to a new file"
        )
    if found > schema.VERSION:
        raise StartError(
            f"has schema version {found}, from a newer program; this one knows {schema.VERSION}:"
            " install that program again, or set storage.path to a new file"
        )
