"""The load averages.

Source: ``/proc/loadavg`` (Documentation/filesystems/proc.rst; fs/proc/loadavg.c).
"""

import re
from typing import NamedTuple

from belatwist.collectors.contract import Machine
from belatwist.errors import ParseError
from belatwist.model import Sample, Series, sample
from belatwist.procfs import text

# The averages, then runnable/existing tasks and the newest process id.
_LOAD = rb"([0-9]{1,20}\.[0-9]{2})"
_FILE = re.compile(rb" ".join([_LOAD] * 3) + rb" [0-9]{1,20}/[0-9]{1,20} [0-9]{1,20}\n")


class LoadAverage(NamedTuple):
    """The number of runnable and uninterruptible tasks, averaged over 1, 5 and 15 minutes."""

    one: float
    five: float
    fifteen: float


def parse(content: bytes) -> LoadAverage:
    """Parse ``/proc/loadavg``.

    :raises ParseError: when it is not exactly the documented line.
    """
    match = _FILE.fullmatch(content)
    if match is None:
        raise ParseError("/proc/loadavg", f"'{text.quote(content)}' is not three averages")
    return LoadAverage._make(map(float, match.groups()))


class SystemLoad:
    """``system.load_1m``, ``system.load_5m`` and ``system.load_15m``.

    :param machine: the machine to measure.
    """

    name = "system.load"

    def __init__(self, machine: Machine) -> None:
        self._procfs = machine.procfs
        self._series = [Series.of(f"system.load_{m}m", machine.device_id) for m in (1, 5, 15)]

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/loadavg``.

        :raises BelaError: when it cannot be read.
        """
        averages = parse(self._procfs.read("loadavg"))
        return [
            sample(series, now_ms, average)
            for series, average in zip(self._series, averages, strict=True)
        ]
