"""The usage of each core since the last reading.

Source: ``/proc/stat``, the time that each core spent in each state
(Documentation/filesystems/proc.rst).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.collectors.skipped import SkippedLines
from belatwist.errors import ParseError
from belatwist.log.events import Event
from belatwist.log.throttle import ItemFailureLog
from belatwist.model import Sample, Series, sample
from belatwist.procfs import text

COUNTERS_FELL = Event(
    "cpu.counters_fell", LogLevel.info, "Counters of core {core} went backwards: {columns}"
)
COUNTERS_RISE = Event(
    "cpu.counters_rise", LogLevel.debug, "Counters of core {core} went forwards again"
)

USAGE = Metric(
    "cpu.usage_percent",
    GAUGE,
    "percent",
    "Part of the time since the last reading in which a core, or all of them, was busy.",
    tags=("core",),
)

# A column has at most 13 digits: 3,000 years. Sums that fell below nothing are near 2^64, and would
# count as one busy interval. Two more columns, guest and guest_nice, are already contained in user
# and nice.
_CORE = re.compile(
    (rb"cpu(0|[1-9][0-9]{0,8})" + rb" +([0-9]{1,13})" * 8 + rb"(?: +N)*").replace(b"N", text.DIGITS)
)


class CoreTimes(NamedTuple):
    """The time of one core in each state since boot, in ticks of 1/USER_HZ (10 ms)."""

    user: int
    nice: int
    system: int
    idle: int
    iowait: int
    irq: int
    softirq: int
    steal: int


@dataclass(frozen=True, slots=True)
class Stat:
    """The cores that are online.

    :ivar cores: the number in a core's name (``"0"``) to its times. The kernel's aggregate line is
        not among them: it also sums cores that are offline.
    :ivar skipped: quotations of the lines that could not be used.
    """

    cores: Mapping[str, CoreTimes]
    skipped: tuple[str, ...] = ()


def parse(content: bytes) -> Stat:
    """Parse ``/proc/stat``.

    A core listed twice counts as first listed.

    :raises ParseError: when no core can be read.
    """
    complete, unusable = text.lines(content)
    # A space follows the name of the aggregate line; the other lines hold no table.
    listed = [line for line in complete if line.startswith(b"cpu") and line[3:4] != b" "]
    cores = text.table(_CORE, listed, CoreTimes._make, unusable)
    if not cores:
        raise ParseError("/proc/stat", f"no line of a core in '{text.quote(content)}'")
    return Stat(cores, text.quote_lines(unusable))


class CpuUsage:
    """``cpu.usage_percent`` of each core and of all cores together.

    The first reading yields no samples. Nor does a core that the last reading did not have: the
    collector identifies cores by name, and a core that comes back starts anew.

    :param machine: the machine to measure.
    """

    _log = Logger()

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._procfs = machine.procfs
        self._last: Mapping[str, CoreTimes] = {}
        self._series: dict[str, Series] = {}
        self._skipped = SkippedLines("/proc/stat", self._log, machine.seconds)
        self._falls = ItemFailureLog(self._log, machine.seconds, "core")

    def collect(self, now_ms: int) -> list[Sample]:
        """Compare ``/proc/stat`` with the last reading.

        :raises BelaError: when it cannot be read; the next delta then spans the lost interval.
        """
        reading = parse(self._procfs.read("stat"))
        self._skipped.report(reading.skipped)
        last, self._last = self._last, reading.cores
        samples: list[Sample] = []
        all_busy = all_total = 0
        for core, times in reading.cores.items():
            before = last.get(core)
            if before is None:
                continue
            self._compare(core, before, times)
            busy, total = delta(before, times)
            if total > 0:
                samples.append(self._usage(core, busy, total, now_ms))
                all_busy += busy
                all_total += total
        if len(self._series) > len(reading.cores) + 1:
            # A core that is offline for long leaves memory.
            self._series = {one: s for one, s in self._series.items() if one in reading.cores}
        if all_total > 0:
            samples.append(self._usage("all", all_busy, all_total, now_ms))
        return samples

    def _compare(self, core: str, before: CoreTimes, after: CoreTimes) -> None:
        """Log which counters of a core fell, as those of idle time may (by the documentation)."""
        fell = [name for name, b, a in zip(after._fields, before, after, strict=True) if a < b]
        if fell:
            columns = ", ".join(fell)
            self._falls.failed(core, COUNTERS_FELL, columns, columns=columns)
        else:
            self._falls.recovered(core, COUNTERS_RISE)

    def _usage(self, core: str, busy: int, total: int, now_ms: int) -> Sample:
        series = self._series.get(core)
        if series is None:
            series = self._machine.series(USAGE, core=core)
            self._series[core] = series
        # The kernel counts hundredths of a second: further digits would only make bodies longer.
        return sample(series, now_ms, round(100 * busy / total, 2))


def delta(before: CoreTimes, after: CoreTimes) -> tuple[int, int]:
    """Compute the time of a core between two readings.

    Waiting for I/O is idle time: the core is free for other work. A single column that went
    backwards, which the kernel documents for idle and iowait, counts as unchanged. So busy is
    never negative and never more than the total.

    :return: busy ticks and all ticks; 0 and 0 when the total went backwards.
    """
    if sum(after) < sum(before):
        return 0, 0
    spent = CoreTimes._make(max(b - a, 0) for a, b in zip(before, after, strict=True))
    total = sum(spent)
    return total - spent.idle - spent.iowait, total


SOURCE = Source("cpu.usage", 10.0, lambda machine, _: CpuUsage(machine), (USAGE,))
