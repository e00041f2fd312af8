"""The functions that parsers share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.procfs import text


@pytest.mark.parametrize(
    ("content", "complete", "tail"),
    [
        (b"", [], []),
        (b"\n\n", [], []),
        (b"a\nb\n", [b"a", b"b"], []),
        (b"a\n\nb", [b"a"], [b"b"]),
        (b"a", [], [b"a"]),
    ],
)
def test_only_a_newline_completes_a_line(
    content: bytes, complete: list[bytes], tail: list[bytes]
) -> None:
    """The piece behind the last newline may be cut; empty lines are dropped."""
    assert text.lines(content) == (complete, tail)


@pytest.mark.parametrize(
    ("tokens", "values"),
    [
        ([b"0", b"18446744073709551615"], (0, 2**64 - 1)),
        ([b"0", b"18446744073709551616"], None),
        ([b"99999999999999999999"], None),
    ],
)
def test_numbers_have_64_bits(tokens: list[bytes], values: tuple[int, ...] | None) -> None:
    """A number beyond the kernel's counters spoils its line."""
    assert text.numbers(tokens) == values


@given(st.binary(max_size=300))
def test_a_quotation_is_short_and_printable(piece: bytes) -> None:
    """Nothing that the kernel wrote can break a line of the log or fill it."""
    quoted = text.quote(piece)
    assert len(quoted) <= 80
    assert quoted.isprintable()


@given(st.binary(max_size=30))
def test_a_name_can_always_be_stored(token: bytes) -> None:
    """Bytes that are not UTF-8 are escaped, never replaced by lone surrogates."""
    text.name(token).encode("utf-8")


def test_a_handful_of_lines_is_quoted() -> None:
    """The first five are quoted, the others counted."""
    assert text.quote_lines([]) == ()
    assert text.quote_lines([b"a"] * 5) == ("a",) * 5
    assert text.quote_lines([b"a"] * 7) == (*("a",) * 5, "… and 2 more")
