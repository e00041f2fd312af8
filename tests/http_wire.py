"""A connection to a site without a socket and without a running reactor."""

from http.client import HTTPResponse
from io import BytesIO
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Request, Site

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers (names in lower case) and body."""


class HalfClosingTransport(StringTransport):
    """A transport in memory that can, like TCP's, close the sending half."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        """Note that nothing more will be sent."""
        self.half_closed = True


class _Stream(BytesIO):
    """Bytes that several responses are read from, one after the other."""

    def makefile(self, _mode: str) -> "_Stream":
        return self

    def close(self) -> None:
        """Stay open for the next response."""


class Wire:
    """One client's connection.

    :param clock: the site's time.
    :ivar requests: every request object so far.
    """

    def __init__(self, site: Site, clock: Clock) -> None:
        self.site: Any = site
        self.clock = clock
        self.requests: list[Request] = []
        self.transport = HalfClosingTransport()
        self.channel: Any = self.site.buildProtocol(None)
        make_request = self.channel.requestFactory

        def remember(*args: Any) -> Request:
            self.requests.append(make_request(*args))
            return self.requests[-1]

        self.channel.requestFactory = remember
        self.channel.makeConnection(self.transport)

    def lose(self) -> None:
        """Let the client go away."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def send(self, data: bytes) -> None:
        """Let bytes arrive, and what is to be done at once be done."""
        self.channel.dataReceived(data)
        self.clock.advance(0)

    def answers(self, method: str = "GET") -> list[Answer]:
        """Take what was answered.

        :param method: that of the requests; an answer to HEAD has no body.
        """
        stream = _Stream(self.transport.value())
        self.transport.clear()
        answers = []
        while stream.tell() < len(stream.getvalue()):
            response = HTTPResponse(cast(Any, stream), method=method)
            response.begin()
            body = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            answers.append((response.status, headers, body))
        return answers
