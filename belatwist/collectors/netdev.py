"""Reads ``/proc/net/dev``, the counters of each network interface (net/core/net-procfs.c)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from belatwist.errors import ParseError
from belatwist.procfs import text

_COLUMNS = (
    b"face |bytes packets errs drop fifo frame compressed multicast"
    b"|bytes packets errs drop fifo colls carrier compressed"
)
# A name has at most 15 bytes (IFNAMSIZ). It ends at the last colon before the numbers, because an
# alias has a colon of its own, and old kernels wrote no space after it.
_INTERFACE = re.compile(
    (
        rb" *([^\s\0]{1,15}): *(N) +(N) +(N) +N +N +N +N +N"
        rb" +(N) +(N) +(N) +N +N +N +N +N"
    ).replace(b"N", text.DIGITS)
)


class InterfaceCounters(NamedTuple):
    """The counters of one interface since it appeared."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int


@dataclass(frozen=True, slots=True)
class NetDev:
    """All interfaces of this network namespace, the loopback included.

    :ivar interfaces: interface name to its counters, in the kernel's order.
    :ivar skipped: quotations of the lines that could not be used.
    """

    interfaces: Mapping[str, InterfaceCounters]
    skipped: tuple[str, ...] = ()


def parse(content: bytes) -> NetDev:
    """Parse ``/proc/net/dev``.

    Of an interface listed twice the first line counts. The kernel writes the table page by page,
    and an interface that comes or goes meanwhile can shift another one onto two pages.

    :raises ParseError: when the two header lines are not as documented: then the columns might have
        other meanings.
    """
    complete, unusable = text.lines(content)
    if len(complete) < 2 or b" ".join(complete[1].split()) != _COLUMNS:
        raise ParseError("/proc/net/dev", f"no known header in '{text.quote(content)}'")
    interfaces = text.table(_INTERFACE, complete[2:], InterfaceCounters._make, unusable)
    return NetDev(interfaces, text.quote_lines(unusable))
