"""``/proc/meminfo``: memory and swap (Documentation/filesystems/proc.rst, meminfo)."""

import re
from dataclasses import dataclass

from belatwist.errors import ParseError
from belatwist.procfs import text

_KEYS = frozenset({b"MemTotal", b"MemAvailable", b"SwapTotal", b"SwapFree"})
_AMOUNT = re.compile(rb" *(%b) kB" % text.DIGITS)


@dataclass(frozen=True, slots=True)
class Meminfo:
    """Amounts in KiB, which the kernel writes ``kB``; ``None`` where there is no usable line.

    :ivar total: usable memory.
    :ivar available: what can be had without swapping; absent before Linux 3.14.
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

    An amount listed twice counts as first listed.

    :raises ParseError: when there is no usable ``MemTotal``.
    """
    complete, unusable = text.lines(content)
    amounts: dict[bytes, int] = {}
    for line in complete:
        key, _, amount = line.partition(b":")
        if key not in _KEYS:
            continue
        match = _AMOUNT.fullmatch(amount)
        values = text.numbers(match.groups()) if match else None
        if values is None or key in amounts:
            unusable.append(line)
        else:
            amounts[key] = values[0]
    if b"MemTotal" not in amounts:
        raise ParseError("/proc/meminfo", f"no MemTotal in '{text.quote(content)}'")
    return Meminfo(
        total=amounts[b"MemTotal"],
        available=amounts.get(b"MemAvailable"),
        swap_total=amounts.get(b"SwapTotal"),
        swap_free=amounts.get(b"SwapFree"),
        skipped=text.quote_lines(unusable),
    )
