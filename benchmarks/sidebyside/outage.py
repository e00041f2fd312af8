"""What each tool does when its server is away for long, and when it is back.

The server's counters move once a second. So how much had landed when is told from the answers that
passed, by the bytes that had passed until then.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from belatwist.clock.sources import wall_ms
from benchmarks.harness import FailedError, Memory
from benchmarks.sidebyside.gate import gate
from benchmarks.sidebyside.landed import landed, rows
from benchmarks.sidebyside.steady import Watcher
from benchmarks.sidebyside.tools import Case, Running, Way, running

PATIENCE = 90.0
"""Seconds that a tool has for coming back; vmagent waits a minute at the most."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a drain is.

    :ivar seconds: since the server was back.
    :ivar samples: that have landed since then.
    """

    seconds: float
    samples: float


@dataclass(frozen=True, slots=True)
class Outage:
    """What was seen of one tool.

    :ivar ticks: how many collections fall in the outage.
    :ivar backlog: samples of the outage that have landed in the end.
    :ivar begins: seconds from the server's return to the first request.
    :ivar drains: seconds from then until as many samples as the backlog has had landed.
    :ivar mostly: the same for 95 % of them: the last may be in what a tool flushes by the clock.
    :ivar wire: bytes a sample, from the server's return on.
    :ivar written: bytes that its processes caused to be written during the outage.
    :ivar before: memory before it.
    :ivar full: memory at its end.
    :ivar most: the most memory after it.
    :ivar moments: the drain, for the plot.
    """

    case: Case
    ticks: float
    backlog: int
    begins: float
    drains: float
    mostly: float
    wire: float
    written: int
    before: Memory
    full: Memory
    most: Memory
    moments: list[Moment] = field(repr=False)

    @property
    def rate(self) -> float:
        """Samples a second, until 95 % have landed."""
        return 0.95 * self.backlog / self.mostly


def endure(watcher: Watcher, case: Case, *, seconds: float, flush: float | None) -> Outage:
    """Take a tool's server away for a while, with ticks so fast that the while holds many of them.

    The server must have no other work meanwhile: its own counters say when all has come.

    :param seconds: how long the server is away.
    :param flush: seconds between uploads; ``None`` for each tool's own default.
    """
    device = watcher.device()
    server = watcher.server
    with (
        gate(server.port) as way,
        running(case, watcher.where / device, Way(way.port, device, flush), watcher.board) as tool,
    ):

        def first() -> bool:
            tool.check()
            return way.began is not None and landed(server, device).series > 0

        watcher.until(first, seconds=60, what=f"{case.tool}'s first upload")
        before, written = tool.memory(), tool.written()
        way.close()
        gone_ms = wall_ms()
        watcher.pause(seconds)
        full, written = tool.memory(), tool.written() - written
        tool.check()
        there, taken, passed = landed(server, device), rows(server), way.bytes
        way.open()
        back, back_ms = time.monotonic(), wall_ms()
        ticks = (back_ms - gone_ms) / 1000 / case.interval
        wanted = taken + round(there.series * ticks)
        most = _drain(watcher, tool, lambda: rows(server) >= wanted)
        backlog = 0
        # What is fresh may have come before the last of the backlog.
        while backlog < (
            backlog := landed(server, device, since_ms=gone_ms, until_ms=back_ms).samples
        ):
            watcher.pause(1.0)
        came, wire = landed(server, device).samples - there.samples, way.bytes - passed
        began, answers = way.began, way.answers
    if began is None or not backlog:
        raise FailedError(f"nothing of {case.tool}'s outage has landed")
    moments = [Moment(at - back, came * (size - passed) / wire) for at, size in answers]

    def until(samples: float) -> float:
        """Return after how many seconds, from the first request on, so many had landed."""
        at = next((one.seconds for one in moments if one.samples >= samples), moments[-1].seconds)
        return at - (began - back)

    return Outage(
        case=case,
        ticks=ticks,
        backlog=backlog,
        begins=began - back,
        drains=until(backlog),
        mostly=until(0.95 * backlog),
        wire=wire / came,
        written=written,
        before=before,
        full=full,
        most=most,
        moments=moments,
    )


def _drain(watcher: Watcher, tool: Running, done: Callable[[], bool]) -> Memory:
    """Wait until as much has landed as a backlog should have; return the most memory meanwhile."""
    most = tool.memory()

    def look() -> bool:
        nonlocal most
        tool.check()
        most = max(most, tool.memory(), key=lambda one: one.pss)
        return done()

    watcher.until(look, seconds=PATIENCE, what=f"the last sample of {tool.where.name}'s outage")
    return most
