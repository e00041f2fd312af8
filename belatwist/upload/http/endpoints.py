"""Connects to a server, with TLS where needed, and keeps the address that was reached."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from belatwist.http.limits import LimitedFactory
from belatwist.http.response import MAX_BYTES
from belatwist.http.trust import trust_root

CONNECT_TIMEOUT = 10.0
"""Seconds after which an attempt to connect fails."""

ConnectionKey = tuple[bytes, bytes, int]
"""Scheme, host and port of a server."""


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Makes TCP connections for ``http``, TLS connections for ``https``, and keeps their addresses.

    :param ca_file: PEM certificates to trust instead of the system's.
    :raises ConfigError: when no certificate can be read from it.
    """

    def __init__(self, reactor: Any, ca_file: Path | None) -> None:
        self._reactor = reactor
        self._tls = BrowserLikePolicyForHTTPS(trust_root(ca_file))
        self._peers: dict[ConnectionKey, tuple[str, int]] = {}
        self._watched: dict[ConnectionKey, Callable[[bool], None]] = {}

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return an endpoint that connects to a URI's server."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, uri.host, uri.port, timeout=CONNECT_TIMEOUT
        )
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return _PeerTrackingEndpoint(endpoint, partial(self._attempted, _key(uri)))

    def watch(self, url: str, attempted: Callable[[bool], None]) -> None:
        """Call a function with each attempt to connect to a URL's server: whether it succeeded."""
        self._watched[_key(URI.fromBytes(url.encode()))] = attempted

    async def probe(self, url: str) -> None:
        """Connect to a URL's server, without TLS, and drop the connection at once.

        A known address is used again, because a look-up of the name costs more than the connection.

        :raises Exception: when there is no connection; one of Twisted's.
        """
        uri = URI.fromBytes(url.encode())
        host, port = self._peers.get(_key(uri), (uri.host, uri.port))
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_TIMEOUT)
        protocol: Any = await endpoint.connect(_QuietFactory.forProtocol(Protocol))
        protocol.transport.abortConnection()

    def peer_of(self, url: bytes) -> str:
        """Return the address (IP:port) of the last connection to a URL's server.

        Behind a proxy it is the proxy's. It is empty when there was no connection.
        """
        peer = self._peers.get(_key(URI.fromBytes(url)))
        if peer is None:
            return ""
        host, port = peer
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _attempted(self, key: ConnectionKey, peer: tuple[str, int] | None) -> None:
        if peer is not None:
            self._peers[key] = peer
        if key in self._watched:
            self._watched[key](peer is not None)


class _QuietFactory(Factory):
    """A factory whose start and stop are not logged, because probes come every few seconds."""

    noisy = False


def _key(uri: URI) -> ConnectionKey:
    return uri.scheme, uri.host, uri.port


@implementer(IStreamClientEndpoint)
class _PeerTrackingEndpoint:
    """Limits what a connection may bring, and reports each attempt: the peer's IP and port."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, attempted: Callable[[tuple[str, int] | None], None]
    ) -> None:
        self._endpoint = endpoint
        self._attempted = attempted

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Connect."""

        def connected(protocol: Any) -> Any:
            peer = protocol.transport.getPeer()
            self._attempted((peer.host, peer.port))
            return protocol.inner

        def failed(failure: Failure) -> Failure:
            if not failure.check(CancelledError):
                self._attempted(None)
            return failure

        factory = LimitedFactory(protocolFactory, MAX_BYTES)
        return self._endpoint.connect(factory).addCallbacks(connected, failed)
