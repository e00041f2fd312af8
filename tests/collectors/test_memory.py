"""Memory and swap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.collectors.memory import LARGEST, Meminfo, MemoryUsage, parse
from belatwist.errors import ParseError
from belatwist.model import Sample
from tests.collectors import kernel_texts
from tests.fixture_trees import NOW_MS, machine, procfs

BOARD = (kernel_texts.FIXTURES / "orangepi5plus/proc/meminfo").read_bytes()
FIELDS = ("total", "available", "swap_total", "swap_free")


def values(reading: Meminfo) -> dict[str, int]:
    """Give the amounts that are there."""
    found = {field: getattr(reading, field) for field in FIELDS}
    return {field: value for field, value in found.items() if value is not None}


def test_the_table_of_the_board() -> None:
    """Amounts are in KiB, as the kernel writes them."""
    expected = Meminfo(16334100, 15243612, 8167048, 8167048)
    assert parse(BOARD) == expected


def test_what_the_kernel_does_not_say_is_absent() -> None:
    """A kernel before 3.14 has no MemAvailable, a container may have no swap lines."""
    assert parse(b"MemTotal: 100 kB\nMemFree: 50 kB\n") == Meminfo(100)


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
    reading = parse(b"MemTotal: 100 kB\n" + line + b"\nSwapTotal: 0 kB\n")
    assert values(reading) == {"total": 100, "swap_total": 0}
    assert len(reading.skipped) == 1


def test_other_lines_are_not_looked_at() -> None:
    """A line that the parser does not use cannot fail."""
    assert parse(b"HugePages_Total: x\nMemTotal: 1 kB\nfoo\n").skipped == ()


@pytest.mark.parametrize(
    "text", [b"", b"MemTotal: 100 kB", b"MemTotal: x kB\n", b"MemFree: 1 kB\n"]
)
def test_a_text_without_a_total_is_an_error(text: bytes) -> None:
    """Nothing recognisable is an error."""
    with pytest.raises(ParseError, match=r"^/proc/meminfo: no MemTotal"):
        parse(text)


@given(kernel_texts.damaged(kernel_texts.files("proc/meminfo")))
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Every number that is read is a whole token of a complete line."""
    reading = kernel_texts.attempt(parse, text)
    if reading is not None:
        kernel_texts.assert_skipped(reading.skipped)
        assert kernel_texts.tokens(text).issuperset(values(reading).values())


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every amount that is read reads as in the whole text."""
    whole = values(parse(BOARD))
    for end in range(len(BOARD)):
        reading = kernel_texts.attempt(parse, BOARD[:end])
        if reading is not None:
            assert values(reading).items() <= whole.items()


KIB = 1024


def amounts(samples: list[Sample]) -> dict[str, float]:
    """Give the amounts in KiB by name."""
    assert all(s.series.tags == () and s.timestamp_ms == NOW_MS for s in samples)
    return {s.series.name: float(s.value) / KIB for s in samples}


def collect(text: bytes) -> dict[str, float]:
    """Collect from a text."""
    board = procfs("orangepi5plus")
    board.texts["meminfo"] = text
    return amounts(MemoryUsage(machine(board)).collect(NOW_MS))


def test_the_board() -> None:
    """Used is total less available; amounts are bytes."""
    board = procfs("orangepi5plus")
    collector = MemoryUsage(machine(board))
    found = amounts(collector.collect(NOW_MS))
    assert found == {
        "memory.used_bytes": 16334100 - 15243612,
        "memory.available_bytes": 15243612,
        "memory.total_bytes": 16334100,
        "memory.swap_used_bytes": 0,
        "memory.swap_total_bytes": 8167048,
    }
    assert 100 * found["memory.used_bytes"] / 16334100 == pytest.approx(6.6761, abs=5e-5)
    board.become("orangepi5plus-t10")
    used = amounts(collector.collect(NOW_MS))["memory.used_bytes"]
    assert 100 * used / 16334100 == pytest.approx(6.6778, abs=5e-5)


def test_a_machine_without_swap_has_none() -> None:
    """Zero was read, so zero is reported."""
    found = amounts(MemoryUsage(machine(procfs("vm"))).collect(NOW_MS))
    assert found["memory.swap_total_bytes"] == 0
    assert found["memory.swap_used_bytes"] == 0


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        (b"", {"used", "available", "swap_used", "swap_total"}),
        (b"MemAvailable: 40 kB\nSwapTotal: 9 kB\n", {"swap_used"}),
        (b"MemAvailable: 40 kB\nSwapFree: 9 kB\n", {"swap_used", "swap_total"}),
        (
            b"MemAvailable: 101 kB\nSwapTotal: 8 kB\nSwapFree: 9 kB\n",
            {"available", "used", "swap_used"},
        ),
    ],
)
def test_what_is_not_known_is_absent(text: bytes, absent: set[str]) -> None:
    """Neither a missing line nor a negative difference becomes a number."""
    found = collect(b"MemTotal: 100 kB\n" + text)
    names = {"used", "available", "total", "swap_used", "swap_total"}
    assert found.keys() == {f"memory.{name}_bytes" for name in names - absent}


@given(st.integers(1, LARGEST), st.integers(0, 2**64 - 1))
def test_used_is_never_negative(total: int, available: int) -> None:
    """For any amounts, used is between 0 and the total, or absent; so is what is available."""
    found = collect(b"MemTotal: %d kB\nMemAvailable: %d kB\n" % (total, available))
    for name in ("memory.used_bytes", "memory.available_bytes"):
        assert 0 <= found.get(name, 0) <= found["memory.total_bytes"]
        assert (name in found) == (available <= total)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (b"MemAvailable: 101 kB", {"MemAvailable:"}),
        (b"SwapTotal: 18014398509481980 kB", {"SwapTotal:"}),  # 2^64 bytes less 4 KiB
        (b"SwapTotal: 8 kB\nSwapFree: 9 kB", {"SwapFree:"}),
        (b"SwapTotal: 8 kB\nSwapFree: 18014398509481980 kB", {"SwapFree:"}),
    ],
)
def test_an_amount_that_cannot_be_is_left_out_and_named(line: bytes, names: set[str]) -> None:
    """More than any processor addresses, or more free than there is, as in some containers."""
    reading = parse(b"MemTotal: 100 kB\n" + line + b"\n")
    assert {skipped.split()[0] for skipped in reading.skipped} == names
    assert "MemAvailable" not in str(names) or reading.available is None


@pytest.mark.parametrize("total", [0, LARGEST + 1])
def test_a_machine_has_memory(total: int) -> None:
    """None, or more than any processor addresses, is no reading."""
    with pytest.raises(ParseError, match="no MemTotal"):
        parse(b"MemTotal: %d kB\n" % total)


def test_an_unreadable_text_is_an_error() -> None:
    """Without a total there is nothing to report."""
    with pytest.raises(ParseError):
        collect(b"x\n")
