"""Output for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.cli import output


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12_900_000, "12.3 MiB"),
        (2**40, "1024.0 GiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    """A size has the unit that makes its number short."""
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_401, "1 d"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    """A length of time has its two largest units, and no zeros."""
    assert output.span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (5.0, "5"),
        (0.5, "0.500"),
        (96.96969, "96.970"),
        (1e-9, "1e-09"),
        (1e300, "1e+300"),
        ("up", "up"),
    ],
)
def test_numbers(value: object, text: str) -> None:
    """Whole numbers are exact; fractions are short."""
    assert output.number(value) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_time_is_written(unix_ms: int) -> None:
    """A time beyond the calendar raises nothing."""
    assert output.local(unix_ms)
    assert output.utc(unix_ms) == "" or output.utc(unix_ms).endswith("Z")


def test_a_known_time() -> None:
    """RFC 3339, milliseconds, UTC."""
    assert output.utc(1_767_225_600_370) == "2026-01-01T00:00:00.370Z"


def test_a_column_widens_and_stays() -> None:
    """Later rows are aligned with the widest cell so far."""
    columns = output.Columns((2, 3), right=(1,))
    assert columns.line(("a", "1")) == "a     1"
    assert columns.line(("abc", "1234")) == "abc  1234"
    assert columns.line(("a", "1")) == "a       1"
