"""Memory and swap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.collectors.memory import MemoryUsage
from belatwist.errors import ParseError
from belatwist.model import Sample
from tests.fixture_trees import NOW_MS, procfs

KIB = 1024


def amounts(samples: list[Sample]) -> dict[str, float]:
    """Give the amounts in KiB by name."""
    assert all(s.series.tags == () and s.timestamp_ms == NOW_MS for s in samples)
    return {s.series.name: float(s.value) / KIB for s in samples}


def collect(text: bytes) -> dict[str, float]:
    """Collect from a text."""
    board = procfs("orangepi5plus")
    board.texts["meminfo"] = text
    return amounts(MemoryUsage("box", board).collect(NOW_MS))


def test_the_board() -> None:
    """Used is total less available; amounts are bytes."""
    board = procfs("orangepi5plus")
    collector = MemoryUsage("box", board)
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
    found = amounts(MemoryUsage("box", procfs("vm")).collect(NOW_MS))
    assert found["memory.swap_total_bytes"] == 0
    assert found["memory.swap_used_bytes"] == 0


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        (b"", {"used", "available", "swap_used", "swap_total"}),
        (b"MemAvailable: 40 kB\nSwapTotal: 9 kB\n", {"swap_used"}),
        (b"MemAvailable: 40 kB\nSwapFree: 9 kB\n", {"swap_used", "swap_total"}),
        (b"MemAvailable: 101 kB\nSwapTotal: 8 kB\nSwapFree: 9 kB\n", {"used", "swap_used"}),
    ],
)
def test_what_is_not_known_is_absent(text: bytes, absent: set[str]) -> None:
    """Neither a missing line nor a negative difference becomes a number."""
    found = collect(b"MemTotal: 100 kB\n" + text)
    names = {"used", "available", "total", "swap_used", "swap_total"}
    assert found.keys() == {f"memory.{name}_bytes" for name in names - absent}


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_used_is_never_negative(total: int, available: int) -> None:
    """Whatever the kernel says, used lies between nothing and the total, or is absent."""
    found = collect(b"MemTotal: %d kB\nMemAvailable: %d kB\n" % (total, available))
    assert 0 <= found.get("memory.used_bytes", 0) <= found["memory.total_bytes"]
    assert ("memory.used_bytes" in found) == (available <= total)


def test_an_unreadable_text_is_an_error() -> None:
    """Without a total there is nothing to report."""
    with pytest.raises(ParseError):
        collect(b"x\n")
