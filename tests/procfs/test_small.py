"""The parsers of the files that hold one line: loadavg, uptime and the thermal zones."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.errors import ParseError
from belatwist.procfs import loadavg, thermal, uptime
from tests.procfs import strategies

DAMAGED_NUMBERS = ["-{}", "+{}", "{}_0", "{}x", " {}", "{},5", "\u0661", "", "nan", "inf", "1e5"]


def temperature(content: bytes) -> int:
    """Parse as the file of a zone."""
    return thermal.parse_temperature(content, "/sys/zone/temp")


def zone_type(content: bytes) -> str:
    """Parse as the file of a zone."""
    return thermal.parse_type(content, "/sys/zone/type")


def test_the_board() -> None:
    """The fixtures read as they stand."""
    board = strategies.FIXTURES / "orangepi5plus"
    assert loadavg.parse((board / "proc/loadavg").read_bytes()) == (1.84, 1.71, 1.62)
    assert uptime.parse((board / "proc/uptime").read_bytes()) == 5821.37
    zone = board / "sys/class/thermal/thermal_zone0"
    assert temperature((zone / "temp").read_bytes()) == 51769
    assert zone_type((zone / "type").read_bytes()) == "soc-thermal"


@pytest.mark.parametrize("form", DAMAGED_NUMBERS)
def test_a_damaged_number_is_an_error(form: str) -> None:
    """Only what the kernel writes is a number."""
    one = form.format("1.84").encode()
    for position in range(3):
        parts = [b"1.84", b"1.71", b"1.62", b"2/431", b"8123"]
        parts[position] = one
        with pytest.raises(ParseError, match=r"^/proc/loadavg: "):
            loadavg.parse(b" ".join(parts) + b"\n")
    with pytest.raises(ParseError, match=r"^/proc/uptime: "):
        uptime.parse(one + b" 37459.90\n")
    with pytest.raises(ParseError, match=r"^/sys/zone/temp: "):
        temperature(form.format("1.84").encode() + b"\n")
    if form != "-{}":
        with pytest.raises(ParseError, match=r"^/sys/zone/temp: "):
            temperature(form.format("51769").encode() + b"\n")


@pytest.mark.parametrize(
    ("parse", "content"),
    [
        (loadavg.parse, b"1.84 1.71 1.62 2/431 8123\n"),
        (uptime.parse, b"5821.37 37459.90\n"),
        (temperature, b"51769\n"),
        (zone_type, b"soc-thermal\n"),
    ],
)
def test_a_cut_line_is_an_error(parse: Callable[[bytes], object], content: bytes) -> None:
    """Cut at any byte, or followed by anything, nothing is read."""
    parse(content)
    for end in range(len(content)):
        with pytest.raises(ParseError):
            parse(content[:end])
    with pytest.raises(ParseError):
        parse(content + content)


@given(strategies.damaged(strategies.files("proc/loadavg")))
def test_damage_never_makes_a_load(text: bytes) -> None:
    """Whatever is read stands in the text."""
    reading = strategies.attempt(loadavg.parse, text)
    if reading is not None:
        assert tuple(map(float, text.split()[:3])) == reading


@given(strategies.damaged(strategies.files("proc/uptime")))
def test_damage_never_makes_an_uptime(text: bytes) -> None:
    """Whatever is read stands in the text."""
    reading = strategies.attempt(uptime.parse, text)
    if reading is not None:
        assert float(text.split()[0]) == reading


@given(strategies.damaged([b"51769\n", b"-1000\n"]))
def test_damage_never_makes_a_temperature(text: bytes) -> None:
    """Whatever is read is the text."""
    reading = strategies.attempt(temperature, text)
    if reading is not None:
        assert int(text) == reading


@given(st.binary(max_size=100) | st.text(max_size=30).map(lambda t: t.encode() + b"\n"))
def test_damage_never_makes_an_empty_type(text: bytes) -> None:
    """A type is a storable, non-empty name without a line break."""
    reading = strategies.attempt(zone_type, text)
    if reading is not None:
        assert reading.strip() == reading != ""
        assert "\n" not in reading
        reading.encode()


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"0\n", 0), (b"-5000\n", -5000), (b"2600\n", 2600), (b"2147483647\n", 2**31 - 1)],
)
def test_implausible_temperatures_are_passed_on(content: bytes, value: int) -> None:
    """The kernel's word is not second-guessed."""
    assert temperature(content) == value


@pytest.mark.parametrize("content", [b"-274000\n", b"-300000\n", b"2147483648\n", b"9999999999\n"])
def test_the_mark_of_no_reading_is_an_error(content: bytes) -> None:
    """Below absolute zero the kernel says that it has no reading; beyond int it says nothing."""
    with pytest.raises(ParseError, match="is no reading"):
        temperature(content)


@pytest.mark.parametrize("content", [b"\n", b"  \n", b"a\0b\n", b"a\nb\n", b"x" * 65 + b"\n"])
def test_a_type_is_one_short_line(content: bytes) -> None:
    """Anything else would make a bad label."""
    with pytest.raises(ParseError, match="is not a type"):
        zone_type(content)


def test_a_type_may_hold_spaces() -> None:
    """As on Intel's boards."""
    assert zone_type(b"INT3400 Thermal\n") == "INT3400 Thermal"
