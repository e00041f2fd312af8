"""Limits on what a server may send in answer to one request: headers, body, and all around them."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from belatwist.errors import HttpError

MAX_HEADER_BYTES = 16 * 1024
"""Bytes that may come before the body: the status line, headers, and interim answers (1xx). Twisted
gives up a line of more than these, but bounds neither the number of lines nor that of answers."""

_FRAMING_BYTES = 16 * 1024
"""Bytes that trailers may have, beside a body that comes in chunks."""

_PIECE = 4 * 1024  # The kernel hands over up to 64 KiB at once.


class LimitedProtocol(Protocol):
    """Hands on to an agent's protocol what a server sends, and aborts the connection at a limit.

    :param inner: the agent's protocol, which has the transport for itself. A connection that is
        used again counts anew from each request.
    :param body_bytes: that a body may have; chunks may double them. Its receiver checks them
        precisely, and here they bound what the receiver does not see.
    :ivar lost: why the connection has ended.
    """

    transport: Any

    def __init__(self, inner: Any, body_bytes: int) -> None:
        self.inner = inner
        self.lost: Failure | None = None
        self._body_limit = 2 * body_bytes + _FRAMING_BYTES
        self._limit = MAX_HEADER_BYTES
        self._size = 0
        self._in_headers = True
        self._excess: HttpError | None = None
        self._request = inner.request
        inner.request = self._ask

    def connectionMade(self) -> None:
        """Give the transport to the agent's protocol."""
        self.inner.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Hand data on in pieces, as far as the limit allows."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            self._size += len(piece)
            self.inner.dataReceived(piece)
            # The piece may have completed the headers.
            if self._size > self._limit:
                self._give_up()
                return

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the agent's protocol why the connection has ended."""
        self.lost = reason if self._excess is None else Failure(self._excess)
        self.inner.connectionLost(self.lost)

    def abort(self) -> None:
        """End the connection without a word to the other side."""
        if self.lost is None:
            self.transport.abortConnection()

    def _ask(self, request: Any) -> "Deferred[Any]":
        self._limit, self._size, self._in_headers = MAX_HEADER_BYTES, 0, True

        def answered(response: Any) -> Any:
            self._limit, self._size, self._in_headers = self._body_limit, 0, False
            return response

        asked: Deferred[Any] = self._request(request)
        return asked.addCallback(answered)

    def _give_up(self) -> None:
        if self._excess is None:
            text = f"the answer has more than {self._limit:,} bytes after its headers"
            if self._in_headers:
                text = f"the headers have more than {self._limit:,} bytes"
            self._excess = HttpError(text, "too long")
            self.abort()


class LimitedFactory(Factory[Any]):
    """Makes limited protocols around those of another factory.

    :param inner: the factory of an agent.
    :param body_bytes: that a body may have.
    """

    noisy = False  # It starts and stops with each connection.

    def __init__(self, inner: IProtocolFactory, body_bytes: int) -> None:
        self._inner = inner
        self._body_bytes = body_bytes

    def buildProtocol(self, addr: IAddress | None) -> LimitedProtocol:
        """Make a protocol for a connection to an address."""
        assert addr is not None  # noqa: S101 - only connections over a process's pipes have none
        return LimitedProtocol(self._inner.buildProtocol(addr), self._body_bytes)
