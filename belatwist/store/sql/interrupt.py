"""Watches the database's thread while it is at a step that may take minutes."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from belatwist.errors import BelaError


class StepInterruptedError(BelaError):
    """A step was interrupted, because the agent stops; it can be run again."""


class StepMonitor:
    """Watches the progress of a long step, and interrupts it when the agent stops.

    SQLite calls a progress handler from most statements. It does not while it checks a tree
    (``quick_check``), drops one, copies a file (the end of ``VACUUM``) or writes back its log.
    Progress is therefore use of the processor: a thread that waits for a disk or a lock makes none.

    :param seconds: a monotonic clock.
    :ivar stopping: whether the agent is to stop.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.stopping = False
        self._seconds = seconds
        self._lock = threading.Lock()
        self._interrupt: Callable[[], object] | None = None
        self._clock: int | None = None
        self._used = self._last = 0.0

    @contextmanager
    def step(self, interrupt: Callable[[], object] | None = None) -> Iterator[None]:
        """Take a step; called by the thread that does so.

        :param interrupt: makes it fail with ``SQLITE_INTERRUPT``, from any thread; without it the
            step is not left.
        :raises StepInterruptedError: when it was left, or not even begun.
        """
        with self._lock:
            if interrupt is not None and self.stopping:
                raise StepInterruptedError
            self._interrupt = interrupt
            self._used, self._last = time.thread_time(), self._seconds()
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            yield
        except sqlite3.OperationalError as error:
            if self.stopping and error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise StepInterruptedError from error
            raise
        finally:
            with self._lock:
                self._interrupt = self._clock = None

    def interrupted(self) -> bool:
        """Return whether the present step is to end.

        As a progress handler it makes sure of that also where :meth:`interrupt` came between two
        statements: SQLite then forgets that it was interrupted.
        """
        return self.stopping and self._interrupt is not None

    def interrupt(self) -> None:
        """Have the present step left, if it can be, and all later ones."""
        # The lock protects the statement after the step from the interruption.
        with self._lock:
            self.stopping = True
            if self._interrupt is not None:
                self._interrupt()

    def last_progress(self) -> float | None:
        """Return when the present step was last seen to get on; ``None`` between two steps.

        Each call compares with the call before: rare calls notice progress late.
        """
        with self._lock:
            if self._clock is None:
                return None
            used = time.clock_gettime(self._clock)
            if used != self._used:
                self._used, self._last = used, self._seconds()
            return self._last
