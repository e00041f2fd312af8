"""Bounded unpacking of request bodies, a piece at a time, and what can be wrong with a body."""

import zlib
from collections.abc import Iterator

from belatwist.errors import BelaError
from belatwist.text import escape, shorten

PIECE_BYTES = 32 * 1024
"""Most that one step unpacks."""

_FEED_BYTES = 16 * 1024
_GZIP_WBITS = 16 + zlib.MAX_WBITS


class BadBodyError(BelaError):
    """A request body that cannot be taken; nothing of it may be kept.

    :param reason: what is wrong, one bounded line.
    :param line: number of the offending line, from 1; ``None`` when it is not about one line.
    :ivar status: the HTTP status that says so.
    """

    status = 400

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")
        self.reason = reason
        self.line = line


class TooLargeError(BadBodyError):
    """The body, or a line of it, is longer than the receiver takes."""

    status = 413


class UnknownEncodingError(BadBodyError):
    """The ``Content-Encoding`` is neither absent, ``identity`` nor ``gzip``.

    The comparison is exact: VictoriaMetrics takes ``GZIP`` or ``x-gzip`` for plain text and loses
    the body.
    """

    status = 415


def unpack(body: bytes, encoding: str, limit: int) -> Iterator[bytes]:
    """Undo the content encoding in pieces of at most :data:`PIECE_BYTES`; some may be empty.

    :param limit: most bytes to give out.
    :raises UnknownEncodingError: if the encoding is not known.
    :raises TooLargeError: if there are more bytes; at most one piece over the limit was unpacked.
    :raises BadBodyError: if the gzip data are broken, cut short or followed by something else.
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
            raise TooLargeError(f"the body unpacks to more than {limit} bytes")
        yield piece


def quote(text: str, limit: int = 40) -> str:
    """Quote a text from a client for the log or an answer: printable, and on one line.

    :param limit: the most characters between the quotes.
    """
    return f"'{shorten(escape(text[: limit + 1]), limit)}'"


def _gunzip(body: bytes) -> Iterator[bytes]:
    """Unpack gzip data of one or more members (RFC 1952 section 2.2).

    The input is fed in small slices, because zlib hands back a copy of what it did not use: one
    copy of the whole rest for each member or piece would be quadratic. Small members share a
    piece, because a step for each would cost far more than its unpacking.
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
