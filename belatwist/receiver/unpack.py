"""Bounded unpacking of request bodies, a piece at a time, and the errors of a body."""

import zlib
from collections.abc import Iterator

from belatwist.errors import BelaError
from belatwist.text import escape, shorten

PIECE_BYTES = 32 * 1024
"""The most bytes that one step unpacks."""

_FEED_BYTES = 16 * 1024
_GZIP_WBITS = 16 + zlib.MAX_WBITS


class BadBodyError(BelaError):
    """A request body is invalid; nothing of it may be kept.

    :param reason: the fault, one bounded line.
    :param line: the number of the bad line, from 1; ``None`` when the whole body is at fault.
    :ivar status: the HTTP status of the answer.
    """

    status = 400

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


class BodyTooLargeError(BadBodyError):
    """The body, or a line of it, is longer than the limit."""

    status = 413


class UnknownEncodingError(BadBodyError):
    """The ``Content-Encoding`` is neither absent, ``identity`` nor ``gzip``.

    The comparison is exact: VictoriaMetrics takes ``GZIP`` or ``x-gzip`` for plain text and loses
    the body.
    """

    status = 415


def unpack(body: bytes, encoding: str, limit: int) -> Iterator[bytes]:
    """Undo the content encoding in pieces of at most :data:`PIECE_BYTES`; some may be empty.

    :param limit: the most bytes to yield.
    :raises UnknownEncodingError: if the encoding is unknown.
    :raises BodyTooLargeError: if the body has more bytes; at most one piece beyond the limit was
        unpacked.
    :raises BadBodyError: if the gzip data are broken, cut short or followed by other data.
    """
    if encoding == "gzip":
        pieces = _gunzip(body)
    elif encoding in ("", "identity"):
        pieces = (body[at : at + PIECE_BYTES] for at in range(0, len(body), PIECE_BYTES))
    else:
        raise UnknownEncodingError(f"Content-Encoding {quote(encoding)} is not known here")
    unpacked = 0
    for piece in pieces:
        unpacked += len(piece)
        if unpacked > limit:
            raise BodyTooLargeError(f"the body unpacks to more than {limit} bytes")
        yield piece


def quote(text: str, limit: int = 40) -> str:
    """Quote a text from a client for the log or an answer: printable, and on one line.

    :param limit: the most characters between the quotes.
    """
    return f"'{shorten(escape(text[: limit + 1]), limit)}'"


def _gunzip(body: bytes) -> Iterator[bytes]:
    """Unpack gzip data of one or more members (RFC 1952 section 2.2).

    zlib gets the input in small slices, because it returns a copy of the unused input. A copy of
    the whole rest for each member or piece would be quadratic. Small members share a piece,
    because a step for each would cost far more than its unpacking.
    """
    view = memoryview(body)
    piece = bytearray()
    position = piece_start = 0
    while True:
        member = zlib.decompressobj(wbits=_GZIP_WBITS)
        while not member.eof:
            feed = view[position : position + _FEED_BYTES]
            try:
                unpacked = member.decompress(feed, PIECE_BYTES - len(piece))
            except zlib.error as error:
                raise BadBodyError(f"the gzip data are broken: {error}") from error
            if not feed and not unpacked and not member.eof:
                raise BadBodyError("the gzip data are cut short")
            # At its end a member may have the same rest in unconsumed_tail as well.
            unused = member.unused_data if member.eof else member.unconsumed_tail
            position += len(feed) - len(unused)
            piece += unpacked
            if len(piece) == PIECE_BYTES or position - piece_start >= _FEED_BYTES:
                yield bytes(piece)
                piece.clear()
                piece_start = position
        if position == len(body):
            yield bytes(piece)
            return
