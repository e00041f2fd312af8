"""Makes text from outside the program safe to show: names, errors, answers of servers."""

import json
from collections.abc import Sequence


def escape(text: str, keep: str = "") -> str:
    r"""Replace each character that is not printable by its JSON escape (``\u001b``).

    Such a character could control a terminal or break a line, and half a surrogate pair cannot be
    encoded. The result of escaping a JSON document is the same document.

    :param keep: further characters that stay, such as the line breaks of a document.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def one_line(text: str, limit: int | None = None) -> str:
    """Return a text as one line: each run of white space is a space, the rest as in :func:`escape`.

    :param limit: maximum number of characters of the result; a cut text ends with an ellipsis.
    """
    # A text may have a megabyte, of which only the beginning can be shown.
    piece = text if limit is None else text[: 4 * limit]
    line = escape(" ".join(piece.split()))
    return line if limit is None else shorten(line, limit)


def shorten(text: str, limit: int, *, end: bool = False) -> str:
    """Cut a text to a number of characters; an ellipsis marks the cut.

    :param limit: maximum number of characters of the result, at least two.
    :param end: whether to keep the end of the text instead of its beginning.
    """
    if len(text) <= limit:
        return text
    return f"…{text[1 - limit :]}" if end else f"{text[: limit - 1]}…"


def counted(number: int, noun: str) -> str:
    """Return a number and what it counts: "1 sample", "2 samples".

    :param noun: in the singular; its plural ends with "s".
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Listed(tuple[str, ...]):
    """Texts that a line of the log shows with semicolons between them; a list in JSON."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the texts in one line."""
        return "; ".join(map(escape, self))


def first_of(items: Sequence[str], limit: int) -> tuple[str, ...]:
    """Return the first items, and behind them how many more there are, if any.

    :param limit: maximum number of items, without the last one that counts the others.
    """
    more = len(items) - limit
    return (*items[:limit], f"… and {more} more") if more > 0 else tuple(items)
