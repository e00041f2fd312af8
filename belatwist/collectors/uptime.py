"""The time since boot.

Source: ``/proc/uptime`` (Documentation/filesystems/proc.rst; fs/proc/uptime.c).
"""

import math
import re

from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.errors import ParseError
from belatwist.model import Sample, sample
from belatwist.procfs import text

UPTIME = Metric("system.uptime_seconds", GAUGE, "seconds", "Time since boot.")

LONGEST = 100 * 365 * 86400
"""Seconds; longer than any Linux can have run. A container's ``lxcfs`` may subtract the start of
the container from nothing, which gives 2^64 hundredths of a second (lxc/lxcfs, issue 732)."""

# The second number, which is the idle time summed over all cores, is not used. Old releases of
# lxcfs write whole seconds or tenths (lxc/lxcfs, pull request 48 and issue 165).
_FILE = re.compile(rb"([0-9]{1,20}(?:\.[0-9]{1,9})?)(?: [^\n]{0,64})?\n")


def parse(content: bytes) -> float:
    """Parse ``/proc/uptime``.

    :return: seconds since boot, suspended time included.
    :raises ParseError: when it does not begin with a number, or with one that cannot be.
    """
    match = _FILE.fullmatch(content)
    seconds = float(match[1]) if match else math.inf
    if seconds > LONGEST:
        raise ParseError("/proc/uptime", f"'{text.quote(content)}' is not an uptime")
    return seconds


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
