"""Input of the largest size that the reader lets through is parsed in bounded time."""

from collections.abc import Callable
from time import perf_counter

import pytest

from belatwist.procfs import diskstats, loadavg, meminfo, netdev, stat, thermal, uptime
from belatwist.procfs.reader import DEFAULT_LIMIT
from tests.procfs import strategies
from tests.procfs.test_netdev import HEADER

PARSERS: list[Callable[[bytes], object]] = [
    stat.parse,
    meminfo.parse,
    diskstats.parse,
    netdev.parse,
    loadavg.parse,
    uptime.parse,
    lambda content: thermal.parse_temperature(content, ""),
    lambda content: thermal.parse_type(content, ""),
]
PIECES = [
    b"\n",
    b" ",
    b"9",
    b"9 ",
    b"\0",
    b"a:",
    b"cpu0 1 2 3 4 5 6 7 8 ",
    b"cpu0 1 2 3 4 5 6 7 8\n",
    b"MemTotal: 1 kB\n",
    b"1 1 sda 1 1 1 1 1 1 1 1 1 1 1 ",
    b"1 1 sda 1 1 1 1 1 1 1 1 1 1 1\n",
    b"eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("head", [b"", b"cpu0 ", b"MemTotal: ", b"1 1 a ", HEADER, HEADER + b"a: "])
def test_time_is_bounded(head: bytes, piece: bytes) -> None:
    """A mebibyte of repetition takes each parser seconds at the very most, not minutes."""
    content = (head + piece * DEFAULT_LIMIT)[: DEFAULT_LIMIT - 1] + b"\n"
    for parse in PARSERS:
        start = perf_counter()
        strategies.attempt(parse, content)
        assert perf_counter() - start < 10
