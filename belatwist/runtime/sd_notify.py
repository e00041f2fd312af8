"""Reports the state of the service to systemd: sd_notify(3)."""

import os
import re
import socket
from collections.abc import Callable, Mapping

from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.text import one_line

NOTIFY_FAILED = Event(
    "sd_notify.failed",
    LogLevel.warn,
    "Failed to send watchdog ping",
    fields=("error", "state"),
    cure="systemd is usually overloaded: the next message succeeds. Otherwise restart the service.",
)
NOTIFY_RECOVERED = Event("sd_notify.recovered", LogLevel.info, "Watchdog pings can be sent again")

_MAX_STATUS = 300
_INFINITE_USEC = 2**64 - 1


class Notifier:
    """Sends the states of sd_notify(3) to systemd; does nothing without systemd.

    No method waits or raises: a message that cannot be sent is logged.

    :param address: the socket: an absolute path, or ``@`` and an abstract name; ``None`` when
        there is none.
    :param watchdog: the watchdog's interval in seconds; ``None`` when it is not enabled.
    :param seconds: a monotonic clock.
    :ivar enabled: whether systemd listens.
    :ivar watchdog: seconds within which systemd expects a ping; ``None`` when it expects none.
    """

    log = Logger()

    def __init__(
        self, address: str | None, *, watchdog: float | None, seconds: Callable[[], float]
    ) -> None:
        self.enabled = address is not None
        self.watchdog = watchdog if self.enabled else None
        self._address = address or ""
        if self._address.startswith("@"):
            self._address = f"\0{self._address[1:]}"
        self._status = ""
        self._failures = FailureLog(self.log, seconds)
        self._ready_pending = False

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], *, seconds: Callable[[], float]
    ) -> "Notifier":
        """Make the notifier that systemd's variables describe.

        ``NOTIFY_SOCKET`` names the socket; one of ``AF_VSOCK``, which is for virtual machines,
        counts as none. ``WATCHDOG_USEC`` is the interval, and ``WATCHDOG_PID`` the process that
        it is meant for. A malformed value, or another process's, enables nothing.

        :param seconds: a monotonic clock.
        """
        address = environment.get("NOTIFY_SOCKET", "")
        return cls(
            address if address[:1] in {"/", "@"} and len(address) > 1 else None,
            watchdog=_watchdog_interval(environment),
            seconds=seconds,
        )

    def ready(self) -> None:
        """Report that the start is complete.

        If that fails, the next message of any kind first tries again.
        """
        self._ready_pending = self.enabled
        self._flush_ready()

    def _flush_ready(self) -> None:
        if self._ready_pending and self._send("READY=1"):
            self._ready_pending = False

    def ping(self) -> bool:
        """Send a watchdog ping; returns whether systemd has it."""
        self._flush_ready()
        return self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Report the state in words, if it has changed.

        :param text: is made one line of at most 300 characters.
        """
        self._flush_ready()
        line = one_line(text, _MAX_STATUS)
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def stopping(self) -> None:
        """Report that the end has begun."""
        self._send("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for more time for the start or the end that is under way: seconds from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _send(self, message: str) -> bool:
        if not self.enabled:
            return False
        # A socket for each message, as sd_notify() itself has it: there are two in a minute.
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            with socket.socket(socket.AF_UNIX, kind) as connection:
                connection.sendto(message.encode(), self._address)
        except OSError as error:
            self._failures.failed(
                NOTIFY_FAILED, type(error).__name__, error=str(error), state=message
            )
            return False
        self._failures.recovered(NOTIFY_RECOVERED)
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
