"""The load averages.

Source: ``/proc/loadavg`` (Documentation/filesystems/proc.rst; fs/proc/loadavg.c).
"""

import re
from typing import NamedTuple

from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.errors import ParseError
from belatwist.model import Sample, sample
from belatwist.procfs import text

METRICS = (
    Metric("system.load_1m", GAUGE, "tasks", "Load average of 1 minute."),
    Metric("system.load_5m", GAUGE, "tasks", "Load average of 5 minutes."),
    Metric("system.load_15m", GAUGE, "tasks", "Load average of 15 minutes."),
)
"""In the order of :class:`LoadAverage`."""

MOST_TASKS = 4 * 1024 * 1024
"""The kernel never has more tasks (``PID_MAX_LIMIT``, include/linux/threads.h)."""

# What follows the averages, runnable/existing tasks and the newest process id, is not used.
_LOAD = rb"([0-9]{1,20}(?:\.[0-9]{1,9})?)"
_FILE = re.compile(rb" ".join([_LOAD] * 3) + rb"(?: [^\n]{0,64})?\n")


class LoadAverage(NamedTuple):
    """The number of runnable and uninterruptible tasks, averaged over 1, 5 and 15 minutes."""

    one: float
    five: float
    fifteen: float


def parse(content: bytes) -> LoadAverage:
    """Parse ``/proc/loadavg``.

    :raises ParseError: when it does not begin with three averages, or with some that cannot be.
    """
    match = _FILE.fullmatch(content)
    averages = tuple(map(float, match.groups())) if match else ()
    if not averages or max(averages) > MOST_TASKS:
        raise ParseError("/proc/loadavg", f"'{text.quote(content)}' is not three averages")
    return LoadAverage._make(averages)


class SystemLoad:
    """``system.load_1m``, ``system.load_5m`` and ``system.load_15m``.

    :param machine: the machine to measure.
    """

    def __init__(self, machine: Machine) -> None:
        self._procfs = machine.procfs
        self._series = [machine.series(metric) for metric in METRICS]

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/loadavg``.

        :raises BelaError: when it cannot be read.
        """
        averages = parse(self._procfs.read("loadavg"))
        return [
            sample(series, now_ms, average)
            for series, average in zip(self._series, averages, strict=True)
        ]


SOURCE = Source("system.load", 30.0, lambda machine, _: SystemLoad(machine), METRICS)
