"""Connections that leave by one network interface, or from one address, whatever the routes say."""

import socket
from typing import Any

from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory
from twisted.internet.tcp import Client, Connector
from zope.interface import directlyProvides, providedBy

_LONGEST_NAME = 15  # The kernel cuts a longer name off, and might find another interface.


class BoundReactor:
    """The reactor, except that its TCP connections are bound.

    The look-up of a name is not: it goes the way of all look-ups.

    Since Linux 5.7 any user may bind a socket to an interface, once. Before, it took
    ``CAP_NET_RAW``.

    :param reactor: a POSIX one.
    :param interface: the interface's name, such as ``wwan0``; ``None`` for any.
    :param source: the IP address to come from; ``None`` for any.
    """

    def __init__(self, reactor: Any, interface: str | None, source: str | None) -> None:
        self._reactor = reactor
        self._interface = interface
        self._source = source
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        """Return what the reactor has."""
        return getattr(self._reactor, name)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: None = None,
    ) -> IConnector:
        """Connect; see :class:`twisted.internet.interfaces.IReactorTCP`."""
        connector = _BoundConnector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.bind(self._interface, self._source)
        connector.connect()
        return connector


class _BoundConnector(Connector):
    def bind(self, interface: str | None, source: str | None) -> None:
        self._interface = interface
        self._source = source

    def _makeTransport(self) -> Client:
        return _BoundClient(
            self._interface, self._source, self.host, self.port, None, self, self.reactor
        )


class _BoundClient(Client):
    def __init__(self, interface: str | None, source: str | None, *args: Any) -> None:
        self._interface = interface
        self._source = source
        super().__init__(*args)

    def createInternetSocket(self) -> socket.socket:
        """Make the socket and bind it; an ``OSError`` fails the connection."""
        made: socket.socket = super().createInternetSocket()
        try:
            if self._interface is not None:
                name = self._interface.encode()
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
            if self._source is not None:
                made.bind((self._source, 0))
        except OSError:
            made.close()
            raise
        return made


def is_name(interface: str) -> bool:
    """Return whether an interface can have a name."""
    return 0 < len(interface.encode()) <= _LONGEST_NAME and "\0" not in interface
