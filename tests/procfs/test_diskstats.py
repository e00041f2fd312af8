"""The parser of /proc/diskstats."""

import pytest
from hypothesis import given, settings

from belatwist.errors import ParseError
from belatwist.procfs import diskstats
from tests.procfs import strategies

BOARD = (strategies.FIXTURES / "orangepi5plus/proc/diskstats").read_bytes()
GOOD = b"   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n"
SDA = {"sda": (1, 3, 5, 7, 10, 11)}


def test_the_board() -> None:
    """Operations, sectors and times come from their columns."""
    reading = diskstats.parse(BOARD)
    assert len(reading.devices) == 19
    assert reading.devices["nvme0n1"] == (9173, 742106, 15284, 1219472, 9216, 6688)
    assert reading.skipped == ()


@pytest.mark.parametrize("fields", [14, 18])
def test_older_kernels_write_fewer_columns(fields: int) -> None:
    """What 4.18 and 5.5 added stands behind and changes nothing."""
    variant = strategies.FIXTURES / f"variants/diskstats-{fields}-fields/proc/diskstats"
    assert diskstats.parse(variant.read_bytes()) == diskstats.parse(BOARD)


def test_newer_kernels_may_write_more_columns() -> None:
    """The kernel adds statistics at the end."""
    line = GOOD[:-1] + b" 0 0 0 0 0 0 0 0\n"
    assert diskstats.parse(line).devices == SDA


def test_no_block_device_is_legal() -> None:
    """An empty table is an answer, not an error."""
    assert diskstats.parse(b"") == diskstats.Diskstats({})


@pytest.mark.parametrize(
    "line",
    [
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10 11 12",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        b" 8 1 sdb 1 2 -3 4 5 6 7 8 9 10 11",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 1_0 11",
        b" 8 1 sdb 1 2 3 x 5 6 7 8 9 10 11",
        b" 8 1 sdb 1 2 18446744073709551616 4 5 6 7 8 9 10 11",
        b" 8 1 sd\0b 1 2 3 4 5 6 7 8 9 10 11",
        b" 8 sdb 1 2 3 4 5 6 7 8 9 10 11",
        b" 8 1 " + b"x" * 65 + b" 1 2 3 4 5 6 7 8 9 10 11",
        b" 8 0 sda 9 9 9 9 9 9 9 9 9 9 9",
        b" 8 1 sdb 1 2 3 4 5 6 7 8 9 10 11\r",
    ],
)
def test_a_malformed_or_repeated_device_is_left_out(line: bytes) -> None:
    """The line is named and the others are kept."""
    reading = diskstats.parse(GOOD + line + b"\n")
    assert reading.devices == SDA
    assert len(reading.skipped) == 1


def test_only_what_is_wanted_is_looked_at() -> None:
    """Of the others not even a malformed line is told of; a line without a name may be of any."""
    text = GOOD + b" 8 1 sdb 1 2 x\n 8 2\n 7 0 sd\xff 1\n"
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return name == "sda"

    reading = diskstats.parse(text, wanted)
    assert reading.devices == SDA
    assert reading.skipped == (" 8 2",)
    assert asked == ["sda", "sdb", "sd\\xff"]
    assert diskstats.parse(GOOD, lambda _: False) == diskstats.Diskstats({})


def test_a_name_that_is_not_utf8_is_escaped() -> None:
    """Names are decoded without loss of lines."""
    assert list(diskstats.parse(GOOD.replace(b"sda", b"sd\xff")).devices) == ["sd\\xff"]


@pytest.mark.parametrize("text", [b"garbage\n", GOOD[:-1], b"\0\n"])
def test_a_text_without_a_device_is_an_error(text: bytes) -> None:
    """Lines of which none can be read are an error."""
    with pytest.raises(ParseError, match=r"^/proc/diskstats: no line of a device"):
        diskstats.parse(text)


@given(strategies.damaged(strategies.files("proc/diskstats")))
@settings(deadline=None)
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Whatever is read stands in the text as a whole token of a complete line."""
    reading = strategies.attempt(diskstats.parse, text)
    if reading is not None:
        strategies.assert_skipped(reading.skipped)
        assert strategies.tokens(text).issuperset(n for c in reading.devices.values() for n in c)


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every device that is read reads as in the whole text."""
    whole = diskstats.parse(BOARD).devices
    for end in range(len(BOARD)):
        reading = strategies.attempt(diskstats.parse, BOARD[:end])
        if reading is not None:
            assert reading.devices.items() <= whole.items()


@pytest.mark.parametrize(("content", "size"), [(b"512\n", 512), (b"4096\n", 4096)])
def test_a_block_size_is_read(content: bytes, size: int) -> None:
    """Powers of two from 512 on."""
    assert diskstats.parse_block_size(content, "f") == size


@pytest.mark.parametrize(
    "content", [b"", b"409", b"0\n", b"256\n", b"513\n", b"-512\n", b"4_096\n"]
)
def test_anything_else_is_no_block_size(content: bytes) -> None:
    """A cut or impossible size is an error that names the file."""
    with pytest.raises(ParseError, match=r"^/sys/f: '.*' is not a block size$"):
        diskstats.parse_block_size(content, "/sys/f")
