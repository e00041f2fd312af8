"""How each tool behaves in a long outage of its server, and after its return.

The server's counters move only once a second. So the benchmark derives the progress of a drain from
the answers that passed the gate, and from the bytes until then.
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

RETURN_TIMEOUT = 90.0
"""Seconds within which a tool must return; vmagent waits for a minute at most."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The progress of a drain at one moment.

    :ivar seconds: seconds since the server's return.
    :ivar samples: samples that have landed since then.
    """

    seconds: float
    samples: float


@dataclass(frozen=True, slots=True)
class Outage:
    """The figures of one tool.

    :ivar ticks: the number of collections in the outage.
    :ivar backlog: samples of the outage that landed in the end.
    :ivar begins: seconds from the server's return to the first request.
    :ivar drains: seconds from then until as many samples had landed as the backlog has.
    :ivar mostly: the same for 95 % of them, because a tool may flush the last ones by a timer.
    :ivar wire: bytes a sample, from the server's return on.
    :ivar written: bytes that its processes wrote to storage during the outage.
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
        """Samples a second until 95 % have landed."""
        return 0.95 * self.backlog / self.mostly


def endure(watcher: Watcher, case: Case, *, seconds: float, flush: float | None) -> Outage:
    """Stop a tool's server for a short time that holds many ticks, because ticks are fast.

    The server must have no other work meanwhile, because its own counters show when all samples
    have arrived.

    :param seconds: the length of the outage.
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
        """Return the seconds from the first request until a number of samples had landed."""
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
    """Wait until the whole backlog should have landed, and return the most memory meanwhile."""
    most = tool.memory()

    def look() -> bool:
        nonlocal most
        tool.check()
        most = max(most, tool.memory(), key=lambda one: one.pss)
        return done()

    watcher.until(
        look, seconds=RETURN_TIMEOUT, what=f"the last sample of {tool.where.name}'s outage"
    )
    return most
