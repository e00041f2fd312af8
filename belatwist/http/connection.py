"""The connection of one request: where it leaves, and how it ends."""

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
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from belatwist.http.bound import BoundReactor
from belatwist.http.limits import LimitedFactory, LimitedProtocol


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class SingleConnection:
    """Connects once, for an agent that keeps no connections.

    :param tls: makes the TLS of ``https``.
    :param timeout: seconds after which an attempt to connect fails.
    :param interface: the network interface by which the connection leaves.
    :param source: the IP address from which it comes.
    :param body_bytes: that the body of the answer may have.
    """

    def __init__(
        self,
        reactor: Any,
        tls: IPolicyForHTTPS,
        timeout: float,
        interface: str | None,
        source: str | None,
        *,
        body_bytes: int,
    ) -> None:
        self._reactor = reactor
        if interface is not None or source is not None:
            self._reactor = BoundReactor(reactor, interface, source)
        self._tls = tls
        self._timeout = timeout
        self._endpoint: Any = None
        self._encrypted = False
        self._body_bytes = body_bytes
        self._protocol: LimitedProtocol | None = None

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

        def connected(protocol: LimitedProtocol) -> IProtocol:
            self._protocol = protocol
            inner: IProtocol = protocol.inner
            return inner

        factory = LimitedFactory(protocolFactory, self._body_bytes)
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(connected)

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
