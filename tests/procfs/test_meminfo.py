"""The parser of /proc/meminfo."""

import pytest
from hypothesis import given, settings

from belatwist.errors import ParseError
from belatwist.procfs import meminfo
from tests.procfs import strategies

BOARD = (strategies.FIXTURES / "orangepi5plus/proc/meminfo").read_bytes()
FIELDS = ("total", "available", "swap_total", "swap_free")


def values(reading: meminfo.Meminfo) -> dict[str, int]:
    """Give the amounts that are there."""
    found = {field: getattr(reading, field) for field in FIELDS}
    return {field: value for field, value in found.items() if value is not None}


def test_the_board() -> None:
    """Amounts are in KiB, as the kernel writes them."""
    expected = meminfo.Meminfo(16334100, 15243612, 8167048, 8167048)
    assert meminfo.parse(BOARD) == expected


def test_what_the_kernel_does_not_say_is_absent() -> None:
    """A kernel before 3.14 has no MemAvailable, a container may have no swap lines."""
    assert meminfo.parse(b"MemTotal: 100 kB\nMemFree: 50 kB\n") == meminfo.Meminfo(100)


@pytest.mark.parametrize(
    "line",
    [
        b"MemAvailable:   12",
        b"MemAvailable:   12 MB",
        b"MemAvailable:   12 kB ",
        b"MemAvailable:   -12 kB",
        b"MemAvailable:   1_2 kB",
        b"MemAvailable:   1 2 kB",
        b"MemAvailable:   18446744073709551616 kB",
        b"MemAvailable:\t12 kB",
        "MemAvailable:   ١٢ kB".encode(),
        b"MemTotal:       99 kB",
    ],
)
def test_a_malformed_or_repeated_line_is_left_out(line: bytes) -> None:
    """The line is named and its amount absent; the others are kept."""
    reading = meminfo.parse(b"MemTotal: 100 kB\n" + line + b"\nSwapTotal: 0 kB\n")
    assert values(reading) == {"total": 100, "swap_total": 0}
    assert len(reading.skipped) == 1


def test_other_lines_are_not_looked_at() -> None:
    """What is not used cannot fail."""
    assert meminfo.parse(b"HugePages_Total: x\nMemTotal: 1 kB\nfoo\n").skipped == ()


@pytest.mark.parametrize(
    "text", [b"", b"MemTotal: 100 kB", b"MemTotal: x kB\n", b"MemFree: 1 kB\n"]
)
def test_a_text_without_a_total_is_an_error(text: bytes) -> None:
    """Nothing recognisable is an error."""
    with pytest.raises(ParseError, match=r"^/proc/meminfo: no MemTotal"):
        meminfo.parse(text)


@given(strategies.damaged(strategies.files("proc/meminfo")))
@settings(deadline=None)
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Whatever is read stands in the text as a whole token of a complete line."""
    reading = strategies.attempt(meminfo.parse, text)
    if reading is not None:
        strategies.assert_skipped(reading.skipped)
        assert strategies.tokens(text).issuperset(values(reading).values())


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every amount that is read reads as in the whole text."""
    whole = values(meminfo.parse(BOARD))
    for end in range(len(BOARD)):
        reading = strategies.attempt(meminfo.parse, BOARD[:end])
        if reading is not None:
            assert values(reading).items() <= whole.items()
