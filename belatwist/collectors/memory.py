"""The amounts of memory and swap, and how much of them is used.

Source: ``/proc/meminfo`` (Documentation/filesystems/proc.rst, meminfo).
"""

import re
from dataclasses import dataclass

from twisted.logger import Logger

from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.collectors.skipped import SkippedLines
from belatwist.errors import ParseError
from belatwist.model import Sample, sample
from belatwist.procfs import text

USED = Metric("memory.used_bytes", GAUGE, "bytes", "Total less available memory.")
AVAILABLE = Metric(
    "memory.available_bytes", GAUGE, "bytes", "Memory that can be had without swapping."
)
TOTAL = Metric("memory.total_bytes", GAUGE, "bytes", "Memory that the kernel manages.")
SWAP_USED = Metric("memory.swap_used_bytes", GAUGE, "bytes", "Swap in use.")
SWAP_TOTAL = Metric("memory.swap_total_bytes", GAUGE, "bytes", "Swap there is.")

_KIB = 1024

LARGEST = 2**52 // _KIB
"""KiB; no processor addresses more memory: 52 bits, on x86-64 (Intel SDM, volume 3, 4.1.4) and
on arm64 (FEAT_LPA). Amounts that fell below nothing are near 2^64 bytes, as swap in some
containers."""

_KEYS = frozenset({b"MemTotal", b"MemAvailable", b"SwapTotal", b"SwapFree"})
_PARTS = ((b"MemAvailable", b"MemTotal"), (b"SwapFree", b"SwapTotal"))
_AMOUNT = re.compile(rb" *(%b) kB" % text.DIGITS)


@dataclass(frozen=True, slots=True)
class Meminfo:
    """Amounts in KiB, which the kernel writes ``kB``; ``None`` where there is no usable line.

    :ivar total: usable memory.
    :ivar available: memory for new programs without swapping; absent before Linux 3.14.
    :ivar swap_total: 0 on a system without swap.
    :ivar swap_free: swap that is unused.
    :ivar skipped: quotations of the lines that could not be used.
    """

    total: int
    available: int | None = None
    swap_total: int | None = None
    swap_free: int | None = None
    skipped: tuple[str, ...] = ()


def parse(content: bytes) -> Meminfo:
    """Parse ``/proc/meminfo``.

    Of an amount listed twice the first line counts. An amount that cannot be is left out: one above
    :data:`LARGEST`, and more that is free than there is.

    :raises ParseError: when there is no usable ``MemTotal``.
    """
    complete, unusable = text.lines(content)
    amounts: dict[bytes, int] = {}
    found: dict[bytes, bytes] = {}
    for line in complete:
        key, _, amount = line.partition(b":")
        if key not in _KEYS:
            continue
        match = _AMOUNT.fullmatch(amount)
        if match is None or int(match[1]) > LARGEST or key in amounts:
            unusable.append(line)
        else:
            amounts[key], found[key] = int(match[1]), line
    if not amounts.get(b"MemTotal"):
        raise ParseError("/proc/meminfo", f"no MemTotal in '{text.quote(content)}'")
    for free, total in _PARTS:
        if amounts.get(free, 0) > amounts.get(total, LARGEST):
            unusable.append(found[free])
            del amounts[free]
    return Meminfo(
        total=amounts[b"MemTotal"],
        available=amounts.get(b"MemAvailable"),
        swap_total=amounts.get(b"SwapTotal"),
        swap_free=amounts.get(b"SwapFree"),
        skipped=text.quote_lines(unusable),
    )


class MemoryUsage:
    """``memory.*_bytes``; used memory is total less available memory.

    An amount that the kernel does not write is absent, and so is one that cannot be.

    :param machine: the machine to measure.
    """

    _log = Logger()

    def __init__(self, machine: Machine) -> None:
        self._procfs = machine.procfs
        self._used = machine.series(USED)
        self._available = machine.series(AVAILABLE)
        self._total = machine.series(TOTAL)
        self._swap_used = machine.series(SWAP_USED)
        self._swap_total = machine.series(SWAP_TOTAL)
        self._skipped = SkippedLines("/proc/meminfo", self._log, machine.seconds)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/meminfo``.

        :raises BelaError: when it cannot be read.
        """
        info = parse(self._procfs.read("meminfo"))
        self._skipped.report(info.skipped)
        amounts = (
            (self._used, _difference(info.total, info.available)),
            (self._available, info.available),
            (self._total, info.total),
            (self._swap_used, _difference(info.swap_total, info.swap_free)),
            (self._swap_total, info.swap_total),
        )
        return [sample(series, now_ms, kib * _KIB) for series, kib in amounts if kib is not None]


def _difference(total: int | None, free: int | None) -> int | None:
    if total is None or free is None:
        return None
    return total - free


SOURCE = Source(
    "memory.usage",
    30.0,
    lambda machine, _: MemoryUsage(machine),
    (USED, AVAILABLE, TOTAL, SWAP_USED, SWAP_TOTAL),
)
