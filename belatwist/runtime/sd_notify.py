"""Tells systemd how the service is: sd_notify(3)."""

import os
import re
import socket
from collections.abc import Mapping

from twisted.logger import Logger

from belatwist.text import one_line

_MAX_STATUS = 300
_INFINITE_USEC = 2**64 - 1


class Notifier:
    """Sends the states of sd_notify(3) to systemd, or does nothing where nobody wants them.

    Nothing here waits, and nothing is raised: a message that cannot be sent is logged, once for
    as long as that goes on.

    :param address: the socket: an absolute path, or ``@`` and an abstract name; ``None`` when
        there is none.
    :param watchdog: the watchdog's interval in seconds; ``None`` when it is not enabled.
    :ivar enabled: whether systemd listens.
    :ivar watchdog: seconds within which it wants a sign of life; ``None`` when it wants none.
    """

    log = Logger()

    def __init__(self, address: str | None, *, watchdog: float | None) -> None:
        self.enabled = address is not None
        self.watchdog = watchdog if self.enabled else None
        self._address = address or ""
        if self._address.startswith("@"):
            self._address = f"\0{self._address[1:]}"
        self._status = ""
        self._failures = 0
        self._ready_pending = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Notifier":
        """Make the one that systemd's variables ask for.

        ``NOTIFY_SOCKET`` names the socket (an ``AF_VSOCK`` one is for virtual machines, and
        counts as none). ``WATCHDOG_USEC`` is the interval, and ``WATCHDOG_PID`` the process that
        it is meant for: what is malformed, or another's, enables nothing.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        return cls(
            address if address[:1] in {"/", "@"} and len(address) > 1 else None,
            watchdog=_watchdog_interval(environment),
        )

    def ready(self) -> None:
        """Say that the start is complete; where that fails, before whatever is said next."""
        self._ready_pending = self.enabled
        self._flush_ready()

    def _flush_ready(self) -> None:
        if self._ready_pending and self._send("READY=1"):
            self._ready_pending = False

    def ping(self) -> bool:
        """Say that all is well; returns whether that could be said."""
        self._flush_ready()
        return self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Say what is going on, if that has changed.

        :param text: made one line of at most 300 characters.
        """
        self._flush_ready()
        line = one_line(text[: 2 * _MAX_STATUS])[:_MAX_STATUS]
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for this much time from now on for the start or the end that is under way."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _send(self, message: str) -> bool:
        if not self.enabled:
            return False
        # As sd_notify() itself does: a socket for each message, which is one in half a minute.
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            with socket.socket(socket.AF_UNIX, kind) as one:
                one.sendto(message.encode(), self._address)
        except OSError as error:
            say = self.log.debug if self._failures else self.log.warn
            self._failures += 1
            say("Failed to send watchdog ping", error=str(error), state=message)
            return False
        if self._failures:
            self.log.info("Watchdog pings can be sent again", failures=self._failures)
            self._failures = 0
        return True


def _watchdog_interval(environment: Mapping[str, str]) -> float | None:
    usec = _number(environment.get("WATCHDOG_USEC", ""))
    if not usec or usec >= _INFINITE_USEC:
        return None
    pid = environment.get("WATCHDOG_PID")
    if pid is not None and _number(pid) != os.getpid():
        return None
    return usec / 1e6


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,20}", text, re.ASCII) else None
