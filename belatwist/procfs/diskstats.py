"""``/proc/diskstats``: what each block device has done (Documentation/admin-guide/iostats.rst)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from belatwist.errors import ParseError
from belatwist.procfs import text

SECTOR_SIZE = 512
"""Bytes of one sector of ``/proc/diskstats``, whatever the device's block size
(Documentation/block/stat.rst)."""

# Eleven statistics before Linux 4.18, then fifteen (discards), then seventeen since 5.5 (flushes);
# the kernel adds new ones at the end. Merges, the times of reads and writes and what is in flight
# are checked and not kept.
_DEVICE = re.compile(
    (
        rb" *N +N +([^\s\0]{1,64}) +(N) +N +(N) +N +(N) +N +(N) +N +N +(N) +(N)"
        rb"(?: +N +N +N +N(?: +N +N(?: +N)*)?)?"
    ).replace(b"N", text.DIGITS)
)
_BLOCK_SIZE = re.compile(rb"([0-9]{1,7})\n")


class Counters(NamedTuple):
    """What one device has done since boot; the times in milliseconds."""

    reads: int
    sectors_read: int
    writes: int
    sectors_written: int
    io_time_ms: int
    weighted_io_time_ms: int


@dataclass(frozen=True, slots=True)
class Diskstats:
    """The block devices that were wanted.

    :ivar devices: device name to its counters.
    :ivar skipped: quotations of the lines that could not be used.
    """

    devices: Mapping[str, Counters]
    skipped: tuple[str, ...] = ()


def parse(content: bytes, wanted: Callable[[str], bool] | None = None) -> Diskstats:
    """Parse ``/proc/diskstats``. An empty one is legal: there is no block device.

    A device listed twice counts as first listed.

    :param wanted: tells by its name whether a device is; the lines of others, of which there may be
        many (partitions, loop devices), are not looked at. ``None`` wants all.
    :raises ParseError: when there are lines to look at and none of them can be read.
    """
    complete, unusable = text.lines(content)
    if wanted is not None:
        complete = [line for line in complete if _may_be(line, wanted)]
    devices = text.table(_DEVICE, complete, Counters._make, unusable)
    if unusable and not devices:
        raise ParseError("/proc/diskstats", f"no line of a device in '{text.quote(content)}'")
    return Diskstats(devices, text.quote_lines(unusable))


def _may_be(line: bytes, wanted: Callable[[str], bool]) -> bool:
    """Tell whether a line is of a device that is wanted; one without a name may be of any."""
    fields = line.split(None, 3)
    return len(fields) < 3 or wanted(text.name(fields[2]))


def parse_block_size(content: bytes, source: str) -> int:
    """Parse ``queue/logical_block_size`` (Documentation/ABI/stable/sysfs-block).

    :param source: the file's path, for the error.
    :return: bytes; a power of two, 512 or more.
    :raises ParseError: for anything else.
    """
    match = _BLOCK_SIZE.fullmatch(content)
    size = int(match[1]) if match else 0
    if size < SECTOR_SIZE or size.bit_count() != 1:
        raise ParseError(source, f"'{text.quote(content)}' is not a block size")
    return size
