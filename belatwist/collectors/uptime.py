"""The time since boot.

Source: ``/proc/uptime`` (Documentation/filesystems/proc.rst; fs/proc/uptime.c).
"""

import re

from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.errors import ParseError
from belatwist.model import Sample, sample
from belatwist.procfs import text

UPTIME = Metric("system.uptime_seconds", GAUGE, "seconds", "Time since boot.")

# The second number is the idle time summed over all cores.
_FILE = re.compile(rb"([0-9]{1,20}\.[0-9]{2}) [0-9]{1,20}\.[0-9]{2}\n")


def parse(content: bytes) -> float:
    """Parse ``/proc/uptime``.

    :return: seconds since boot, suspended time included.
    :raises ParseError: when it is not exactly the documented line.
    """
    match = _FILE.fullmatch(content)
    if match is None:
        raise ParseError("/proc/uptime", f"'{text.quote(content)}' is not an uptime")
    return float(match[1])


class SystemUptime:
    """``system.uptime_seconds``.

    :param machine: the machine to measure.
    """

    def __init__(self, machine: Machine) -> None:
        self._procfs = machine.procfs
        self._series = machine.series(UPTIME)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/uptime``.

        :raises BelaError: when it cannot be read.
        """
        return [sample(self._series, now_ms, parse(self._procfs.read("uptime")))]


SOURCE = Source("system.uptime", 60.0, lambda machine, _: SystemUptime(machine), (UPTIME,))
