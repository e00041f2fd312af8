"""Durations have Go's syntax; each type of value accepts only what its description says."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.config.values import duration, format_duration

UNITS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("+5s", 5.0),
        ("1m1m", 120.0),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("1ns", 1e-9),
        ("1h15m30.918273645s", 4530.918273645),
        ("0.000000001s", 1e-9),
        ("0s1ms", 0.001),
        ("2540400h10m10.000000000s", 9145440610.0),
    ],
)
def test_duration_reads_what_go_reads(text: str, seconds: float) -> None:
    """A text that Go's ParseDuration accepts means the same number of seconds here."""
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "3", "-5s", "0s", "s", ".s", "+", "+.s", "1", "1 s", " 1s", "1s ", "1S", "1d"),
        *("1.1.1s", "1e3s", "1_0s", "one", "1s2", "--1s", "+-1s", "inf", "nan", "٣s", "1h-30m"),
        *("2562048h", "0.0000000001s", "9" * 70 + "s", "1ss"),
    ],
)
def test_duration_refuses_the_rest(text: str) -> None:
    """A duration that Go refuses or cannot hold, or that is not positive, is refused."""
    with pytest.raises(ValueError, match="not a positive duration"):
        duration(text)


@given(
    st.lists(
        st.tuples(st.integers(0, 9999), st.sampled_from(sorted(UNITS_NS))), min_size=1, max_size=4
    ).filter(lambda parts: any(count for count, _ in parts))
)
def test_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    """A duration is the sum of its parts, in any order and with any unit twice."""
    text = "".join(f"{count}{unit}" for count, unit in parts)
    assert duration(text) == sum(count * UNITS_NS[unit] for count, unit in parts) / 10**9


@given(st.integers(1, 10**15))
def test_a_duration_survives_being_written(ns: int) -> None:
    """Up to eleven days, reading a written duration gives the same nanoseconds."""
    assert duration(format_duration(ns / 10**9)) == ns / 10**9


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """Any text gives a positive duration or a ``ValueError``."""
    with contextlib.suppress(ValueError):
        assert duration(text) > 0


def test_written_durations_are_short() -> None:
    """Units that are zero are left out."""
    written = [format_duration(seconds) for seconds in (60.0, 5400.0, 0.1, 86400.0, 61.5)]
    assert written == ["1m", "1h30m", "100ms", "24h", "1m1s500ms"]
