"""The store on SQLite: one connection, one thread, through adbapi."""

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.enterprise.adbapi import ConnectionPool, Transaction
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from belatwist.errors import BelaError, StartError
from belatwist.model import Sample, Series
from belatwist.store import (
    Batch,
    Position,
    Row,
    Verdict,
    eras,
    migrate,
    queries,
    salvage,
    schema,
    wal,
)
from belatwist.store.retention import Deleted, delete_pending, delete_series

T = TypeVar("T")

_PROGRESS_EVERY = 3.0
"""Seconds between two lines about a long migration."""

_SALVAGE_EVERY = 600.0
"""Seconds that must lie between two replacements of a damaged database in a run."""


class SQLiteStore:
    """A :class:`~belatwist.store.SampleStore` in a file.

    :param path: the database; it is made, with its folder, where it is missing.
    :param reactor: where the pool lives.
    :param synchronous: ``full`` or ``normal``.
    :param cache_mb: the page cache's limit.
    :param mmap_mb: how much of the file may be mapped.
    :param busy_timeout_ms: how long to wait for a lock that another program holds.
    :ivar salvaged: what became of a damaged database in this run; ``None`` when there was none.
    :ivar wal_bytes: the write-ahead log's size, as of the last write or checkpoint.
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
        self.wal_bytes = 0
        self.salvaged: salvage.Salvaged | None = None
        self._reactor = reactor
        self._interrupted = False
        self._ids: dict[Series, int] = {}
        self._series: dict[int, Series] = {}
        self._new_ids: dict[Series, int] = {}
        self._session = 0
        self._running: salvage.Session | None = None
        self._salvaging = False
        self._salvaged_at: float | None = None
        self._era: int | None = None
        self._used: set[int] = set()
        self._busy_timeout_ms = busy_timeout_ms
        self._written: Callable[[int], object] | None = None

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
        """Open the database, make or migrate its schema, and begin the session.

        :param session_id: a UUID.
        :param now_ms: Unix time in milliseconds.
        :raises StartError: when this file cannot serve; the text says why and names it.
        """
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            salvage.adopt(self.path)
            try:
                crashed = await self._open(session_id, now_ms)
            except (sqlite3.Error, BelaError) as error:
                if not salvage.is_damage(error):
                    raise
                self._running = None
                await self._replace(error)
                crashed = await self._open(session_id, now_ms)
        except (OSError, sqlite3.Error, BelaError) as error:
            raise StartError(f"database {self.path}: {error}") from error
        for one in crashed:
            self.log.warn("session {session_id} did not end: it is marked failed", session_id=one)

    async def _open(self, session_id: str, now_ms: int) -> list[str]:
        if await self._pool.runWithConnection(_make_schema) < schema.VERSION:
            await self._migrate(now_ms)
        if self._interrupted:
            return []
        seconds = await self._pool.runWithConnection(salvage.check)
        if seconds is not None:
            say = self.log.info if seconds > 1 else self.log.debug
            say("the database was looked through in {seconds:.1f} s", seconds=seconds)
        beginning = self._pool.runInteraction(self._begin, session_id, now_ms)
        return await cast("Deferred[list[str]]", beginning)

    def interrupt(self) -> None:
        """End :meth:`open` early if it is migrating; the next one goes on from there."""
        self._interrupted = True

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Store samples in one transaction; see :class:`~belatwist.store.SampleStore`."""

        def committed(result: tuple[int, dict[Series, int]]) -> int:
            # Only now: ids from a transaction that was rolled back would point nowhere.
            new, ids = result
            self._ids.update(ids)
            self._series.update((number, series) for series, number in ids.items())
            self.pending += new
            return new

        return self._write(self._insert, samples).addCallback(committed)

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

        return self._write(queries.settle, verdicts, now_ms).addCallback(committed)

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is known to be good; see :mod:`.eras`.

        :param offset_ms: the wall clock's offset from the boot clock.
        :return: whether it is. If not, what is stored from now on may be moved later.
        """

        def committed(result: tuple[bool, int]) -> bool:
            self.pending -= result[1]
            return result[0]

        return self._in_era(self._enter_era, boot_id, offset_ms).addCallback(committed)

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[tuple[int, int]]":
        """Take note that the clock was stepped: pending samples of an open era move with it.

        :param offset_ms: the wall clock's offset after the step.
        :return: how many samples were moved, and how many of them dropped as duplicates.
        """

        def committed(result: tuple[int, int]) -> tuple[int, int]:
            self.pending -= result[1]
            return result

        return self._in_era(self._step_clock, boot_id, offset_ms, step_ms).addCallback(committed)

    def trust_clock(self) -> "Deferred[None]":
        """Take note that the clock is known to be good: what is stored stays where it is."""
        return self._in_era(self._trust_clock)

    def watch(self, written: Callable[[int], object] | None) -> None:
        """Have something called after each write, with the size of the write-ahead log in bytes.

        The size is that before the write's own commit; the next write's call knows it.
        """
        self._written = written

    def checkpoint(self) -> "Deferred[wal.Checkpoint]":
        """Write the write-ahead log back into the database, and empty it if nobody reads it."""

        def done(result: wal.Checkpoint) -> wal.Checkpoint:
            self.wal_bytes = result.new_size
            return result

        running = self._pool.runWithConnection(
            wal.checkpoint, self.path, self._busy_timeout_ms
        ).addCallback(done)
        return cast("Deferred[wal.Checkpoint]", running)

    def maintain(self, function: "Callable[..., T]", *args: object) -> "Deferred[T]":
        """Run one of the functions of :mod:`.retention` in a transaction of its own.

        Those that touch what this store remembers have methods here.
        """
        return self._run(function, *args)

    def delete_pending(self) -> "Deferred[Deleted]":
        """Delete the oldest pending samples of the lowest priority; see :mod:`.retention`."""

        def committed(deleted: Deleted) -> Deleted:
            self.pending -= deleted.count
            return deleted

        return self._run(delete_pending).addCallback(committed)

    def delete_series(self, used: Set[int]) -> "Deferred[int]":
        """Delete unused series when there are very many; those used in this run stay.

        :param used: series that have samples.
        """
        # Looked at in the database's thread: whatever was stored before this has its ids there.
        return self._run(lambda cursor: delete_series(cursor, used | self._used))

    def vacuum(self, pages: int) -> "Deferred[None]":
        """Give free pages back to the file system, a few at a time; the next checkpoint does it."""
        return cast("Deferred[None]", self._pool.runWithConnection(_vacuum, pages))

    async def close(self, now_ms: int) -> bool:
        """End the session and close the database, after everything that was begun.

        SQLite writes the log back into the file when the last connection closes.

        :return: whether a session was ended.
        """
        try:
            if self._session:
                await self._run(queries.end_session, self._session, now_ms)
        except sqlite3.Error as error:
            self.log.error("the session cannot be ended: {error}", error=str(error))
            return False
        else:
            return bool(self._session)
        finally:
            self._pool.close()

    async def _migrate(self, now_ms: int) -> None:
        """Bring an earlier version's database up to date, one short transaction after the other."""
        migration = migrate.Migration(now_ms)
        began, told = self._reactor.seconds(), -_PROGRESS_EVERY
        while await self._pool.runWithConnection(migration.step):
            if self._interrupted:
                self.log.info("the migration goes on at the next start")
                return
            passed = self._reactor.seconds() - began
            if passed - told >= _PROGRESS_EVERY:
                told = passed
                self.log.info(
                    "migrating the database from version {version}: {moved:,} of {total:,} rows",
                    version=migration.version,
                    moved=migration.moved,
                    total=migration.total,
                )
        result = migration.result
        self.log.info(
            "migrated the database from version {version} to {to}: {total:,} rows,"
            " {duplicates:,} of them duplicates, in {seconds:.1f} s",
            version=migration.version,
            to=schema.VERSION,
            total=migration.total,
            duplicates=result.duplicates,
            seconds=self._reactor.seconds() - began,
        )
        if result.leftovers:
            self.log.warn(
                "{count:,} rows cannot be samples and are kept in the table migration_leftovers:"
                " {reasons}",
                count=sum(result.leftovers.values()),
                reasons="; ".join(f"{n:,} because {why}" for why, n in result.leftovers.items()),
            )
        if result.unshrunk:
            self.log.warn(
                "the database's file is not made smaller, its free pages are used again: {why}",
                why=result.unshrunk,
            )

    def _run(self, function: "Callable[..., T]", *args: object) -> "Deferred[T]":
        running = self._pool.runInteraction(_closing, function, *args)
        return cast("Deferred[T]", running.addErrback(self._failed))

    def _failed(self, failure: Failure) -> Failure:
        """Look at a failure: one that tells of damage has the database replaced, not too often."""
        damage = failure.value
        if damage is None or not salvage.is_damage(damage):
            return failure
        if self._running is None or self._salvaging:
            return failure
        now = self._reactor.seconds()
        if self._salvaged_at is None or now - self._salvaged_at >= _SALVAGE_EVERY:
            self._salvaged_at = now
            self._salvaging = True
            Deferred.fromCoroutine(self._replace_running(damage))
        return failure

    async def _replace_running(self, damage: BaseException) -> None:
        """Replace the database of the running session. What comes meanwhile fails, or waits."""
        try:
            await self._replace(damage)
        except Exception as error:  # noqa: BLE001 - the agent goes on, and tries again later
            self.log.error("the damaged database cannot be replaced: {error}", error=str(error))
        finally:
            self._salvaging = False

    async def _replace(self, damage: BaseException) -> None:
        self.log.error(
            "the database {path} is damaged: {error}; it is replaced by a new one",
            path=str(self.path),
            error=str(damage),
        )
        done = await deferToThreadPool(
            self._reactor, self._pool.threadpool, self._replace_in_thread
        )
        self.salvaged = done
        self.pending = done.carried
        self.log.warn(
            "a new database is begun; {carried} pending samples were carried over, of {listed};"
            " the damaged one is kept as {aside}",
            carried=done.carried,
            listed="an unknown number" if done.listed is None else done.listed,
            aside=str(done.aside),
        )
        if done.stopped is not None:
            self.log.error(
                "not everything was read of the damaged database: {error}", error=done.stopped
            )

    def _replace_in_thread(self) -> salvage.Salvaged:
        """Everything that was queued before has been done, and all that follows comes to the new
        database, which knows what is remembered here by the same numbers.
        """
        connection = self._pool.connections.get(self._pool.threadID())
        if connection is not None:
            self._pool.disconnect(connection)
        known = {**self._series, **{number: one for one, number in self._new_ids.items()}}
        done = salvage.replace(self.path, datetime.now(UTC), known, self._running)
        self._ids, self._series = {}, {}
        return done

    def _write(self, function: "Callable[..., T]", *args: object) -> "Deferred[T]":
        def noting(cursor: Transaction) -> T:
            result = function(cursor, *args)
            self.wal_bytes = wal.size(self.path)
            return result

        def written(result: T) -> T:
            if self._written is not None:
                self._written(self.wal_bytes)
            return result

        return self._run(noting).addCallback(written)

    def _begin(self, cursor: Transaction, session_id: str, now_ms: int) -> list[str]:
        metadata = json.dumps({"pid": os.getpid()})
        self._session, crashed = queries.begin_session(cursor, session_id, now_ms, metadata)
        self._running = salvage.Session(self._session, session_id, now_ms)
        self.pending = queries.count_pending(cursor)
        return crashed

    def _insert(
        self, cursor: Transaction, samples: Sequence[Sample]
    ) -> tuple[int, dict[Series, int]]:
        result = queries.insert(cursor, samples, self._ids, self._session, self._era)
        self._used.update(result[1].values())
        self._new_ids = result[1]
        return result

    # The era is read and set on the database's thread alone: what was handed in before a step is
    # stored before it, and moves with it.

    def _in_era(
        self, function: "Callable[..., tuple[int | None, T]]", *args: object
    ) -> "Deferred[T]":
        """Run a function that says which era it is from then on, once that is committed."""

        def work(connection: Any) -> T:
            cursor = connection.cursor()
            try:
                era, result = function(cursor, *args)
                connection.commit()
            finally:
                cursor.close()
            self._era = era
            return result

        running = self._pool.runWithConnection(work)
        return cast("Deferred[T]", running.addErrback(self._failed))

    def _enter_era(
        self, cursor: queries.Cursor, boot_id: str, offset_ms: int
    ) -> tuple[int | None, tuple[bool, int]]:
        era, stepped = eras.enter(cursor, boot_id, offset_ms)
        lost = eras.move(cursor, era, stepped)[1] if era is not None and stepped else 0
        return era, (era is None, lost)

    def _step_clock(
        self, cursor: queries.Cursor, boot_id: str, offset_ms: int, step_ms: int
    ) -> tuple[int | None, tuple[int, int]]:
        if self._era is not None:
            return self._era, eras.move(cursor, self._era, step_ms)
        return eras.begin(cursor, boot_id, offset_ms), (0, 0)

    def _trust_clock(self, cursor: queries.Cursor) -> tuple[None, None]:
        if self._era is not None:
            eras.close(cursor, self._era)
        return None, None

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


def _closing(cursor: Transaction, function: "Callable[..., T]", *args: object) -> T:
    """Run a function, and close its cursor if it fails.

    The failure's traceback would keep the cursor, until the garbage is collected, perhaps on the
    reactor's thread; that one would then wait for the connection, busy as it may be for seconds.
    """
    try:
        return function(cursor, *args)
    except BaseException:
        cursor.close()
        raise


def _vacuum(connection: Any, pages: int) -> None:
    # execute() would free a single page: it gives up after the first row, which has no columns.
    connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def _make_schema(connection: Any) -> int:
    """Create the schema where there is none, and return its version; runs in the pool's thread."""
    found = schema.version(connection)
    if found == 0:
        salvage.check_empty(connection)
        schema.create(connection, datetime.now(UTC).isoformat(timespec="seconds"))
    return found or schema.VERSION


def _check_version(connection: sqlite3.Connection) -> None:
    """Refuse a database that this version cannot use, without writing to it."""
    found = schema.version(connection)
    if 0 < found < schema.VERSION:
        migrate.check(connection)
    if found > schema.VERSION:
        raise StartError(
            f"has schema version {found}, from a newer program; this one knows {schema.VERSION}:"
            " install that program again, or set storage.path to a new file"
        )
