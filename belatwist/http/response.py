"""Reads a server's answer within bounds, whatever the server sends."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from belatwist.http.failures import redact
from belatwist.text import one_line, shorten

MAX_BYTES = 16 * 1024
"""A longer answer is cut off. The import endpoint answers with an empty body."""

_KEPT_BYTES = 8 * 1024  # More than the excerpt, so that no secret is cut in two.
_EXCERPT = 300
_LONGEST_TYPE = 60
_LONGEST_LOCATION = 150


class BoundedBody(Protocol):
    """Receives a body and keeps its beginning.

    :param limit: bytes after which the rest is cut off.
    :param kept: bytes that are kept.
    :ivar size: bytes received.
    :ivar too_long: whether the body was longer than the limit, and the rest was cut off.
    :ivar finished: fires when the body is complete or too long, and fails when the connection ends
        before. Cancelling it closes the connection.
    """

    def __init__(self, limit: int = MAX_BYTES, kept: int = _KEPT_BYTES) -> None:
        self.size = 0
        self.too_long = False
        self._limit = limit
        self._kept = kept
        self._start = bytearray()
        self.finished: Deferred[None] = Deferred(lambda _: self._cut())

    @property
    def start(self) -> bytes:
        """The bytes that are kept."""
        return bytes(self._start)

    def dataReceived(self, data: bytes) -> None:
        """Receive a piece of the body."""
        self.size += len(data)
        self._start += data[: self._kept - len(self._start)]
        if self.size > self._limit and not self.finished.called:
            self.too_long = True
            self.finished.callback(None)
            self._cut()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fire :attr:`finished` at the end of the body or of the connection."""
        if self.finished.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.finished.callback(None)
        else:
            self.finished.errback(reason)

    def excerpt(self, secrets: Iterable[str]) -> str:
        """Return the beginning on one line.

        :param secrets: texts that must not be in it, even if the server repeats them.
        """
        text = one_line(self._start.decode("utf-8", "replace"))
        return redact(text, secrets)[:_EXCERPT]

    def _cut(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()


def media_type(response: IResponse, secrets: Iterable[str]) -> str:
    """Return the media type of an answer in lower case, without parameters; empty for none.

    :param secrets: texts that must not be in it, even if the server repeats them.
    """
    kind = (header(response, b"content-type") or "").partition(";")[0]
    return shorten(redact(one_line(kind), secrets).lower(), _LONGEST_TYPE)


def redirect(response: IResponse, secrets: Iterable[str]) -> str:
    """Return where an answer redirects, without a login, a query and a fragment.

    :param secrets: texts that must not be in it, even if the server repeats them.
    :return: empty when the answer does not say it, or not in a readable way.
    """
    location = header(response, b"location") or ""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    path = parts.path.partition(";")[0]
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))
    return shorten(redact(one_line(shown), secrets), _LONGEST_LOCATION)


def header(response: IResponse, name: bytes) -> str | None:
    """Return the first header of a name, whatever bytes it has; ``None`` if there is none."""
    found = response.headers.getRawHeaders(name)
    return found[0].decode("latin-1") if found else None
