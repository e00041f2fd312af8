"""A connection to the receiver without a socket and without a running reactor."""

from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from belatwist.receiver.app import Receiver, site
from tests import http_wire


class Turns(Clock):
    """A clock on which what is to be called at once waits for the next turn, as on a reactor."""

    TURN = 2**-20

    def callLater(self, delay: float, *args: Any, **kw: Any) -> IDelayedCall:
        """Schedule a call, for the next turn at the earliest."""
        return super().callLater(max(delay, self.TURN), *args, **kw)


class Wire(http_wire.Wire):
    """One client's connection; an answer to an upload takes some turns of the clock.

    :param beside: a connection to the same receiver.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        clock: Clock | None = None,
        beside: "Wire | None" = None,
    ) -> None:
        if beside is None:
            clock = Clock() if clock is None else clock
            self.receiver = Receiver(clock, verbose=verbose)
            super().__init__(site(self.receiver, clock), clock)
        else:
            self.receiver = beside.receiver
            super().__init__(beside.site, beside.clock)

    def post(self, path: bytes, body: bytes, *headers: bytes) -> None:
        """Send a POST with a body of declared length."""
        lines = [
            b"POST %s HTTP/1.1" % path,
            b"Host: localhost",
            b"Content-Length: %d" % len(body),
            *headers,
        ]
        self.send(b"\r\n".join([*lines, b"", body]))
