"""The connection of one request: where it leaves, and what it may bring before an answer."""

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from belatwist.http.bound import BoundReactor

MAX_HEADER_BYTES = 32 * 1024
"""Bytes after which the headers of an answer are too long. Twisted bounds a header, not their
number. What the kernel hands over at once, 64 KiB at most, is read before the bound is checked."""


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class SingleConnection:
    """Connects once, for an agent that keeps no connections.

    :param tls: makes the TLS of ``https``.
    :param timeout: seconds after which an attempt to connect fails.
    :param interface: the network interface by which the connection leaves.
    :param source: the IP address from which it comes.
    :ivar headers_too_long: whether it was given up because the headers went on and on.
    """

    def __init__(
        self,
        reactor: Any,
        tls: IPolicyForHTTPS,
        timeout: float,
        interface: str | None,
        source: str | None,
    ) -> None:
        self.headers_too_long = False
        self._reactor = reactor
        if interface is not None or source is not None:
            self._reactor = BoundReactor(reactor, interface, source)
        self._tls = tls
        self._timeout = timeout
        self._endpoint: Any = None
        self._encrypted = False
        self._protocol: _CountingProtocol | None = None
        self._answered = False

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return itself; the connection will go to a URI's server."""
        host = uri.host.decode("ascii")
        # An address needs no look-up, which takes a thread.
        if isIPAddress(host):
            kind: Any = TCP4ClientEndpoint
        else:
            kind = TCP6ClientEndpoint if isIPv6Address(host) else HostnameEndpoint
        self._endpoint = kind(self._reactor, host, uri.port, self._timeout)
        self._encrypted = uri.scheme == b"https"
        if self._encrypted:
            creator = self._tls.creatorForNetloc(uri.host, uri.port)
            self._endpoint = wrapClientTLS(creator, self._endpoint)
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Connect."""

        def connected(protocol: _CountingProtocol) -> IProtocol:
            self._protocol = protocol
            inner: IProtocol = protocol.inner
            return inner

        connecting: Deferred[Any] = self._endpoint.connect(_CountingFactory(protocolFactory, self))
        return connecting.addCallback(connected)

    def answered(self) -> None:
        """Take note that the headers of the answer are complete."""
        self._answered = True

    def received(self, protocol: "_CountingProtocol") -> None:
        """Give the connection up if its headers are too long; called after each piece."""
        if not self._answered and protocol.size > MAX_HEADER_BYTES:
            self.headers_too_long = True
            protocol.abort()

    @property
    def broken(self) -> Failure | None:
        """Why the connection has ended, unless it was closed in order or is still there."""
        lost = None if self._protocol is None else self._protocol.lost
        return None if lost is None or lost.check(ConnectionDone) else lost

    def close(self) -> None:
        """End the connection after a whole answer."""
        # Without TLS the agent has closed it. With TLS a close waits for the other side.
        if self._encrypted:
            self.abort()

    def abort(self) -> None:
        """End the connection, wherever it is, without a word to the other side."""
        if self._protocol is not None:
            self._protocol.abort()


class _CountingProtocol(Protocol):
    """Counts the bytes that another protocol receives.

    :ivar inner: the other protocol, which has the transport for itself.
    :ivar size: bytes received.
    :ivar lost: why the connection has ended.
    """

    transport: Any

    def __init__(self, inner: Any, connection: SingleConnection) -> None:
        self.inner = inner
        self.size = 0
        self.lost: Failure | None = None
        self._connection = connection

    def connectionMade(self) -> None:
        self.inner.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        self.inner.dataReceived(data)
        self._connection.received(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self.inner.connectionLost(reason)

    def abort(self) -> None:
        if self.lost is None:
            self.transport.abortConnection()


class _CountingFactory(Factory[Any]):
    noisy = False  # It starts and stops with each request.

    def __init__(self, inner: IProtocolFactory, connection: SingleConnection) -> None:
        self._inner = inner
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> "_CountingProtocol":
        assert addr is not None  # noqa: S101 - only connections over a process's pipes have none
        return _CountingProtocol(self._inner.buildProtocol(addr), self._connection)
