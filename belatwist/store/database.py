"""The database's one connection and one thread, through adbapi."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from belatwist.store import pool
from belatwist.store.sql import queries, wal
from belatwist.store.sql.interrupt import StepMonitor

T = TypeVar("T")


class Database:
    """Runs functions of a connection or a cursor, one at a time, in the database's thread.

    Its attributes can be read at any time, also while the thread is busy.

    :param path: the database's file.
    :param reactor: where the pool lives; its ``seconds`` must be monotonic.
    :param synchronous: ``full`` or ``normal``.
    :param cache_mb: the page cache's limit.
    :param mmap_mb: how much of the file may be mapped.
    :param busy_timeout_ms: how long to wait for a lock that another program holds.
    :ivar opening: in words, why the database cannot be used yet; ``None`` when it is open.
    :ivar monitor: the long steps of the thread.
    :ivar seconds: the reactor's clock.
    :ivar writes: how many transactions wrote. Between two of them the rows do not change.
    :ivar database_bytes: size of the file, as of the last change.
    :ivar wal_bytes: size of the write-ahead log, as of the last change.
    :ivar oldest_ms: time of the oldest sample, as of the last change; ``None`` when there is none.
    """

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
        self.opening: str | None = "is being opened"
        self.monitor = StepMonitor(reactor.seconds)
        self.seconds: Callable[[], float] = reactor.seconds
        self.writes = 0
        self.database_bytes = 0
        self.wal_bytes = 0
        self.oldest_ms: int | None = None
        self._reactor = reactor
        self._busy_timeout_ms = busy_timeout_ms
        self._failed: Callable[[BaseException], object] | None = None
        self._written: Callable[[int], object] | None = None
        self._pool = pool.make(
            path,
            reactor,
            self.monitor,
            synchronous=synchronous,
            cache_mb=cache_mb,
            mmap_mb=mmap_mb,
            busy_timeout_ms=busy_timeout_ms,
        )

    def watch_failures(self, failed: Callable[[BaseException], object]) -> None:
        """Have a function called with the error of each call that fails."""
        self._failed = failed

    def watch_writes(self, written: Callable[[int], object] | None) -> None:
        """Have a function called after each write, with the write-ahead log's size in bytes."""
        self._written = written

    def transact(self, function: "Callable[..., T]", *args: object) -> "Deferred[T]":
        """Run a function of a cursor, such as those of :mod:`.retention`, in its own transaction.

        For functions that change the memory of the store, the store has methods.
        """
        return self.run(lambda connection: self.commit(connection, function, *args))

    def run(self, work: "Callable[[Any], T]") -> "Deferred[T]":
        """Run a function of a connection."""
        running = self._pool.runWithConnection(work)
        return cast("Deferred[T]", running.addErrback(self._note_failure))

    def write(self, work: "Callable[[Any], T]", done: "Callable[[T], object]") -> "Deferred[T]":
        """Run a function of a connection that writes samples.

        :param done: called with the result, before the Deferred fires.
        """

        def written(result: T) -> T:
            done(result)
            if self._written is not None:
                self._written(self.wal_bytes)
            return result

        return self.run(work).addCallback(written)

    def run_step(self, function: "Callable[[Any], T]") -> "Deferred[T]":
        """Run a function of a connection that may take minutes, and can be run again if it is
        interrupted.
        """

        def work(connection: Any) -> T:
            with self.monitor.step(connection.interrupt):
                return function(connection)

        return cast("Deferred[T]", self._pool.runWithConnection(work))

    def run_disconnected(self, function: "Callable[[], T]") -> "Deferred[T]":
        """Run a function while the connection is closed: it may replace the file.

        All that was queued before is done by then, and all that follows finds the new file.

        :param function: may take minutes, and looks for itself whether it is interrupted.
        """

        def work() -> T:
            connection = self._pool.connections.get(self._pool.threadID())
            if connection is not None:
                self._pool.disconnect(connection)
            with self.monitor.step(lambda: None):
                self.writes += 1
                return function()

        return deferToThreadPool(self._reactor, self._pool.threadpool, work)

    def checkpoint(self) -> "Deferred[wal.Checkpoint]":
        """Write the write-ahead log back, and empty it unless a reader needs it."""

        def work(connection: Any) -> wal.Checkpoint:
            with self.monitor.step():
                result = wal.checkpoint(connection, self.path, self._busy_timeout_ms)
            self.measure()
            return result

        return cast("Deferred[wal.Checkpoint]", self._pool.runWithConnection(work))

    def vacuum(self, pages: int) -> "Deferred[None]":
        """Give free pages back to the file system, a few at a time; the next checkpoint does it."""
        return cast("Deferred[None]", self._pool.runWithConnection(pool.vacuum, pages))

    def ping(self) -> "Deferred[None]":
        """Fire when the thread answers; never, once the database is closed."""
        return deferToThreadPool(self._reactor, self._pool.threadpool, lambda: None)

    def progress(self) -> float | None:
        """Return when the thread last made progress in a step that may take minutes.

        A migration is such a step. Meanwhile a :meth:`ping` is not answered.

        :return: seconds on the reactor's clock; ``None`` between two such steps.
        """
        return self.monitor.last_progress()

    def interrupt(self) -> None:
        """Interrupt the work that a later start can resume, because the agent stops.

        This work is the opening, and the replacement of a damaged database. Samples are stored as
        before.
        """
        self.monitor.interrupt()

    def close(self) -> None:
        """Close the connection, after everything that was begun.

        SQLite writes the log back into the file when the last connection closes.
        """
        self._pool.close()

    def commit(self, connection: Any, function: "Callable[..., T]", *args: object) -> T:
        """Run a function of a cursor, and commit; called in the thread.

        The code after such a call may rely on it that nothing will be rolled back.
        """
        cursor = connection.cursor()
        wrote = True
        try:
            result = function(cursor, *args)
            oldest = queries.oldest(cursor)
            wrote = connection.in_transaction
            connection.commit()
        finally:
            self.writes += wrote
            # A failure's traceback would keep it, until the garbage is collected, perhaps on the
            # reactor's thread; that one would then wait for the connection, busy for seconds.
            cursor.close()
        self.oldest_ms = oldest
        self.measure()
        return result

    def measure(self) -> None:
        """Read the sizes of the file and of its log."""
        self.database_bytes, self.wal_bytes = wal.sizes(self.path)

    def _note_failure(self, failure: Failure) -> Failure:
        if self._failed is not None and failure.value is not None:
            self._failed(failure.value)
        return failure
