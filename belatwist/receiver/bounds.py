"""A request whose body is bounded while it arrives.

:class:`twisted.web.server.Request` takes a body of any size before the resource sees it, so the
bound has to sit where the body comes in.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.server import Request

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Longest request body, as it comes over the wire."""

LINGER_SECONDS = 2.0
"""How long a refused upload is read and thrown away. Closing at once would reset the connection,
and with it destroy the answer that the client has not read yet."""


def error_body(reason: str, line: int | None = None) -> bytes:
    """Encode an error as the receiver's JSON answer: ``error``, and ``line`` if it is known."""
    answer: dict[str, str | int] = {"error": reason}
    if line is not None:
        answer["line"] = line
    return msgspec.json.encode(answer)


class BoundedRequest(Request):
    """A request that answers 413 by itself as soon as its body is known to be too long.

    After a 413 the connection is closed: the rest of the body is still on its way.

    :param on_refused: told the reason when the request refuses its body.
    """

    _log = Logger()

    def __init__(self, channel: HTTPChannel, on_refused: Callable[[str], None]) -> None:
        super().__init__(channel)
        self._on_refused = on_refused
        # Never a file, which is what Twisted makes of a longer body.
        self._body = BytesIO()
        self._refused = False
        self._linger: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Refuse a declared length over the bound.

        :param length: the ``Content-Length``; ``None`` for a chunked body.
        """
        self.content = self._body
        if length is not None and length > MAX_BODY_BYTES:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, unless the body gets too long with it."""
        if self._refused:
            return
        if self._body.tell() + len(data) > MAX_BODY_BYTES:
            self._refuse()
        else:
            self._body.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process the complete request, or close the connection if it was refused."""
        if self._refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        """Hand the request to Klein, without what Klein answers with a page or a traceback."""
        # Klein binds its routes to the host, and fails on one that is no valid domain name.
        self.requestHeaders.removeHeader(b"Host")
        try:
            unquote_to_bytes(self.path).decode()
        except UnicodeDecodeError:
            self._answer(http.BAD_REQUEST, "the path is not UTF-8")
        else:
            super().process()

    def processingFailed(self, reason: Failure) -> Failure:
        """Log what went wrong and answer 500 as JSON instead of Twisted's page."""
        self._log.failure("a request failed", failure=reason)
        self._answer(http.INTERNAL_SERVER_ERROR, "internal error")
        return reason

    def close_afterwards(self) -> None:
        """Close the connection when the answer is sent."""
        self.setHeader(b"Connection", b"close")
        self.channel.persistent = False

    def connectionLost(self, reason: Failure) -> None:
        """Stop waiting for the client to go away."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        super().connectionLost(reason)

    def _answer(self, status: int, reason: str) -> None:
        body = error_body(reason)
        self.setResponseCode(status)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def _refuse(self) -> None:
        """Answer 413, close our half of the connection, and read the rest for a short while.

        The answer does not go through :meth:`finish`, which would make the channel take what is
        left of the body for the next request.
        """
        self._refused = True
        self._body.truncate(0)
        # Otherwise the channel, when this returns, invites the client to send the body.
        self.requestHeaders.removeHeader(b"Expect")
        reason = f"the body is longer than {MAX_BODY_BYTES} bytes"
        body = error_body(reason)
        headers = Headers(
            {
                b"Content-Type": [b"application/json"],
                b"Content-Length": [b"%d" % len(body)],
                b"Connection": [b"close"],
            }
        )
        self.channel.writeHeaders(b"HTTP/1.1", b"413", b"Content Too Large", headers)
        self.channel.write(body)
        transport: Any = self.transport
        transport.loseWriteConnection()
        self._linger = self.channel.callLater(LINGER_SECONDS, transport.abortConnection)
        self._on_refused(reason)
