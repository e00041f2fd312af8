"""The other end of sd_notify(3): a real datagram socket, and what was logged meanwhile."""

import socket
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from twisted.internet.task import Clock
from twisted.logger import LogEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.runtime.sd_notify import Notifier
from tests.log_events import Captured


class Systemd:
    """The other end: a bound datagram socket.

    :param address: as in ``NOTIFY_SOCKET``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of a service."""
        return {"NOTIFY_SOCKET": self.address, **more}

    def heard(self) -> list[str]:
        """Return what came since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(65536).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        """Close the socket, and let a path stay behind."""
        self._socket.close()


def abstract() -> str:
    """Return an unused abstract address."""
    return f"@belatwist-test-{uuid4()}"


class SystemdTestCase(SynchronousTestCase):
    """With a systemd that listens, and the log captured."""

    def setUp(self) -> None:
        self.systemd = Systemd(abstract())
        self.addCleanup(self.systemd.close)
        self.clock = Clock()
        self.captured = Captured()
        self.enterContext(self.captured)

    def notifier(self, **more: str) -> Notifier:
        """Make one that this systemd hears."""
        return self.notifier_of(self.systemd.environment(**more))

    def notifier_of(self, environment: Mapping[str, str]) -> Notifier:
        """Make one of an environment, on the test's clock."""
        return Notifier.from_environment(environment, seconds=self.clock.seconds)

    def events(self, text: str) -> list[LogEvent]:
        """Return the logged events with a text."""
        return [e for e in self.captured.events if e.get("log_format") == text]

    def event(self, text: str) -> tuple[str, dict[str, Any]]:
        """Return the level and the fields of the one event with a text, but for its name."""
        (one,) = self.events(text)
        fields = {key: value for key, value in one.items() if not key.startswith("log_")}
        return one["log_level"].name, {k: v for k, v in fields.items() if k not in LEGACY}


# Added by trial's own observer, when it has seen an event first.
LEGACY = {"message", "time", "system", "format", "isError", "event"}
