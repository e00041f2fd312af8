"""The agent as a service: the order in which its parts start and stop."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel

from belatwist import __version__
from belatwist.clock.sources import WallClock
from belatwist.errors import BelaError
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.runtime.listener import Listener
from belatwist.runtime.lockfile import ProcessLock
from belatwist.runtime.sd_notify import Notifier
from belatwist.runtime.watchdog import ResponsivenessCheck
from belatwist.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

EXTENSION = 30.0
"""Seconds of each extension that systemd is asked for while the database opens or closes."""

LOCK_EVERY = 60.0
"""Seconds between two checks of the lock file."""

LOCK_ACQUIRED = Event(
    "agent.lock_acquired", LogLevel.info, "Lock acquired: process {pid} holds {lock}"
)
LOCK_LOST = Event(
    "agent.lock_lost",
    LogLevel.warn,
    "Lock {lock} was removed or replaced: a second instance could start",
    cure="Restart the service: it creates the lock file again.",
)
LOCK_RECOVERED = Event("agent.lock_recovered", LogLevel.info, "Lock {lock} is held again")
STARTED = Event(
    "agent.started",
    LogLevel.info,
    "Agent {version} started: session {session_id}, database {path}, {pending} samples pending",
)
START_FAILED = Event(
    "agent.start_failed",
    LogLevel.error,
    "Agent cannot start: {error}",
    cure="This is a fault of the program: report it with the traceback.",
)
STOP_FAILED = Event(
    "agent.stop_failed",
    LogLevel.error,
    "Part {part} did not stop cleanly: {error}",
    cure="This is a fault of the program: report it with the traceback.",
)
STOPPED = Event("agent.stopped", LogLevel.info, "Agent stopped, session {session}")


class Agent(MultiService):
    """The whole agent. Its services start once the database is open, and stop before it closes.

    A plain ``MultiService`` stops all of its children at once; here each waits for the one before.

    :param session_id: a UUID for this run.
    :param lock: the agent holds it as long as it runs.
    :param listeners: ports to open before the database, which may take minutes to open.
    :param services: parts that use the store, in the order of starting and of stopping.
    :param notifier: reports to systemd that the agent is ready, and that it stops.
    :param failed: called with the reason, one line, when the agent cannot start.
    """

    log = Logger()

    def __init__(
        self,
        *,
        session_id: str,
        lock: ProcessLock,
        store: SQLiteStore,
        listeners: Sequence[Listener],
        services: Sequence[Service],
        notifier: Notifier,
        reactor: "IReactorTime",
        wall_ms: WallClock,
        failed: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._session_id = session_id
        self._lock = lock
        self._store = store
        self._listeners = listeners
        self._services = services
        self._notifier = notifier
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._failed = failed
        self._starting: Deferred[None] | None = None
        self._lock_failures = FailureLog(self.log, reactor.seconds)
        self._lock_watch = LoopingCall(self._check_lock)
        self._lock_watch.clock = reactor
        for service in (*listeners, *services):
            service.setServiceParent(self)

    def startService(self) -> None:
        """Begin to start; a start that fails calls ``failed``."""
        Service.startService(self)
        self._starting = Deferred.fromCoroutine(self._start())

    def stopService(self) -> "Deferred[None]":
        """Stop everything, in order; fires when the database is closed."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        try:
            self._lock.acquire()
            LOCK_ACQUIRED.emit(self.log, pid=os.getpid(), lock=str(self._lock.path))
            for listener in self._listeners:
                listener.open()
                listener.startService()
            with self._extending():
                await self._store.open(self._session_id, self._wall_ms())
            if self.running:
                self._start_services()
        except BelaError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a start that fails in any way must end in an exit, not in an idle process
            START_FAILED.failure(self.log, error=str(error))
            self._failed(f"unexpected {type(error).__name__}, see the log")

    def _start_services(self) -> None:
        STARTED.emit(
            self.log,
            version=__version__,
            session_id=self._session_id,
            path=str(self._store.database.path),
            pending=self._store.pending,
        )
        for service in self._services:
            service.startService()
        self._lock_watch.start(LOCK_EVERY, now=False)
        self._notifier.ready()

    def _check_lock(self) -> None:
        lock = str(self._lock.path)
        if self._lock.held():
            self._lock_failures.recovered(LOCK_RECOVERED, lock=lock)
        else:
            self._lock_failures.failed(LOCK_LOST, lock=lock)

    @contextmanager
    def _extending(self) -> Iterator[None]:
        """Ask systemd for more time while the database is opened or closed."""
        database = self._store.database
        database_check = ResponsivenessCheck(
            database.ping, reactor=self._reactor, limit=EXTENSION, progress=database.progress
        )

        def extend() -> None:
            if database.opening is not None:
                self._notifier.status(f"the database {database.opening}")
            if database_check() is None:
                self._notifier.extend(EXTENSION)

        extending = LoopingCall(extend)
        extending.clock = self._reactor
        if self._notifier.enabled:
            extending.start(EXTENSION / 3)
        try:
            yield
        finally:
            if extending.running:
                extending.stop()

    async def _stop(self) -> None:
        self._notifier.stopping()
        if self._lock_watch.running:
            self._lock_watch.stop()
        with self._extending():
            if self._starting is not None:
                self._store.database.interrupt()
                await self._starting
            for service in self.services:
                if service.running:
                    try:
                        await maybeDeferred(service.stopService)
                    except Exception as error:  # noqa: BLE001 - the database must be closed whatever a part does
                        STOP_FAILED.failure(self.log, part=service.name, error=str(error))
            await self._close()

    async def _close(self) -> None:
        try:
            completed = await self._store.close(self._wall_ms())
        finally:
            self._lock.release()
        STOPPED.emit(self.log, session="completed" if completed else "not completed")
