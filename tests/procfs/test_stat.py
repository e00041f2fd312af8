"""The parser of /proc/stat."""

import pytest
from hypothesis import given, settings

from belatwist.errors import ParseError
from belatwist.procfs import stat
from tests.procfs import strategies

BOARD = (strategies.FIXTURES / "orangepi5plus/proc/stat").read_bytes()
CORE = b"cpu0 1 2 3 4 5 6 7 8 9 10\n"


def test_the_board_has_eight_cores() -> None:
    """Each online core is listed by its number; the aggregate line is no core."""
    reading = stat.parse(BOARD)
    assert list(reading.cores) == list("01234567")
    assert reading.cores["0"] == (104212, 41, 68911, 380951, 1893, 0, 26022, 0)
    assert reading.cores["7"].softirq == 97
    assert reading.skipped == ()


def test_an_offline_core_has_no_line() -> None:
    """The other cores keep their numbers."""
    text = (strategies.FIXTURES / "variants/cpu3-offline-t10/proc/stat").read_bytes()
    assert list(stat.parse(text).cores) == list("0124567")


@pytest.mark.parametrize("columns", [8, 9, 10, 11])
def test_the_first_eight_columns_count(columns: int) -> None:
    """Guest time, which newer kernels add behind, is already inside user and nice."""
    line = b"cpu12 " + b" ".join(str(n).encode() for n in range(1, columns + 1)) + b"\n"
    assert stat.parse(line).cores == {"12": (1, 2, 3, 4, 5, 6, 7, 8)}


@pytest.mark.parametrize(
    "line",
    [
        b"cpu1 1 2 3 4 5 6 7",
        b"cpu1 1 2 3 -4 5 6 7 8 9 10",
        b"cpu1 1 2 3 +4 5 6 7 8 9 10",
        b"cpu1 1 2 3 4_0 5 6 7 8 9 10",
        b"cpu1 1 2 3 4.0 5 6 7 8 9 10",
        b"cpu1 1 2 3 0x4 5 6 7 8 9 10",
        b"cpu1 1 2 3 4 5 6 7 8 9 x",
        b"cpu1 1 2 3 18446744073709551616 5 6 7 8 9 10",
        b"cpu1 1 2 3 " + b"0" * 30 + b" 5 6 7 8 9 10",
        "cpu1 1 2 3 ٤ 5 6 7 8 9 10".encode(),
        b"cpu1 1 2 3 4\0 5 6 7 8 9 10",
        b"cpu1\t1 2 3 4 5 6 7 8 9 10",
        b"cpu01 1 2 3 4 5 6 7 8 9 10",
        b"cpuX 1 2 3 4 5 6 7 8 9 10",
        b"cpu0 9 9 9 9 9 9 9 9 9 9",
    ],
)
def test_a_malformed_or_repeated_core_is_left_out(line: bytes) -> None:
    """The line is named, the core before it is kept, and nothing is read from the line."""
    reading = stat.parse(CORE + line + b"\n")
    assert reading.cores == {"0": (1, 2, 3, 4, 5, 6, 7, 8)}
    assert len(reading.skipped) == 1
    assert reading.skipped[0].startswith("cpu")


@pytest.mark.parametrize(
    "text",
    [b"", b"\n", CORE[:-1], b"cpu  1 2 3 4 5 6 7 8 9 10\nintr 5\n", b"cpu0 1 2\n", b"\0" * 99],
)
def test_a_text_without_a_core_is_an_error(text: bytes) -> None:
    """Nothing recognisable is an error, not an empty answer."""
    with pytest.raises(ParseError, match=r"^/proc/stat: no line of a core"):
        stat.parse(text)


@given(strategies.damaged(strategies.files("proc/stat")))
@settings(deadline=None)
def test_damage_never_makes_a_number(text: bytes) -> None:
    """Whatever is read stands in the text as a whole token of a complete line."""
    reading = strategies.attempt(stat.parse, text)
    if reading is not None:
        strategies.assert_skipped(reading.skipped)
        assert strategies.tokens(text).issuperset(n for t in reading.cores.values() for n in t)


def test_a_cut_text_gives_no_other_values() -> None:
    """Cut at any byte, every core that is read reads as in the whole text."""
    whole = stat.parse(BOARD).cores
    for end in range(len(BOARD)):
        reading = strategies.attempt(stat.parse, BOARD[:end])
        if reading is not None:
            assert reading.cores.items() <= whole.items()
