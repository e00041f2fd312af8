"""Text from outside the program, made safe to show: names, errors, answers of servers."""

import json


def escape(text: str, keep: str = "") -> str:
    r"""Replace each character that is not printable by its JSON escape (``\u001b``).

    Such a character could steer a terminal or break a line, and half a surrogate pair cannot be
    encoded. A JSON document stays the same document.

    :param keep: characters that stay as they are, such as the line breaks of a document.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def one_line(text: str, limit: int | None = None) -> str:
    """Return a text on one line: a space for each run of white space, then as :func:`escape`.

    :param limit: the most characters of the result; a longer text ends with an ellipsis.
    """
    # Of a text of a megabyte no more is looked at than can be shown.
    piece = text if limit is None else text[: 4 * limit]
    line = escape(" ".join(piece.split()))
    return line if limit is None else shorten(line, limit)


def shorten(text: str, limit: int, *, end: bool = False) -> str:
    """Cut a text to a number of characters; an ellipsis marks the cut.

    :param limit: the most characters of the result, at least two.
    :param end: whether to keep the end of the text instead of its beginning.
    """
    if len(text) <= limit:
        return text
    return f"…{text[1 - limit :]}" if end else f"{text[: limit - 1]}…"
