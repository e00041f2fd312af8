"""A connection to the receiver without a socket and without a running reactor."""

from http.client import HTTPResponse
from io import BytesIO
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.server import Request

from belatwist.receiver.app import Receiver, site


class Turns(Clock):
    """A clock on which what is to be called at once waits for the next turn, as on a reactor."""

    TURN = 2**-20

    def callLater(self, delay: float, *args: Any, **kw: Any) -> IDelayedCall:
        """Schedule a call, for the next turn at the earliest."""
        return super().callLater(max(delay, self.TURN), *args, **kw)


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

    :param beside: a connection to the same receiver.
    :ivar clock: the receiver's time; an answer to an upload takes some of its turns.
    :ivar requests: every request object so far.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        clock: Clock | None = None,
        beside: "Wire | None" = None,
    ) -> None:
        if beside is None:
            self.clock = Clock() if clock is None else clock
            self.receiver = Receiver(self.clock, verbose=verbose)
            self.site: Any = site(self.receiver, self.clock)
        else:
            self.clock, self.receiver, self.site = beside.clock, beside.receiver, beside.site
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
        """Let bytes arrive, and the receiver do all of its steps."""
        self.channel.dataReceived(data)
        self.clock.advance(0)

    def post(self, path: bytes, body: bytes, *headers: bytes) -> None:
        """Send a POST with a body of declared length."""
        lines = [
            b"POST %s HTTP/1.1" % path,
            b"Host: localhost",
            b"Content-Length: %d" % len(body),
            *headers,
        ]
        self.send(b"\r\n".join([*lines, b"", body]))

    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        """Take what was answered: status, headers (names in lower case) and body of each."""
        stream = _Stream(self.transport.value())
        self.transport.clear()
        answers = []
        while stream.tell() < len(stream.getvalue()):
            response = HTTPResponse(cast(Any, stream))
            response.begin()
            body = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            answers.append((response.status, headers, body))
        return answers
