"""Damaged kernel texts, and what may be read from them."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from hypothesis import strategies as st

from belatwist.errors import ParseError

FIXTURES = Path(__file__).parent.parent / "fixtures"
Parsed = TypeVar("Parsed")

DAMAGED_NUMBERS = ["-{}", "+{}", "{}_0", "{}x", " {}", "{},5", "\u0661", "", "nan", "inf", "1e5"]
"""Formats that turn a number into something that the kernel would not write."""

_EDGES = [
    b"",
    b"\0",
    b"-",
    b"+",
    b"_",
    b" ",
    b"\n",
    b":",
    b".",
    b"9" * 25,
    b"x",
    b"\xff",
    b"\xd9\xa1",
]


def files(name: str) -> list[bytes]:
    """Return the fixtures of a name (``proc/stat``), of all boards and variants."""
    return [path.read_bytes() for path in sorted(FIXTURES.glob(f"**/{name}"))]


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Draw a text in which up to five short pieces are replaced, and which may be cut."""
    text = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        piece = draw(st.sampled_from(_EDGES) | st.binary(max_size=6))
        text = text[:start] + piece + text[start + length :]
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


def damaged(originals: list[bytes]) -> st.SearchStrategy[bytes]:
    """Draw arbitrary bytes, lines of plausible tokens, and mutated originals."""
    token = st.sampled_from(
        [b"cpu0", b"cpu", b"eth0:", b"sda", b"MemTotal:", b"kB", b"0.5", b"1/2"]
    )
    word = token | st.integers(-1, 2**65).map(lambda n: str(n).encode()) | st.binary(max_size=8)
    line = st.lists(word, max_size=24).map(b" ".join)
    lines = st.lists(line, max_size=8).map(lambda parts: b"".join(p + b"\n" for p in parts))
    return st.binary(max_size=300) | lines | mutated(originals)


def attempt(parse: Callable[[bytes], Parsed], text: bytes) -> Parsed | None:
    """Parse, allowing no exception but ParseError, whose text must be one short line."""
    try:
        return parse(text)
    except ParseError as error:
        message = str(error)
    assert len(message) < 200
    assert message.isprintable()
    return None


def assert_whole(parse: Callable[[bytes], object], content: bytes) -> None:
    """Assert that a file of a single line is an error when it is cut at any byte, or repeated."""
    parse(content)
    for end in range(len(content)):
        assert attempt(parse, content[:end]) is None
    assert attempt(parse, content + content) is None


def tokens(text: bytes) -> set[int]:
    """Return the numbers that are whole tokens in the complete lines of a text."""
    complete = text[: text.rfind(b"\n") + 1]
    return {int(t) for t in re.findall(rb"(?<![^\s:])[0-9]{1,20}(?=\s)", complete)}


def assert_skipped(skipped: Iterable[str]) -> None:
    """A report of dropped lines is short and printable."""
    listed = list(skipped)
    assert len(listed) <= 6
    assert all(len(line) <= 80 and line.isprintable() for line in listed)
