"""The load averages, the time since boot, and the made-up packet loss."""

import random

import pytest

from belatwist.collectors.load import SystemLoad
from belatwist.collectors.srt import SrtPacketLoss
from belatwist.collectors.uptime import SystemUptime
from belatwist.errors import ReadError
from tests.fixture_trees import NOW_MS, procfs


def test_the_load_of_the_board() -> None:
    """Three averages under three names."""
    samples = SystemLoad("box", procfs("orangepi5plus")).collect(NOW_MS)
    assert {s.series.name: s.value for s in samples} == {
        "system.load_1m": 1.84,
        "system.load_5m": 1.71,
        "system.load_15m": 1.62,
    }


def test_the_uptime_of_the_board() -> None:
    """Seconds, with the hundredths that the kernel gives."""
    board = procfs("orangepi5plus")
    collector = SystemUptime("box", board)
    assert [(s.series.name, s.value) for s in collector.collect(NOW_MS)] == [
        ("system.uptime_seconds", 5821.37)
    ]
    board.become("orangepi5plus-t10")
    assert [s.value for s in collector.collect(NOW_MS)] == [5831.37]


@pytest.mark.parametrize("collector", [SystemLoad, SystemUptime])
def test_what_cannot_be_read_is_an_error(
    collector: type[SystemLoad] | type[SystemUptime],
) -> None:
    """Every Linux has these files."""
    board = procfs("orangepi5plus")
    for path in ("loadavg", "uptime"):
        board.faults[path] = ReadError(f"{path}: Input/output error (EIO)")
    with pytest.raises(ReadError, match="EIO"):
        collector("box", board).collect(NOW_MS)


def test_made_up_numbers_say_so_and_are_percentages() -> None:
    """They are tagged as mock, lie between 0 and 100, are mostly small, and follow the seed."""
    collector = SrtPacketLoss("box", random.Random(1))
    samples = [collector.collect(NOW_MS)[0] for _ in range(10_000)]
    assert {s.series.tags for s in samples} == {(("source", "mock"),)}
    values = sorted(float(s.value) for s in samples)
    assert values[0] >= 0.0
    assert values[-1] <= 100.0
    assert 0.2 < values[5000] < 1.0
    again = SrtPacketLoss("box", random.Random(1))
    assert again.collect(NOW_MS)[0].value == samples[0].value
