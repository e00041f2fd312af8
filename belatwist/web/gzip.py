"""Compression of answers, for clients that accept it."""

import re
import zlib
from typing import Any

from twisted.web.iweb import IRequest

_MIN_BYTES = 500
GZIP_CHUNK = 64 * 1024
"""Bytes that one turn of the reactor compresses; this takes some 3 ms on a desktop's core."""

# RFC 9110, section 12.5.3; a quality of 0 means "not that".
_GZIP = re.compile(rb"(?i)(?:^|,)\s*gzip\s*(?:$|,|;\s*q=(?:1|0?\.0*[1-9]))")


class GzipEncoder:
    """Compresses a body with gzip if the client accepts that and the body is large enough.

    It compresses a piece at a time, so that a large body does not hold up the reactor.
    """

    def __init__(self, request: IRequest, body: bytes) -> None:
        self._request = request
        self._body = body
        self._at = 0
        self._compressed: list[bytes] = []
        self._compressor: Any = None
        accepted = request.getHeader(b"Accept-Encoding") or b""
        if len(body) >= _MIN_BYTES and _GZIP.search(accepted):
            # 31 is the largest window and a gzip header (zlib.h, deflateInit2).
            self._compressor = zlib.compressobj(wbits=31)

    def advance(self) -> bool:
        """Compress the next piece.

        :return: whether more pieces are left.
        """
        if self._compressor is None:
            return False
        piece = self._body[self._at : self._at + GZIP_CHUNK]
        self._at += len(piece)
        self._compressed.append(self._compressor.compress(piece))
        return self._at < len(self._body)

    def result(self) -> bytes:
        """Return the body for the client, and set the headers that describe it."""
        self._request.setHeader(b"Vary", b"Accept-Encoding")
        if self._compressor is None:
            return self._body
        self._request.setHeader(b"Content-Encoding", b"gzip")
        return b"".join((*self._compressed, self._compressor.flush()))


def gzip_body(request: IRequest, body: bytes) -> bytes:
    """Compress a body at once; see :class:`GzipEncoder`."""
    encoder = GzipEncoder(request, body)
    while encoder.advance():
        pass
    return encoder.result()
