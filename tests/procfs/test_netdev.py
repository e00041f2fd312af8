"""The parser of /proc/net/dev."""

import pytest
from hypothesis import given, settings

from belatwist.errors import ParseError
from belatwist.procfs import netdev
from tests.procfs import strategies

BOARD = (strategies.FIXTURES / "orangepi5plus/proc/net/dev").read_bytes()
HEADER = b"".join(BOARD.splitlines(keepends=True)[:2])
GOOD = b"  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
ETH0 = {"eth0": (1, 2, 3, 9, 10, 11)}


def test_the_board() -> None:
    """Bytes, packets and errors come from their columns, in the kernel's order."""
    reading = netdev.parse(BOARD)
    assert list(reading.interfaces) == [
        "lo",
        "eth0",
        "eth1",
        "wlan0",
        "usb0",
        "eth2",
        "wwan0",
        "docker0",
        "veth1a2b3c4",
    ]
    assert reading.interfaces["wwan0"] == (44118205, 172009, 0, 950118712, 723110, 3)
    assert reading.skipped == ()


def test_odd_and_malformed_lines() -> None:
    """No space after the colon, the longest name and an alias are read; the rest is named."""
    text = (strategies.FIXTURES / "variants/net-malformed/proc/net/dev").read_bytes()
    reading = netdev.parse(text)
    assert reading.interfaces == {
        "lo": (4562118402, 3402117, 0, 4562118402, 3402117, 0),
        "eth0": (12884901888, 96210, 0, 921833014, 701122, 0),
        "enx001122334455": (1745118820, 1329004, 0, 77120994, 301882, 0),
        "eth1:0": (5, 1, 0, 6, 1, 0),
    }
    assert [line.split()[0] for line in reading.skipped] == ["usb0:", "garbage", "wwan0:"]


def test_the_name_ends_at_the_last_colon_before_the_numbers() -> None:
    """An alias keeps its colon, also without a space behind it."""
    line = b"eth1:0:" + GOOD.split(b": ", 1)[1]
    assert list(netdev.parse(HEADER + line).interfaces) == ["eth1:0"]


def test_no_interface_is_legal() -> None:
    """A header alone is an empty table."""
    assert netdev.parse(HEADER) == netdev.NetDev({})


@pytest.mark.parametrize(
    "line",
    [
        GOOD.replace(b"eth0", b"eth1").replace(b" 16", b""),
        GOOD.replace(b"eth0", b"eth1").replace(b" 16", b" 16 17"),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" -9 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" 9_0 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" \xd9\xa9 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 9 ", b" 18446744073709551616 "),
        GOOD.replace(b"eth0", b"eth1").replace(b" 16", b" x"),
        GOOD.replace(b"eth0", b"eth\0"),
        GOOD.replace(b"eth0", b"a" * 16),
        GOOD.replace(b"eth0:", b"eth1"),
        GOOD.replace(b"eth0", b""),
        GOOD.replace(b" 1 ", b" 9 "),
        GOOD.replace(b"eth0", b"eth1")[:-1],
    ],
)
def test_a_malformed_or_repeated_interface_is_left_out(line: bytes) -> None:
    """The line is named and the others are kept."""
    reading = netdev.parse(HEADER + GOOD + line)
    assert reading.interfaces == ETH0
    assert len(reading.skipped) == 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        GOOD,
        HEADER[:-1],
        HEADER.replace(b"errs", b"drop"),
        HEADER.replace(b"|bytes", b"|packets"),
        HEADER.splitlines(keepends=True)[1] + GOOD,
    ],
)
def test_a_text_without_the_known_header_is_an_error(text: bytes) -> None:
    """Columns whose meaning is not known are not read."""
    with pytest.raises(ParseError, match=r"^/proc/net/dev: no known header"):
        netdev.parse(text)


@given(strategies.damaged(strategies.files("proc/net/dev")))
@settings(deadline=None)
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Whatever is read stands in the text as a whole token of a complete line."""
    for content in (text, HEADER + text):
        reading = strategies.attempt(netdev.parse, content)
        if reading is not None:
            strategies.assert_skipped(reading.skipped)
            read = {n for c in reading.interfaces.values() for n in c}
            assert strategies.tokens(content) >= read


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every interface that is read reads as in the whole text."""
    whole = netdev.parse(BOARD).interfaces
    for end in range(len(BOARD)):
        reading = strategies.attempt(netdev.parse, BOARD[:end])
        if reading is not None:
            assert reading.interfaces.items() <= whole.items()
