"""The load averages, the time since boot, and the made-up packet loss."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given

from belatwist.collectors import load, uptime
from belatwist.collectors.load import SystemLoad
from belatwist.collectors.srt import SrtPacketLoss
from belatwist.collectors.uptime import SystemUptime
from belatwist.errors import ParseError, ReadError
from tests.collectors import kernel_texts
from tests.fixture_trees import NOW_MS, machine, procfs


@pytest.mark.parametrize("form", kernel_texts.DAMAGED_NUMBERS)
def test_a_damaged_number_is_an_error(form: str) -> None:
    """Only what the kernel writes is a number."""
    one = form.format("1.84").encode()
    for position in range(3):
        parts = [b"1.84", b"1.71", b"1.62", b"2/431", b"8123"]
        parts[position] = one
        with pytest.raises(ParseError, match=r"^/proc/loadavg: "):
            load.parse(b" ".join(parts) + b"\n")
    with pytest.raises(ParseError, match=r"^/proc/uptime: "):
        uptime.parse(one + b" 37459.90\n")


@pytest.mark.parametrize(
    ("parse", "content"),
    [(load.parse, b"1.84 1.71 1.62 2/431 8123\n"), (uptime.parse, b"5821.37 37459.90\n")],
)
def test_a_cut_line_is_an_error(parse: Callable[[bytes], object], content: bytes) -> None:
    """Cut at any byte, or followed by anything, nothing is read."""
    kernel_texts.assert_whole(parse, content)


@given(kernel_texts.damaged(kernel_texts.files("proc/loadavg")))
def test_damage_never_makes_a_load(text: bytes) -> None:
    """Every number that is read is in the text."""
    reading = kernel_texts.attempt(load.parse, text)
    if reading is not None:
        assert tuple(map(float, text.split()[:3])) == reading


@given(kernel_texts.damaged(kernel_texts.files("proc/uptime")))
def test_damage_never_makes_an_uptime(text: bytes) -> None:
    """Every number that is read is in the text."""
    reading = kernel_texts.attempt(uptime.parse, text)
    if reading is not None:
        assert float(text.split()[0]) == reading


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        (b"41.0 41.0\n", 41),  # lxcfs 2.0.5
        (b"11752 0\n", 11752),  # lxcfs before 0.11
        (b"0.0 0.0\n", 0),
        (b"231307.24 1843825.27\n", 231307.24),
        (b"231307.24 18446744073709551615.99\n", 231307.24),
        (b"0.00 0.00\n", 0),
        (b"12.345\n", 12.345),
    ],
)
def test_uptimes_that_others_than_the_kernel_write(content: bytes, seconds: float) -> None:
    """A container's file has another number of digits; the idle time is not looked at."""
    assert uptime.parse(content) == seconds


@pytest.mark.parametrize("content", [b"18446744073709529.16 0.00\n", b"9999999999.00 1.00\n"])
def test_no_machine_has_run_for_so_long(content: bytes) -> None:
    """As a container's file says where the start of its first process cannot be found."""
    with pytest.raises(ParseError, match="is not an uptime"):
        uptime.parse(content)


@pytest.mark.parametrize(
    ("content", "averages"),
    [
        (b"0.00 0.00 0.00 0/0 0\n", (0, 0, 0)),
        (b"1 2.5 3.125 1/28 153\n", (1, 2.5, 3.125)),
        (b"0.03 0.02 0.00 -1/525 40555\n", (0.03, 0.02, 0)),
        (b"0.03 0.02 0.00\n", (0.03, 0.02, 0)),
    ],
)
def test_averages_that_others_than_the_kernel_write(
    content: bytes, averages: tuple[float, ...]
) -> None:
    """The digits may be more or fewer, and what follows them is not looked at."""
    assert load.parse(content) == averages


def test_a_load_of_more_tasks_than_there_can_be() -> None:
    """A count that fell below nothing gives such an average."""
    with pytest.raises(ParseError, match="is not three averages"):
        load.parse(b"1.00 4294967295.00 1.00 1/2 3\n")


def test_the_load_of_the_board() -> None:
    """Three averages under three names."""
    samples = SystemLoad(machine(procfs("orangepi5plus"))).collect(NOW_MS)
    assert {s.series.name: s.value for s in samples} == {
        "system.load_1m": 1.84,
        "system.load_5m": 1.71,
        "system.load_15m": 1.62,
    }


def test_the_uptime_of_the_board() -> None:
    """Seconds, with the hundredths that the kernel gives."""
    board = procfs("orangepi5plus")
    collector = SystemUptime(machine(board))
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
        collector(machine(board)).collect(NOW_MS)


def test_made_up_numbers_say_so_and_are_percentages() -> None:
    """They are tagged as mock, lie between 0 and 100, are mostly small, and follow the seed."""
    collector = SrtPacketLoss(machine(rng=random.Random(1)))
    samples = [collector.collect(NOW_MS)[0] for _ in range(10_000)]
    assert {s.series.tags for s in samples} == {(("source", "mock"),)}
    values = sorted(float(s.value) for s in samples)
    assert values[0] >= 0.0
    assert values[-1] <= 100.0
    assert 0.2 < values[5000] < 1.0
    again = SrtPacketLoss(machine(rng=random.Random(1)))
    assert again.collect(NOW_MS)[0].value == samples[0].value
