"""The parsers' work grows with the size of a text, not with its square.

A text of the largest size that the reader lets through may be hostile. Two facts bound the work: a
parser gives each byte to its pattern once, and a pattern never goes back over an unbounded run.
"""

import re
from collections.abc import Callable, Iterable
from re import _parser as sre  # type: ignore[attr-defined] # the standard library's own reading
from types import ModuleType
from typing import Any

import pytest

from belatwist.collectors import cpu, disk, interfaces, load, memory, netdev, thermal, uptime
from tests.collectors import kernel_texts
from tests.collectors.test_network import HEADER

SIZE = 64 * 1024
ANY = frozenset(range(256))
MODULES = [cpu, disk, interfaces, load, memory, netdev, thermal, uptime]
PARSERS: list[Callable[[bytes], object]] = [
    cpu.parse,
    memory.parse,
    disk.parse,
    netdev.parse,
    load.parse,
    uptime.parse,
    lambda content: thermal.parse_temperature(content, ""),
    lambda content: thermal.parse_type(content, ""),
]
HEADS = [b"", b"cpu0 ", b"MemTotal: ", b"1 1 a ", HEADER, HEADER + b"a: "]
PIECES = [
    b"\n",
    b" ",
    b"9",
    b"9 ",
    b"\0",
    b"a:",
    b"cpu0 1 2 3 4 5 6 7 8 ",
    b"cpu0 1 2 3 4 5 6 7 8\n",
    b"MemTotal: 1 kB\n",
    b"1 1 sda 1 1 1 1 1 1 1 1 1 1 1 ",
    b"1 1 sda 1 1 1 1 1 1 1 1 1 1 1\n",
    b"eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
]


class Counting:
    """A pattern that counts the bytes it is given."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.given = 0

    def fullmatch(self, text: bytes) -> re.Match[bytes] | None:
        self.given += len(text)
        return self._pattern.fullmatch(text)


def patterns(module: ModuleType) -> dict[str, re.Pattern[bytes]]:
    """Give the patterns that a module applies to kernel texts."""
    found = {name: value for name, value in vars(module).items() if isinstance(value, re.Pattern)}
    return {name: pattern for name, pattern in found.items() if isinstance(pattern.pattern, bytes)}


@pytest.mark.parametrize("piece", PIECES)
def test_each_byte_is_matched_once(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of repetition is read or refused, and no pattern sees more than the text."""
    counting = []
    for module in MODULES:
        for name, pattern in patterns(module).items():
            counting.append(Counting(pattern))
            monkeypatch.setattr(module, name, counting[-1])
    for head in HEADS:
        content = (head + piece * SIZE)[: SIZE - 1] + b"\n"
        for parse in PARSERS:
            kernel_texts.attempt(parse, content)
            assert max(one.given for one in counting) <= len(content)
            for one in counting:
                one.given = 0


def characters(items: Iterable[tuple[Any, Any]]) -> frozenset[int]:
    """Give the bytes that a set of a pattern (``[^a-z]``) allows."""
    found: frozenset[int] = frozenset()
    negated = False
    for kind, value in items:
        if kind is sre.NEGATE:
            negated = True
        elif kind is sre.LITERAL:
            found |= {value}
        elif kind is sre.RANGE:
            found |= set(range(value[0], value[1] + 1))
        else:
            assert (kind, value) == (sre.CATEGORY, sre.CATEGORY_SPACE)
            found |= set(b" \t\n\r\f\v")
    return ANY - found if negated else found


def first(
    items: Iterable[tuple[Any, Any]], then: frozenset[int], *, within: bool = False
) -> frozenset[int]:
    """Give the bytes with which a match of a sequence can begin; ``then`` where it can be empty.

    The function refuses an unbounded repetition that may continue or end at the same byte. Only
    there can a matcher go back over an unbounded run.

    :param then: the bytes that can follow the sequence.
    :param within: whether the sequence itself is repeated without a bound.
    """
    for kind, value in reversed(list(items)):
        if kind is sre.LITERAL:
            then = frozenset({value})
        elif kind is sre.NOT_LITERAL:
            then = ANY - {value}
        elif kind is sre.IN:
            then = characters(value)
        elif kind is sre.SUBPATTERN:
            then = first(value[3], then, within=within)
        elif kind is sre.BRANCH:
            ways = [first(one, then, within=within) for one in value[1]]
            then = frozenset[int]().union(*ways)
            assert not within or sum(map(len, ways)) == len(then), f"{value} has two ways"
        else:
            assert kind is sre.MAX_REPEAT
            least, most, inner = value
            unbounded = within or most is sre.MAXREPEAT
            begins = first(inner, then)
            if unbounded and least != most:
                assert not begins & then, f"{inner} repeats and may be followed by the same"
            begins = first(inner, then if most == 1 else begins | then, within=unbounded)
            then = begins if least else begins | then
    return then


def check(pattern: bytes) -> None:
    """Refuse a pattern that can go back over an unbounded run."""
    first(sre.parse(pattern), frozenset())


@pytest.mark.parametrize("module", MODULES)
def test_no_pattern_goes_back(module: ModuleType) -> None:
    """At each byte an unbounded repetition either goes on or is over, never both."""
    assert patterns(module)
    for pattern in patterns(module).values():
        check(pattern.pattern)


@pytest.mark.parametrize(
    "pattern", [rb" * x* *y", rb"(?: *9*)*z", rb"[0-9]+[0-9]", rb"[^:]+\s*:", rb"(?:9{1,2})*"]
)
def test_a_pattern_that_goes_back_is_refused(pattern: bytes) -> None:
    """The check has teeth: each of these is quadratic, or worse, on some text."""
    with pytest.raises(AssertionError, match="may be followed by the same"):
        check(pattern)
