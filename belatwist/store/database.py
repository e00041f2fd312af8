"""The database's one connection and one thread, through adbapi; and how it is opened.

Opening may mean to make it, to migrate it, to look it through after a crash, or to replace it when
it is damaged. The last may happen while it is open as well.
"""

import json
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from belatwist.errors import BelaError, StartError
from belatwist.model import Series
from belatwist.store import pool
from belatwist.store.migration.run import migrate_fully
from belatwist.store.salvage import replacement
from belatwist.store.sql import queries, schema, wal
from belatwist.store.sql.interrupt import StepInterruptedError, StepMonitor

T = TypeVar("T")

_SALVAGE_EVERY = 600.0
"""Seconds that must lie between two replacements of a damaged database in a run."""


class Database(ABC):
    """The connection, from opening to closing. What is in the tables is the subclass's matter.

    What it says of itself can be read at any time, also while its thread is busy.

    :param path: the database; it is made, with its folder, where it is missing.
    :param reactor: where the pool lives; its ``seconds`` must be monotonic.
    :param synchronous: ``full`` or ``normal``.
    :param cache_mb: the page cache's limit.
    :param mmap_mb: how much of the file may be mapped.
    :param busy_timeout_ms: how long to wait for a lock that another program holds.
    :ivar opening: in words, what it does before it can be used; ``None`` when it is open.
    :ivar salvaged: what became of a damaged database in this run; ``None`` when there was none.
    :ivar salvaged_at: when it was replaced, in seconds on the reactor's clock.
    :ivar database_bytes: size of the file, as of the last change.
    :ivar wal_bytes: size of the write-ahead log, as of the last change.
    :ivar oldest_ms: time of the oldest sample, as of the last change; ``None`` when there is none.
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
        busy_timeout_ms: int,
    ) -> None:
        self.path = path
        self.opening: str | None = "is being opened"
        self.salvaged: replacement.Salvaged | None = None
        self.salvaged_at: float | None = None
        self.database_bytes = 0
        self.wal_bytes = 0
        self.oldest_ms: int | None = None
        self._reactor = reactor
        self._monitor = StepMonitor(reactor.seconds)
        # Transactions that wrote: between two of them what is read stays as it is.
        self._writes = 0
        self._session = 0
        self._running: replacement.Session | None = None
        self._damaged = False
        self._salvaging = False
        self._salvage_tried: float | None = None
        self._busy_timeout_ms = busy_timeout_ms
        self._pool = pool.make(
            path,
            reactor,
            self._monitor,
            synchronous=synchronous,
            cache_mb=cache_mb,
            mmap_mb=mmap_mb,
            busy_timeout_ms=busy_timeout_ms,
        )

    async def open(self, session_id: str, now_ms: int) -> None:
        """Open the database, make or migrate its schema, and begin the session.

        :param session_id: a UUID.
        :param now_ms: Unix time in milliseconds.
        :raises StartError: when this file cannot serve; the text says why and names it.
        """
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            replacement.finish_replacement(self.path)
            if self.path.exists():
                self.database_bytes, self.wal_bytes = wal.sizes(self.path)
            try:
                crashed = await self._open(session_id, now_ms)
            except (sqlite3.Error, BelaError) as error:
                if not replacement.is_damage(error):
                    raise
                self._running = None
                await self._replace(error)
                crashed = await self._open(session_id, now_ms)
        except StepInterruptedError:
            self.log.info(
                "the start is ended while the database {opening}; the next one goes on",
                opening=self.opening,
            )
            return
        except (OSError, sqlite3.Error, BelaError) as error:
            raise StartError(f"database {self.path}: {error}") from error
        self.opening = None
        for one in crashed:
            self.log.warn("session {session_id} did not end: it is marked failed", session_id=one)

    async def _open(self, session_id: str, now_ms: int) -> list[str]:
        if await self._pool.runWithConnection(pool.make_schema) < schema.VERSION:
            await migrate_fully(self._step, self._say, now_ms, self._reactor.seconds)
        self.opening = "is being checked"
        seconds = await self._step(replacement.check)
        if seconds is not None:
            say = self.log.info if seconds > 1 else self.log.debug
            say("the database was looked through in {seconds:.1f} s", seconds=seconds)
        return await self.transact(self._begin, session_id, now_ms)

    def _say(self, opening: str) -> None:
        self.opening = opening

    def _begin(self, cursor: queries.Cursor, session_id: str, now_ms: int) -> list[str]:
        """Begin the session, in its first transaction.

        :return: the ids of sessions that had crashed.
        """
        metadata = json.dumps({"pid": os.getpid()})
        self._session, crashed = queries.begin_session(cursor, session_id, now_ms, metadata)
        self._running = replacement.Session(self._session, session_id, now_ms)
        return crashed

    async def close(self, now_ms: int) -> bool:
        """End the session and close the database, after everything that was begun.

        SQLite writes the log back into the file when the last connection closes. The session of a
        damaged database does not end: so the next start looks it through.

        :return: whether a session was ended.
        """
        ends = bool(self._session) and not self._damaged
        try:
            if ends:
                await self.transact(queries.end_session, self._session, now_ms)
        except sqlite3.Error as error:
            self.log.error("the session cannot be ended: {error}", error=str(error))
            return False
        else:
            return ends
        finally:
            self._pool.close()

    def interrupt(self) -> None:
        """Take note that the agent is to stop: whatever can be taken up again is left now.

        These are the parts of :meth:`open`, and the replacement of a damaged database. Samples are
        stored as before.
        """
        self._monitor.interrupt()

    def ping(self) -> "Deferred[None]":
        """Fires when the database's thread has come to it; never, once that is closed."""
        return deferToThreadPool(self._reactor, self._pool.threadpool, lambda: None)

    def progress(self) -> float | None:
        """Return when the thread was last seen to get on with something that may take minutes.

        A migration, for example. Meanwhile a :meth:`ping` is not answered.

        :return: seconds on the reactor's clock; ``None`` while it is at nothing of that kind.
        """
        return self._monitor.last_progress()

    def transact(self, function: "Callable[..., T]", *args: object) -> "Deferred[T]":
        """Run a function of a cursor, as those of :mod:`.retention`, in its own transaction.

        Those that touch what the store remembers have methods of their own.
        """
        return self._run(lambda connection: self._transact(connection, function, *args))

    def checkpoint(self) -> "Deferred[wal.Checkpoint]":
        """Write the write-ahead log back into the database, and empty it if nobody reads it."""

        def work(connection: Any) -> wal.Checkpoint:
            with self._monitor.step():
                result = wal.checkpoint(connection, self.path, self._busy_timeout_ms)
            self.database_bytes, self.wal_bytes = wal.sizes(self.path)
            return result

        return cast("Deferred[wal.Checkpoint]", self._pool.runWithConnection(work))

    def vacuum(self, pages: int) -> "Deferred[None]":
        """Give free pages back to the file system, a few at a time; the next checkpoint does it."""
        return cast("Deferred[None]", self._pool.runWithConnection(pool.vacuum, pages))

    def _step(self, function: "Callable[[Any], T]") -> "Deferred[T]":
        """Run a function of a connection that may take minutes, and can be run again if left."""

        def work(connection: Any) -> T:
            with self._monitor.step(connection.interrupt):
                return function(connection)

        return cast("Deferred[T]", self._pool.runWithConnection(work))

    def _run(self, work: "Callable[[Any], T]") -> "Deferred[T]":
        running = self._pool.runWithConnection(work)
        return cast("Deferred[T]", running.addErrback(self._failed))

    def _transact(self, connection: Any, function: "Callable[..., T]", *args: object) -> T:
        """Run a function of a cursor, and commit; called in the thread.

        What follows such a call may rely on that nothing of it will be rolled back.
        """
        cursor = connection.cursor()
        wrote = True
        try:
            result = function(cursor, *args)
            oldest = queries.oldest(cursor)
            wrote = connection.in_transaction
            connection.commit()
        finally:
            self._writes += wrote
            # A failure's traceback would keep it, until the garbage is collected, perhaps on the
            # reactor's thread; that one would then wait for the connection, busy for seconds.
            cursor.close()
        self.oldest_ms = oldest
        self.database_bytes, self.wal_bytes = wal.sizes(self.path)
        return result

    def _failed(self, failure: Failure) -> Failure:
        """Look at a failure: one that tells of damage has the database replaced, not too often."""
        damage = failure.value
        if damage is None or not replacement.is_damage(damage) or self._running is None:
            return failure
        self._damaged = True
        now = self._reactor.seconds()
        recent = self._salvage_tried is not None and now - self._salvage_tried < _SALVAGE_EVERY
        if not (self._salvaging or self._monitor.stopping or recent):
            self._salvage_tried = now
            self._salvaging = True
            Deferred.fromCoroutine(self._replace_running(damage))
        return failure

    async def _replace_running(self, damage: BaseException) -> None:
        """Replace the database of the running session. What comes meanwhile fails, or waits."""
        try:
            await self._replace(damage)
            await self.transact(lambda _: None)  # So that its size is known.
        except StepInterruptedError:
            self.log.info("the damaged database is not replaced now: the next start does that")
        except Exception as error:  # noqa: BLE001 - the agent goes on, and tries again later
            self.log.error("the damaged database cannot be replaced: {error}", error=str(error))
        finally:
            self._salvaging = False
            self.opening = None

    async def _replace(self, damage: BaseException) -> None:
        self.opening = "is being replaced, it was damaged"
        self.log.error(
            "the database {path} is damaged: {error}; it is replaced by a new one",
            path=str(self.path),
            error=str(damage),
        )
        done = await deferToThreadPool(
            self._reactor, self._pool.threadpool, self._replace_in_thread
        )
        self.salvaged = done
        self.salvaged_at = self._reactor.seconds()
        self._damaged = False
        self._replaced(done)
        self.log.warn(
            "a new database is begun; {carried} pending samples were carried over, of {listed};"
            " the damaged one is kept as {aside}",
            carried=done.recovered,
            listed="an unknown number" if done.indexed is None else done.indexed,
            aside=str(done.backup_path),
        )
        if done.stopped is not None:
            self.log.error(
                "not everything was read of the damaged database: {error}", error=done.stopped
            )

    def _replace_in_thread(self) -> replacement.Salvaged:
        """Everything that was queued before has been done, and all that follows comes to the new
        database, which knows what is remembered here by the same numbers.
        """
        connection = self._pool.connections.get(self._pool.threadID())
        if connection is not None:
            self._pool.disconnect(connection)
        # It looks for itself whether it is to be left.
        with self._monitor.step(lambda: None):
            self._writes += 1
            done = replacement.replace(
                self.path,
                datetime.now(UTC),
                self._known(),
                self._running,
                self._monitor.interrupted,
            )
        self._forget()
        return done

    @abstractmethod
    def _known(self) -> Mapping[int, Series]:
        """Return what is remembered of series, by their ids; called in the thread."""

    @abstractmethod
    def _forget(self) -> None:
        """Take note that this is another database from now on; called in the thread."""

    @abstractmethod
    def _replaced(self, done: replacement.Salvaged) -> None:
        """Take note of how many samples are pending in it, and how many were lost; called on the
        reactor.
        """
