"""A listening port as a service; if it cannot listen, its error says why in one line."""

from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger, LogLevel

from belatwist.errors import StartError
from belatwist.log.events import Event

LISTENING = Event("listener.opened", LogLevel.info, "Listening on {url} ({part})")


class Listener(Service):
    """Serves a factory on a TCP port.

    :param host: the address to listen on; ``0.0.0.0`` for all of IPv4, ``::`` for all.
    :param port: the port; 0 for any free one.
    :param name: the part of the agent that the port serves, for the log.
    """

    log = Logger()

    def __init__(self, reactor: Any, host: str, port: int, factory: Any, name: str) -> None:
        self.setName(name)
        self._reactor = reactor
        self._host = host
        self._port = port
        self._factory = factory
        self._listening: IListeningPort | None = None

    @property
    def url(self) -> str:
        """The HTTP URL of the port, without a path."""
        port = self._port
        if self._listening is not None:
            port = cast("IPv4Address | IPv6Address", self._listening.getHost()).port
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{port}"

    def open(self) -> None:
        """Listen, and log the URL.

        :raises StartError: when the port is taken or forbidden.
        """
        try:
            self._listening = self._reactor.listenTCP(
                self._port, self._factory, interface=self._host
            )
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            raise StartError(
                f"{self.name}: cannot listen on {self._host}:{self._port}: {reason}"
            ) from error
        LISTENING.emit(self.log, part=self.name, url=f"{self.url}/")

    def stopService(self) -> "Deferred[None] | None":
        """Stop listening."""
        super().stopService()
        listening, self._listening = self._listening, None
        return None if listening is None else listening.stopListening()
