"""Requests and answers in lines over TCP, for sources that ask a server on this machine.

A source imports this module when it runs: it loads much of Twisted, which the others do without.
"""

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from belatwist.errors import BelaError, ParseError, ReadError
from belatwist.text import one_line


class LineAnswer(Protocol):
    """Takes the lines of an answer as they arrive; pure, and bounded by itself."""

    def take(self, line: bytes) -> bool:
        """Take a line.

        :return: whether the answer is complete.
        :raises BelaError: when it is no such answer.
        """
        ...


class LineSession(LineOnlyReceiver):
    """A connection on which one question follows the other.

    :param server: names the server in errors.
    :param longest: bytes of a line; a longer line ends the session.
    """

    delimiter = b"\n"

    def __init__(self, server: str, longest: int) -> None:
        self.MAX_LENGTH = longest
        self._server = server
        self._answer: LineAnswer | None = None
        self._asked: Deferred[None] | None = None
        self._lost: BelaError | None = None

    async def ask(self, request: bytes, answer: LineAnswer) -> None:
        """Send a line, and wait until its answer is complete.

        :raises BelaError: the answer's own, or that the session has ended.
        """
        asked: Deferred[None] = Deferred()
        if self._lost is not None:
            raise self._lost
        self._answer, self._asked = answer, asked
        self.sendLine(request)
        await asked

    def close(self) -> None:
        """End the session at once."""
        transport: Any = self.transport
        transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:
        """Hand a line to the answer."""
        if self._answer is None:
            return
        try:
            complete = self._answer.take(line.removesuffix(b"\r"))
        except BelaError as error:
            self._end(error)
        else:
            if complete:
                self._end(None)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is too long."""
        self._end(ParseError(self._server, f"a line of more than {self.MAX_LENGTH} bytes"))
        self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the question that has no answer, and those to come."""
        self._lost = ReadError(f"{self._server}: the connection ended before the answer did")
        self._end(self._lost)

    def _end(self, error: BelaError | None) -> None:
        asked, self._asked, self._answer = self._asked, None, None
        if asked is None:
            return
        if error is None:
            asked.callback(None)
        else:
            asked.errback(error)


class _SessionFactory(Factory):
    """Yields one session. Twisted does not log its start and stop, which each question brings."""

    noisy = False

    def __init__(self, session: LineSession) -> None:
        self._session = session

    def buildProtocol(self, addr: IAddress | None) -> LineSession:
        """Return the session."""
        return self._session


async def connect(reactor: Any, host: str, port: int, *, server: str, longest: int) -> LineSession:
    """Connect to a server.

    :param server: names the server in errors.
    :raises ReadError: when it cannot be reached.
    """
    session = LineSession(server, longest)
    try:
        await HostnameEndpoint(reactor, host, port).connect(_SessionFactory(session))
    except Exception as error:
        reason = one_line(str(error), 200) or type(error).__name__
        raise ReadError(f"{server}: {reason}") from error
    return session
