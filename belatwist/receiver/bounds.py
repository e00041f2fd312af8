"""Bounds on what clients may send: on one body, on all bodies together, on connections and time.

:class:`twisted.web.server.Request` takes a body of any size before the resource sees it, so the
bounds have to sit where the bytes come in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Longest request body, as it comes over the wire."""

MAX_BODIES_BYTES = 32 * 1024 * 1024
"""Most that all bodies which are arriving or being read may take together."""

RETRY_AFTER_SECONDS = 10
"""When to try again what did not fit beside the other bodies."""

MAX_CONNECTIONS = 64
"""Most connections at the same time; any more are closed at once."""

IDLE_SECONDS = 60
"""How long a connection may be silent."""

REQUEST_SECONDS = 120
"""How long a request may take, from its first byte to the end of its answer."""

LINGER_SECONDS = 2.0
"""How long a refused upload is read and thrown away. Closing at once would reset the connection,
and with it destroy the answer that the client has not read yet."""


def error_body(reason: str, line: int | None = None) -> bytes:
    """Encode an error as the receiver's JSON answer: ``error``, and ``line`` if it is known."""
    answer: dict[str, str | int] = {"error": reason}
    if line is not None:
        answer["line"] = line
    return msgspec.json.encode(answer)


@dataclass(slots=True)
class Budget:
    """Bytes that may be in use at the same time.

    :ivar used: how many are.
    """

    limit: int
    used: int = 0


class Body(BytesIO):
    """A request body in memory, counted against a budget until it is closed.

    Twisted closes the content of a request when that is answered or its connection is lost.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget
        self._counted = 0

    def add(self, data: bytes) -> bool:
        """Append a piece.

        :return: whether the budget allowed it; nothing is appended otherwise.
        """
        if self._budget.used + len(data) > self._budget.limit:
            return False
        self._budget.used += len(data)
        self._counted += len(data)
        self.write(data)
        return True

    def close(self) -> None:
        """Let go of the bytes and give them back to the budget."""
        self._budget.used -= self._counted
        self._counted = 0
        super().close()


class BoundedRequest(Request):
    """A request that refuses its body by itself: 413 as soon as it is known to be too long, 503
    when there is no room for it beside the bodies of other requests.

    After that the connection is closed: the rest of the body is still on its way.

    :param on_refused: told the reason when the request refuses its body.
    """

    _log = Logger()

    def __init__(
        self, channel: HTTPChannel, budget: Budget, on_refused: Callable[[str], None]
    ) -> None:
        super().__init__(channel)
        self._on_refused = on_refused
        # Never a file, which is what Twisted makes of a longer body.
        self._body = Body(budget)
        self._refused = False
        self._linger: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Refuse a declared length over the bound.

        :param length: the ``Content-Length``; ``None`` for a chunked body.
        """
        self.content = self._body
        if length is not None and length > MAX_BODY_BYTES:
            self._refuse_length()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, unless it is too much."""
        if self._refused:
            return
        if self._body.tell() + len(data) > MAX_BODY_BYTES:
            self._refuse_length()
        elif not self._body.add(data):
            self._refuse(
                http.SERVICE_UNAVAILABLE,
                "too many bodies at the same time",
                {b"Retry-After": [b"%d" % RETRY_AFTER_SECONDS]},
            )

    def take_body(self) -> Body:
        """Hand over the complete body to a caller that closes it.

        The reading of a body may outlast the request, when the client goes away.
        """
        self.content = BytesIO()
        return self._body

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

    def _refuse_length(self) -> None:
        reason = f"the body is longer than {MAX_BODY_BYTES} bytes"
        self._refuse(http.REQUEST_ENTITY_TOO_LARGE, reason, {})

    def _refuse(self, status: int, reason: str, more: Mapping[bytes, list[bytes]]) -> None:
        """Answer, close our half of the connection, and read the rest for a short while.

        The answer does not go through :meth:`finish`, which would make the channel take what is
        left of the body for the next request.
        """
        self._refused = True
        self._body.close()
        # Otherwise the channel, when this returns, invites the client to send the body.
        self.requestHeaders.removeHeader(b"Expect")
        body = error_body(reason)
        headers = Headers(
            {
                b"Content-Type": [b"application/json"],
                b"Content-Length": [b"%d" % len(body)],
                b"Connection": [b"close"],
                **more,
            }
        )
        self.channel.writeHeaders(b"HTTP/1.1", b"%d" % status, RESPONSES[status], headers)
        self.channel.write(body)
        transport: Any = self.transport
        transport.loseWriteConnection()
        self._linger = self.channel.callLater(LINGER_SECONDS, transport.abortConnection)
        self._on_refused(reason)


class BoundedChannel(HTTPChannel):
    """A connection that is cut when a request takes too long.

    Twisted's own timeout bounds only silence: one byte now and then keeps a request alive.
    """

    _log = Logger()
    _deadline: IDelayedCall | None = None
    site: "BoundedSite"

    def connectionMade(self) -> None:
        """Count the connection."""
        super().connectionMade()
        self.site.connections += 1

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; the first ones of a request start its time."""
        if self._deadline is None:
            self._deadline = self.callLater(REQUEST_SECONDS, self._cut)
        super().dataReceived(data)

    def requestDone(self, request: Request) -> None:
        """Go on to the next request, with time of its own.

        After the last one the time goes on: Twisted has no timeout of its own then, and would
        wait for ever for a client that does not take its answer.
        """
        if self.persistent:
            self._stop_deadline()
        super().requestDone(request)

    def pauseProducing(self) -> None:
        """Stop reading and answering while the client does not take its answers.

        Twisted's channel goes on answering the requests that it has read already.
        """
        self.paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Read and answer again."""
        self.paused = False
        super().resumeProducing()
        super().dataReceived(b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Count the connection no longer."""
        self._stop_deadline()
        self.site.connection_lost()
        super().connectionLost(reason)

    def _cut(self) -> None:
        self._deadline = None
        self._log.warn("cut a request that took over {seconds} s", seconds=REQUEST_SECONDS)
        transport: Any = self.transport
        transport.abortConnection()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class BoundedSite(Site):
    """A site of bounded connections and requests.

    It has no access log: the receiver logs each request in its own words.

    :param on_refused: told the reason when a request refuses its body.
    :param reactor: times the connections and requests.
    :ivar connections: how many there are now.
    """

    protocol: Any = BoundedChannel
    noisy = False
    _log = Logger()

    def __init__(
        self, resource: IResource, on_refused: Callable[[str], None], reactor: IReactorTime
    ) -> None:
        budget = Budget(MAX_BODIES_BYTES)

        def request(channel: HTTPChannel, queued: object) -> BoundedRequest:
            return BoundedRequest(channel, budget, on_refused)

        super().__init__(
            resource,
            requestFactory=request,
            # The body is read by the receiver alone, also when curl calls it a form.
            parsePOSTFormSubmission=False,
            timeout=IDLE_SECONDS,
            reactor=reactor,
        )
        self.connections = 0
        self._full = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Take a connection, or have it closed when there are too many."""
        if self.connections < MAX_CONNECTIONS:
            return super().buildProtocol(addr)
        if not self._full:
            self._full = True
            self._log.warn("{n} connections: more are closed at once", n=self.connections)
        return None

    def connection_lost(self) -> None:
        """Count a connection no longer."""
        self.connections -= 1
        # Well below the bound, so that clients which come and go at it do not fill the log.
        if self._full and self.connections <= MAX_CONNECTIONS // 2:
            self._full = False
            self._log.info("{n} connections: more are taken again", n=self.connections)

    def log(self, request: object) -> None:
        """Log nothing."""
