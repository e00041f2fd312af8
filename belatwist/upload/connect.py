"""Connections to a server: how they are made, whom TLS trusts, and whom they have reached."""

from pathlib import Path
from typing import Any

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from belatwist.errors import ConfigError
from belatwist.text import printable

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection must stand."""

Key = tuple[bytes, bytes, int]
"""Scheme, host and port: what a connection can be used for."""


@implementer(IAgentEndpointFactory)
class Endpoints:
    """Makes TCP connections for ``http``, TLS ones for ``https``, and remembers whom they reached.

    :param ca_file: PEM certificates to trust instead of the system's.
    :raises ConfigError: when there are none that can be read.
    """

    def __init__(self, reactor: Any, ca_file: Path | None) -> None:
        self._reactor = reactor
        self._tls = BrowserLikePolicyForHTTPS(_trust_root(ca_file))
        self._peers: dict[Key, str] = {}

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return what connects to a URI's server."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, uri.host, uri.port, timeout=CONNECT_TIMEOUT
        )
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)
        return _Remembering(endpoint, self._peers, (uri.scheme, uri.host, uri.port))

    def peer_of(self, url: bytes) -> str:
        """Return the address (IP:port) that the last connection to a URL's server has reached.

        Behind a proxy it is the proxy's. It is empty when there was no connection.
        """
        uri = URI.fromBytes(url)
        return self._peers.get((uri.scheme, uri.host, uri.port), "")


@implementer(IStreamClientEndpoint)
class _Remembering:
    """An endpoint that takes a note of whom its connection has reached."""

    def __init__(self, endpoint: IStreamClientEndpoint, peers: dict[Key, str], key: Key) -> None:
        self._endpoint = endpoint
        self._peers = peers
        self._key = key

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Connect."""

        def connected(protocol: Any) -> Any:
            peer = protocol.transport.getPeer()
            host = f"[{peer.host}]" if ":" in peer.host else peer.host
            self._peers[self._key] = f"{host}:{peer.port}"
            return protocol

        return self._endpoint.connect(protocolFactory).addCallback(connected)


def _trust_root(ca_file: Path | None) -> Any:
    """Return what to trust: the certificates of a file, or (``None``) the system's.

    :raises ConfigError: when there are none that can be read.
    """
    if ca_file is None:
        return None
    try:
        found = load_pem_x509_certificates(ca_file.read_bytes())
    except (OSError, ValueError) as error:
        reason = printable(str(error))[:300]
        raise ConfigError(f"remote.tls_ca_file: {ca_file}: cannot be read: {reason}") from error
    return trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in found])
