"""The real store, for tests: in a folder of its own, inline or with its thread."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from belatwist.metrics.telemetry import Telemetry
from belatwist.store.database import Database
from belatwist.store.sqlite import SQLiteStore
from tests.fakes import inline_store
from tests.store.databases import reading

Sessions = dict[str, tuple[str, int | None]]


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the database as another program would."""
    with reading(path) as connection:
        return connection.execute(sql).fetchall()


def sessions(path: Path) -> Sessions:
    """Status and end of each session."""
    rows = query(path, "SELECT id, status, end_time FROM sessions")
    return {row[0]: (row[1], row[2]) for row in rows}


def counted(telemetry: Telemetry, name: str) -> float:
    """Read a metric of the agent's own, by its uploaded name."""
    return telemetry.registry.get_sample_value(name) or 0.0


def threaded(path: Path, telemetry: Telemetry | None = None) -> SQLiteStore:
    """Make a store as the agent does: on the reactor, with a thread."""
    database = Database(path, reactor, synchronous="full", cache_mb=8, mmap_mb=0)
    return SQLiteStore(database, telemetry=telemetry or Telemetry())


class InFolder(SynchronousTestCase):
    """A folder of its own for each test, and stores that are closed after it."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "metrics.db"
        self._open: list[SQLiteStore] = []
        self.addCleanup(self._close_all)

    def opened(self, path: Path, session: str = "s1", now_ms: int = 1000) -> SQLiteStore:
        """Open a store; it must come up."""
        store = inline_store(path)
        self.successResultOf(Deferred.fromCoroutine(store.open(session, now_ms)))
        self._open.append(store)
        return store

    def _close_all(self) -> None:
        for store in self._open[:]:
            self.close(store)

    def close(self, store: SQLiteStore, now_ms: int = 2000) -> None:
        """Close a store; those that are still open after the test are closed then."""
        if store in self._open:
            self._open.remove(store)
        self.successResultOf(Deferred.fromCoroutine(store.close(now_ms)))
