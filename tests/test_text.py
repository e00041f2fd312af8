"""Text from outside is made safe for a terminal, a line and a document, and stays readable."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.text import counted, escape, first_of, one_line, shorten
from tests.strategies import anything, texts

KEPT = "\r\n\t"

HOSTILE = [
    ("\0", r"\u0000"),  # ends a C string
    ("\x1b[31m", r"\u001b[31m"),  # ANSI: red
    ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),  # ANSI: a window's title
    ("\x7f\b", r"\u007f\b"),  # take back what was shown
    ("\x9b31m", r"\u009b31m"),  # C1: what ESC [ is in one character
    ("\x85\u2028\u2029", r"\u0085\u2028\u2029"),  # line breaks besides the usual ones
    ("a\r\nb\tc", r"a\r\nb\tc"),
    ("\u202egpj.exe\u2066\u200f", r"\u202egpj.exe\u2066\u200f"),  # bidi: reorders what follows
    ("\u200b\ufeff\u00ad", r"\u200b\ufeff\u00ad"),  # not visible at all
    ("\ud800", r"\ud800"),  # half a surrogate pair, which UTF-8 cannot hold
    ("\udcff", r"\udcff"),  # a byte of a file name that is no UTF-8
    ("\U000e0041", r"\udb40\udc41"),  # a tag, not visible, as JSON spells it
    ("\xa0", r"\u00a0"),  # a space that is none
]

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_what_could_steer_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    """A control character, a half surrogate or an invisible one becomes its JSON escape."""
    assert escape(text) == shown
    assert escape(f"ü{text}€") == f"ü{shown}€"


@given(anything)
def test_an_escaped_text_is_printable(text: str) -> None:
    """The result is printable and can be encoded; a printable text stays as it is."""
    shown = escape(text)
    assert shown.isprintable()
    shown.encode()
    assert escape(shown) == shown
    assert not text.isprintable() or shown == text


@given(anything)
def test_what_is_to_be_kept_is_kept(text: str) -> None:
    """Only the characters that are named stay besides those that are printable."""
    shown = escape(text, keep=KEPT)
    shown.encode()
    assert [c for c in shown if not c.isprintable()] == [c for c in text if c in KEPT]


@given(documents, st.sampled_from([None, 1, "\t"]))
def test_a_document_stays_the_same(document: object, indent: int | str | None) -> None:
    """What is escaped within a JSON document is the same document for a program."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    assert json.loads(escape(text, keep=KEPT)) == document


@given(anything)
def test_a_line_is_one_line(text: str) -> None:
    """White space becomes single spaces, and everything else is as escape() has it."""
    line = one_line(text)
    assert line.isprintable()
    assert line == escape(" ".join(text.split()))
    assert "  " not in line
    assert line.strip() == line


@given(anything | st.text("\0 \n", max_size=60), st.integers(2, 20))
def test_a_line_is_bounded(text: str, limit: int) -> None:
    """It has at most so many characters, also where each becomes six."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    if len(text) <= 4 * limit:
        assert line == shorten(one_line(text), limit)


def test_a_line_of_a_huge_text() -> None:
    """What cannot be shown costs no time, and an ellipsis says that there is more."""
    assert one_line("x" * 10_000_000, 10) == "xxxxxxxxx…"


@given(anything, st.integers(2, 20))
def test_a_text_is_shortened(text: str, limit: int) -> None:
    """A short text stays; of a long one the beginning or the end is left, and a mark of the cut."""
    start, end = shorten(text, limit), shorten(text, limit, end=True)
    if len(text) <= limit:
        assert start == end == text
    else:
        assert len(start) == len(end) == limit
        assert (start[-1], end[0]) == ("…", "…")
        assert text.startswith(start[:-1])
        assert text.endswith(end[1:])


@given(st.lists(st.text(max_size=3), max_size=9), st.integers(1, 9))
def test_the_first_of_many(items: list[str], limit: int) -> None:
    """All of them within the limit; otherwise the first, and how many more there are."""
    found = first_of(items, limit)
    if len(items) <= limit:
        assert found == tuple(items)
    else:
        assert found == (*items[:limit], f"… and {len(items) - limit} more")


def test_a_counted_noun() -> None:
    """It is in the singular for one thing only."""
    assert [counted(n, "sample") for n in (0, 1, 2)] == ["0 samples", "1 sample", "2 samples"]
