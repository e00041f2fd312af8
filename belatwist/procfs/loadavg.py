"""``/proc/loadavg``: the load averages (Documentation/filesystems/proc.rst; fs/proc/loadavg.c)."""

import re
from typing import NamedTuple

from belatwist.errors import ParseError
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

    :raises ParseError: when it is anything but the one documented line.
    """
    match = _FILE.fullmatch(content)
    if match is None:
        raise ParseError("/proc/loadavg", f"'{text.quote(content)}' is not three averages")
    return LoadAverage._make(map(float, match.groups()))
