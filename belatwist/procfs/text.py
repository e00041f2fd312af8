"""Functions that several parsers share: lines, numbers, names, and short quotations for the log."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Row = TypeVar("Row")

U64_MAX = 2**64 - 1
"""The kernel's counters are at most 64 bits wide; anything larger was not written by it."""

DIGITS = rb"[0-9]{1,20}"
"""A pattern of a decimal number: as many digits as :data:`U64_MAX` has."""

_QUOTED_LINES = 5
_QUOTED_CHARACTERS = 80


def lines(text: bytes) -> tuple[list[bytes], list[bytes]]:
    """Split a text at its newlines.

    :return: the complete lines without their newlines, except empty lines; and the unusable lines,
        which are the piece behind the last newline, if any.
    """
    complete = text.split(b"\n")
    tail = complete.pop()
    return [line for line in complete if line], [tail] if tail else []


def numbers(tokens: Iterable[bytes]) -> tuple[int, ...] | None:
    """Convert tokens that matched :data:`DIGITS`.

    :return: the numbers, or ``None`` when any is beyond :data:`U64_MAX`.
    """
    values = tuple(map(int, tokens))
    return None if max(values) > U64_MAX else values


def table(
    pattern: re.Pattern[bytes],
    complete: Iterable[bytes],
    make: Callable[[Iterable[int]], Row],
    unusable: list[bytes],
) -> dict[str, Row]:
    """Read the rows of a table.

    :param pattern: matches a whole line; its first group is the row's name, the others are numbers.
    :param complete: the lines of the table.
    :param make: makes a row from its numbers.
    :param unusable: receives the lines that do not match, and those whose name an earlier line has.
    :return: the rows by name, in the kernel's order.
    """
    rows: dict[str, Row] = {}
    for line in complete:
        match = pattern.fullmatch(line)
        values = numbers(match.groups()[1:]) if match else None
        if match is None or values is None or (key := name(match[1])) in rows:
            unusable.append(line)
        else:
            rows[key] = make(values)
    return rows


def name(token: bytes) -> str:
    """Decode a name; a byte that is not UTF-8 becomes an escape, so that it can be stored."""
    return token.decode("utf-8", "backslashreplace")


def quote(piece: bytes) -> str:
    """Quote a piece of kernel text on one printable line of at most 80 characters."""
    quoted = repr(piece[:_QUOTED_CHARACTERS])[2:-1]
    cut = len(piece) > _QUOTED_CHARACTERS or len(quoted) > _QUOTED_CHARACTERS
    return f"{quoted[: _QUOTED_CHARACTERS - 1]}…" if cut else quoted


def quote_lines(unusable: Sequence[bytes]) -> tuple[str, ...]:
    """Quote the lines that a parser left out: the first five, and how many more there were."""
    quoted = tuple(map(quote, unusable[:_QUOTED_LINES]))
    more = len(unusable) - _QUOTED_LINES
    return (*quoted, f"… and {more} more") if more > 0 else quoted
