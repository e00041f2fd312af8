"""An HTTP site with limits on what clients may use, and with JSON for every error.

:class:`twisted.web.server.Request` reads a body of any size before the resource sees it. The limits
therefore apply where the bytes arrive. Twisted itself limits a request line to 16 KiB, and a head
to 16 KiB and 500 lines; it closes the connection on more.

Importing this module does not install the reactor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.web.respond import ALWAYS, JSON, error_body, respond

REQUEST_FAILED = Event(
    "web.request_failed",
    LogLevel.error,
    "Request failed: {error}",
    cure="This is a fault of the program: report it with the traceback.",
)
REQUEST_CUT = Event(
    "web.request_cut", LogLevel.debug, "Request took over {seconds} s, connection closed"
)
LIMIT_REACHED = Event(
    "web.connection_limit_reached",
    LogLevel.warn,
    "Connection limit reached: {connections} are open, further ones are closed at once",
    cure="A client opens connections and does not close them: ss -tnp shows which.",
)
LIMIT_CLEARED = Event(
    "web.connection_limit_cleared",
    LogLevel.info,
    "Connection limit cleared: {connections} are open",
)

LINGER_SECONDS = 2.0
"""How long a refused body is read and thrown away. Closing at once would reset the connection, and
the client would lose the answer that it has not read yet."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the clients of a site.

    :ivar connections: the most connections at the same time; further ones are closed at once.
    :ivar idle: seconds for which a connection may be silent.
    :ivar request: seconds from the first byte of a request to the end of its answer.
    """

    connections: int
    idle: float
    request: float


class BoundedRequest(Request):
    """A request without a body: it answers 413 to a body before that has arrived.

    The connection is closed after that, because the body is still on its way.
    """

    _log = Logger()

    def __init__(self, channel: HTTPChannel, queued: object = None) -> None:
        super().__init__(channel)
        self.responseHeaders = Headers(ALWAYS)
        self.refused = False
        self._linger: IDelayedCall | None = None

    def gotLength(self, length: int | None) -> None:
        """Refuse a body.

        :param length: the ``Content-Length``; ``None`` for a chunked body.
        """
        self.content = BytesIO()
        if length != 0:
            self.refuse(http.REQUEST_ENTITY_TOO_LARGE, "no body is taken here")

    def handleContentChunk(self, data: bytes) -> None:
        """Discard a piece of a body."""

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process the complete request, or close the connection if it was refused."""
        if self.refused:
            self.channel.loseConnection()
        else:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        """Hand the request to Klein, unless Klein would answer with a page or a traceback."""
        # Klein binds its routes to the host, and fails if that is no valid domain name.
        self.requestHeaders.removeHeader(b"Host")
        try:
            unquote_to_bytes(self.path).decode()
        except UnicodeDecodeError:
            self.finish_with(http.BAD_REQUEST, "the path is not UTF-8")
            return
        if self.path == b"*":  # Twisted has an answer of its own for "OPTIONS *".
            self.finish_with(http.NOT_FOUND, "no such address")
        else:
            super().process()

    def write(self, data: bytes) -> None:
        """Write a part of the answer, without the header that names the version of Twisted."""
        self.responseHeaders.removeHeader(b"Server")
        super().write(data)

    def processingFailed(self, reason: Failure) -> Failure:
        """Log the failure and answer 500 as JSON; the client learns no details."""
        site = cast("BoundedSite", self.site)
        site.request_failures.failed(
            REQUEST_FAILED, type(reason.value).__name__, failure=reason, error=str(reason.value)
        )
        self.finish_with(http.INTERNAL_SERVER_ERROR, "internal error")
        return reason

    def close_afterwards(self) -> None:
        """Close the connection after the answer."""
        self.setHeader(b"Connection", b"close")
        self.channel.persistent = False

    def connectionLost(self, reason: Failure) -> None:
        """Stop waiting for the client to go away."""
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        super().connectionLost(reason)

    def refuse(
        self, status: int, reason: str, more: Mapping[bytes, list[bytes]] | None = None
    ) -> None:
        """Answer, close our half of the connection, and read the rest for a short while.

        The answer does not use :meth:`finish`: the channel would then take the rest of the body for
        the next request.

        :param more: further headers.
        """
        self.refused = True
        # Otherwise the channel then invites the client to send the body.
        self.requestHeaders.removeHeader(b"Expect")
        body = error_body(reason)
        headers = Headers(
            {
                **ALWAYS,
                b"Content-Type": [JSON],
                b"Content-Length": [b"%d" % len(body)],
                b"Connection": [b"close"],
                **(more or {}),
            }
        )
        self.channel.writeHeaders(b"HTTP/1.1", b"%d" % status, RESPONSES[status], headers)
        self.channel.write(body)
        transport: Any = self.transport
        transport.loseWriteConnection()
        self._linger = self.channel.callLater(LINGER_SECONDS, transport.abortConnection)

    def finish_with(self, status: int, reason: str) -> None:
        """Answer with an error."""
        self.write(respond(self, status, error_body(reason)))
        self.finish()


class BoundedChannel(HTTPChannel):
    """A connection that is closed when a request takes too long.

    Twisted's own timeout limits only silence: a byte now and then keeps a request alive.
    """

    _log = Logger()
    _deadline: IDelayedCall | None = None
    site: "BoundedSite"

    def connectionMade(self) -> None:
        """Count the connection."""
        super().connectionMade()
        self.site.connections += 1

    def dataReceived(self, data: bytes) -> None:
        """Receive bytes; the first ones of a request start its time limit."""
        if self._deadline is None:
            self._deadline = self.callLater(self.site.limits.request, self._cut)
        super().dataReceived(data)

    def requestDone(self, request: Request) -> None:
        """Continue with the next request, which has a time limit of its own.

        After the last request the limit stays: Twisted has no timeout then, and would wait for ever
        for a client that does not read its answer.
        """
        if self.persistent:
            self._stop_deadline()
        super().requestDone(request)

    def pauseProducing(self) -> None:
        """Stop reading and answering while the client does not read its answers.

        Twisted's channel continues to answer the requests that it has read already.
        """
        self.paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Read and answer again."""
        self.paused = False
        super().resumeProducing()
        super().dataReceived(b"")

    def timeoutConnection(self) -> None:
        """Close a silent connection, and abort it if the client does not let that happen.

        Twisted's channel would also log a line, for each visit of an infrequent client.
        """
        if self._deadline is None:
            self._deadline = self.callLater(self.site.limits.request, self._cut)
        self.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop counting the connection."""
        self._stop_deadline()
        self.site.connection_lost()
        super().connectionLost(reason)

    def _cut(self) -> None:
        self._deadline = None
        seconds = f"{self.site.limits.request:g}"
        REQUEST_CUT.emit(self._log, seconds=seconds)
        transport: Any = self.transport
        transport.abortConnection()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class BoundedSite(Site):
    """A site of bounded connections and requests, without an access log.

    :param request: makes a request of a channel.
    :param reactor: times the connections and requests.
    :ivar connections: number of open connections.
    :ivar request_failures: logs the requests that raised.
    """

    protocol: Any = BoundedChannel
    noisy = False
    _log = Logger()

    def __init__(
        self,
        resource: IResource,
        limits: Limits,
        reactor: IReactorTime,
        request: Callable[[HTTPChannel, object], BoundedRequest] = BoundedRequest,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=request,
            # The resource reads the body, also when curl calls it a form.
            parsePOSTFormSubmission=False,
            timeout=limits.idle,
            reactor=reactor,
        )
        self.limits = limits
        self.connections = 0
        self.request_failures = FailureLog(self._log, reactor.seconds)
        self._refusals = FailureLog(self._log, reactor.seconds)

    def startFactory(self) -> None:
        """Do nothing: Twisted's method wakes the reactor each second, for the access log."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Accept a connection; return ``None``, which closes it, when there are too many."""
        if self.connections < self.limits.connections:
            return super().buildProtocol(addr)
        self._refusals.failed(LIMIT_REACHED, connections=self.connections)
        return None

    def connection_lost(self) -> None:
        """Stop counting a connection."""
        self.connections -= 1
        # Well below the limit: clients that come and go near it are one episode.
        if self.connections <= self.limits.connections // 2:
            self._refusals.recovered(LIMIT_CLEARED, connections=self.connections)

    def log(self, request: object) -> None:
        """Log nothing."""
