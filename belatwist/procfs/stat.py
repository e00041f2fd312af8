"""``/proc/stat``: the time each core spent in each state (Documentation/filesystems/proc.rst)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from belatwist.errors import ParseError
from belatwist.procfs import text

# Two more columns, guest and guest_nice, are already contained in user and nice.
_CORE = re.compile(
    (rb"cpu(0|[1-9][0-9]{0,8})" + rb" +(N)" * 8 + rb"(?: +N)*").replace(b"N", text.DIGITS)
)


class Times(NamedTuple):
    """What one core has done since boot, in ticks of 1/USER_HZ (10 ms) each."""

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

    cores: Mapping[str, Times]
    skipped: tuple[str, ...] = ()


def parse(content: bytes) -> Stat:
    """Parse ``/proc/stat``.

    A core listed twice counts as first listed.

    :raises ParseError: when no core can be read.
    """
    complete, unusable = text.lines(content)
    # The aggregate line is told by its space; the other lines hold no table.
    listed = [line for line in complete if line.startswith(b"cpu") and line[3:4] != b" "]
    cores = text.table(_CORE, listed, Times._make, unusable)
    if not cores:
        raise ParseError("/proc/stat", f"no line of a core in '{text.quote(content)}'")
    return Stat(cores, text.quote_lines(unusable))
