"""Servers on loopback that say what a test makes them say, as bytes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from belatwist.runtime.listener import Listener

Talk = Callable[["Server"], None]
"""Says something to a client that has sent its request."""


class Server(Protocol):
    """Reads a request, and talks."""

    transport: Any
    factory: "Servers"

    def __init__(self) -> None:
        self._received = b""

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self.factory.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        head, end, _ = self._received.partition(b"\r\n\r\n")
        if end:
            self.factory.requests.append(head.decode())
            self.factory.peers.append(self.transport.getPeer().host)
            self.factory.talk(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.open.discard(self)
        if self.factory.emptied is not None and not self.factory.open:
            self.factory.emptied.callback(None)
            self.factory.emptied = None

    def say(self, *pieces: bytes) -> None:
        """Send."""
        for piece in pieces:
            self.transport.write(piece)

    def forget(self) -> None:
        """Wait for another request on this connection."""
        self._received = b""


class Servers(Factory[Server]):
    """The servers of one port.

    :ivar requests: the head of each request.
    :ivar peers: the address that each came from.
    :ivar connections: how many there were.
    :ivar open: the connections that stand.
    """

    noisy = False
    protocol = Server

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.requests: list[str] = []
        self.peers: list[str] = []
        self.connections = 0
        self.open: set[Server] = set()
        self.emptied: Deferred[None] | None = None

    def all_closed(self) -> "Deferred[None]":
        """Return what fires once no connection stands."""
        done: Deferred[None] = Deferred()
        if self.open:
            self.emptied = done
        else:
            done.callback(None)
        return done


@contextmanager
def serving(
    talk: Talk, host: str = "127.0.0.1", wrap: Callable[[Servers], Factory[Any]] | None = None
) -> Iterator[tuple[str, Servers]]:
    """Serve on a free port; yields the URL without a path, and the servers.

    :param wrap: puts the servers behind TLS.
    """
    servers = Servers(talk)
    listener = Listener(reactor, host, 0, servers if wrap is None else wrap(servers), "test")
    listener.open()
    try:
        yield listener.url, servers
    finally:
        listener.stopService()


def answer(body: bytes = b"", *headers: bytes, status: bytes = b"200 OK") -> Talk:
    """Give a complete answer, and close."""

    def talk(server: Server) -> None:
        lines = (b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers)
        server.say(b"\r\n".join(lines), b"\r\n\r\n", body)
        server.transport.loseConnection()

    return talk


def raw(*pieces: bytes, close: bool = False, reset: bool = False) -> Talk:
    """Send pieces, and then close, reset, or do nothing more."""

    def talk(server: Server) -> None:
        server.say(*pieces)
        if reset:
            # After the pieces, which an abort would drop.
            reactor.callLater(0.02, server.transport.abortConnection)
        elif close:
            server.transport.loseConnection()

    return talk


def flood(head: bytes, piece: bytes) -> Talk:
    """Send a piece over and over, as fast as it is taken."""

    def talk(server: Server) -> None:
        class Producer:
            def resumeProducing(self) -> None:
                server.transport.write(piece)

            def stopProducing(self) -> None:
                pass

        server.say(head)
        server.transport.registerProducer(Producer(), False)

    return talk
