"""``twistd bela-receiver``: options to service."""

from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred

from belatwist.errors import StartError
from belatwist.log.output import LogOutput
from belatwist.runtime.listener import Listener
from belatwist.runtime.process import ServiceOptions, ServiceRoot, configure_process, fail


def _port(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 65535:
        raise ValueError(f"{text!r} is not a port: a number from 0 (any that is free) to 65535")
    return number


class Options(ServiceOptions):
    """The options of ``twistd bela-receiver``."""

    longdesc = (
        "Receives the uploads of bela, checks and counts them, for local tests. It keeps a bounded"
        " amount in memory and nothing on disk."
    )
    optParameters = (
        ("port", "p", 9090, "The port to listen on.", _port),
        ("host", None, "127.0.0.1", "The address to listen on; 0.0.0.0 for all of them."),
    )
    optFlags = (("verbose", "v", "Log every series of every request."),)


class _ListenerService(Service):
    """Opens the port when the service starts."""

    def __init__(self, listener: Listener, reactor: Any) -> None:
        self._listener = listener
        self._reactor = reactor

    def startService(self) -> None:
        super().startService()
        try:
            self._listener.open()
        except StartError as error:
            fail(self._reactor, str(error))

    def stopService(self) -> "Deferred[None] | None":
        super().stopService()
        return self._listener.stopService()


def makeService(options: Options) -> IService:
    """Build the receiver."""
    output = LogOutput("info", "console", "stdout")
    from twisted.internet import reactor

    configure_process(reactor, on_hangup=output.reopen)
    from belatwist.receiver.app import Receiver, site

    receiver = Receiver(reactor, verbose=bool(options["verbose"]))
    listener = Listener(
        reactor, options["host"], options["port"], site(receiver, reactor), "receiver"
    )
    return ServiceRoot(output, _ListenerService(listener, reactor))
