"""``/proc/uptime``: the time since boot (Documentation/filesystems/proc.rst; fs/proc/uptime.c)."""

import re

from belatwist.errors import ParseError
from belatwist.procfs import text

# The second number is the idle time summed over all cores.
_FILE = re.compile(rb"([0-9]{1,20}\.[0-9]{2}) [0-9]{1,20}\.[0-9]{2}\n")


def parse(content: bytes) -> float:
    """Parse ``/proc/uptime``.

    :return: seconds since boot, suspended time included.
    :raises ParseError: when it is anything but the one documented line.
    """
    match = _FILE.fullmatch(content)
    if match is None:
        raise ParseError("/proc/uptime", f"'{text.quote(content)}' is not an uptime")
    return float(match[1])
