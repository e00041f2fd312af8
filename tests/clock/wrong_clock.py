"""A device whose clock may be wrong, on simulated time: its timekeeper, store and server."""

import tempfile
from email.utils import formatdate
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from belatwist.clock.sources import Clocks
from belatwist.clock.timekeeper import Timekeeper
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Series, sample
from belatwist.store.buffer import WriteBuffer
from tests.fakes import inline_store

TRUE_MS = 1_800_000_000_000
LIMIT_MS = 2000


class WrongClockCase(SynchronousTestCase):
    """A test with a timekeeper, which compares its clock with a server's.

    :ivar wrong_ms: by how much the device's clock is wrong.
    :ivar kernel: whether the kernel keeps it synchronised.
    :ivar server: the server's next answers; ``None`` when it has the true time.
    :ivar asked: how often the server was asked.
    """

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.reactor = Clock()
        self.reactor.advance(5000)
        self.wrong_ms = 0
        self.kernel: bool | None = False
        self.server: Deferred[str | None] | None = None
        self.address = "192.0.2.7:8428"
        self.boot = "boot-1"
        self.asked = 0
        self.start()

    def tearDown(self) -> None:
        self.stop()

    def start(self, url: str = "http://server/health") -> None:
        """Start as the agent does, on the database of an earlier run."""
        self.store = inline_store(self.folder / "metrics.db")
        self.successResultOf(Deferred.fromCoroutine(self.store.open(str(id(self.store)), 0)))
        self.telemetry = Telemetry()
        self.buffer = WriteBuffer(
            self.store, seconds=self.reactor.seconds, telemetry=self.telemetry
        )
        self.keeper = Timekeeper(
            self.buffer,
            Clocks(
                self.wall,
                lambda: round(self.reactor.seconds() * 1000),
                lambda: self.kernel,
                lambda: self.boot,
            ),
            reactor=self.reactor,
            date_of=self.date_of,
            url=url,
            ingest_url="http://server/api/v1/import",
            limit_ms=LIMIT_MS,
            interval=300.0,
            hold=600.0,
            telemetry=self.telemetry,
        )

    def run_keeper(self) -> None:
        """Start the service."""
        self.keeper.startService()

    def stop(self) -> None:
        """Stop as the agent does."""
        self.keeper.stopService()
        self.successResultOf(Deferred.fromCoroutine(self.store.close(0)))

    def wall(self) -> int:
        """The device's clock: the true time, and by how much it is wrong."""
        return TRUE_MS + round(self.reactor.seconds() * 1000) + self.wrong_ms

    async def date_of(self, _url: str) -> tuple[str | None, str]:
        self.asked += 1
        if self.server is None:
            date = formatdate((self.wall() - self.wrong_ms) // 1000, usegmt=True)
            return date, self.address
        return await self.server, self.address

    def collect(self) -> int:
        """Store a sample, stamped now; return the true time."""
        self.reactor.advance(10)
        series = Series.of("a", "device")
        self.successResultOf(self.buffer.add([sample(series, self.keeper.now_ms(), 1.0)]))
        return self.wall() - self.wrong_ms

    def stamps(self) -> list[int]:
        """Return the times of the pending samples."""
        return [row[0] for row in self.successResultOf(self.store.fetch(1000, 2**60)).rows]

    def hold_reason(self) -> str | None:
        """Return why samples should not be sent."""
        return self.successResultOf(Deferred.fromCoroutine(self.keeper.hold_reason()))
