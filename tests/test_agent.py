"""The agent's start and stop, where a part of it fails."""

import tempfile
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from belatwist.agent import LOCK_EVERY, Agent
from belatwist.runtime.lockfile import ProcessLock
from belatwist.runtime.sd_notify import Notifier
from tests.log_events import Captured


class Store:
    """The part of a store that the agent uses.

    :ivar said: what was done with it.
    """

    path = Path("metrics.db")
    pending = 0
    opening: str | None = None

    @property
    def database(self) -> "Store":
        return self

    def __init__(self, said: list[str]) -> None:
        self.said = said

    async def open(self, session_id: str, now_ms: int) -> None:
        self.said.append("open")

    async def close(self, now_ms: int) -> bool:
        self.said.append("close")
        return True

    def ping(self) -> "Deferred[None]":
        return succeed(None)

    def progress(self) -> float | None:
        return None

    def interrupt(self) -> None:
        self.said.append("interrupt")


class Part(Service):
    """A service that says when it starts and stops."""

    def __init__(self, name: str, said: list[str], *, fails: str = "") -> None:
        self.setName(name)
        self._said = said
        self._fails = fails

    def startService(self) -> None:
        super().startService()
        self._said.append(f"start {self.name}")
        if self._fails == "start":
            raise RuntimeError("can't start new thread")

    def stopService(self) -> None:
        super().stopService()
        self._said.append(f"stop {self.name}")
        if self._fails == "stop":
            raise RuntimeError("cannot stop")


class AgentTests(SynchronousTestCase):
    """The order of starting and stopping; and no process is left idle."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.lock = ProcessLock(Path(folder.name) / "lock")
        self.said: list[str] = []
        self.failures: list[str] = []
        self.clock = Clock()

    def agent(self, *parts: Part) -> Agent:
        """Make an agent of these parts."""
        store: Any = Store(self.said)
        return Agent(
            session_id="run",
            lock=self.lock,
            store=store,
            listeners=[],
            services=parts,
            notifier=Notifier(None, watchdog=None, seconds=self.clock.seconds),
            reactor=self.clock,
            wall_ms=lambda: 0,
            failed=self.failures.append,
        )

    def test_order(self) -> None:
        """Parts start once the database is open, stop one by one, and then it is closed."""
        agent = self.agent(Part("a", self.said), Part("b", self.said))
        agent.startService()
        self.assertTrue(self.lock.held())
        self.assertEqual(self.said, ["open", "start a", "start b"])
        del self.said[:]
        self.successResultOf(agent.stopService())
        self.assertEqual(self.said, ["interrupt", "stop a", "stop b", "close"])
        self.assertFalse(self.lock.held())
        self.assertEqual(self.failures, [])

    def test_a_part_that_cannot_start(self) -> None:
        """The agent gives up, in words; what runs is stopped in order, and the database closed."""
        parts = (
            Part("a", self.said),
            Part("b", self.said, fails="start"),
            Part("c", self.said),
        )
        agent = self.agent(*parts)
        agent.startService()
        self.assertEqual(len(self.failures), 1)
        self.assertEqual(self.failures, ["unexpected RuntimeError, see the log"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.successResultOf(agent.stopService())
        self.assertEqual(self.said[-3:], ["stop a", "stop b", "close"])
        self.assertFalse(self.lock.held())

    def test_a_lock_that_is_lost(self) -> None:
        """The log says so, once."""
        agent = self.agent()
        agent.startService()
        with Captured() as log:
            self.clock.advance(LOCK_EVERY)
            self.lock.path.unlink()
            self.clock.pump([LOCK_EVERY] * 3)
        self.assertEqual(len(log.texts(LogLevel.warn)), 1)
        self.assertIn(f"{self.lock.path} was removed", log.texts(LogLevel.warn)[0])
        self.successResultOf(agent.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_part_that_cannot_stop(self) -> None:
        """The others are stopped all the same, and the database closed."""
        agent = self.agent(Part("a", self.said, fails="stop"), Part("b", self.said))
        agent.startService()
        self.successResultOf(agent.stopService())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.said[-3:], ["stop a", "stop b", "close"])
