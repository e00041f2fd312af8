"""Pings for systemd's watchdog, and the checks on which they depend."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.runtime.sd_notify import Notifier

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

STATUS_EVERY = 30.0
"""Seconds between two reports of the status, where no watchdog is enabled."""

_SHORTEST_TURN = 0.05

ENABLED = Event(
    "watchdog.enabled",
    LogLevel.info,
    "Systemd watchdog enabled",
    fields=("watchdog_interval", "ping_interval"),
)
DISABLED = Event("watchdog.disabled", LogLevel.info, "Systemd watchdog not enabled")
STOPPING = Event("watchdog.stopping", LogLevel.info, "Watchdog pinger stopping")
PING_WITHHELD = Event(
    "watchdog.ping_withheld",
    LogLevel.error,
    "Watchdog ping withheld",
    fields=("reason",),
    cure="systemd restarts a service that hangs. A card that stalls for minutes is the usual cause:"
    " replace it if this happens again.",
)
PINGS_RESUMED = Event("watchdog.pings_resumed", LogLevel.info, "Watchdog pings resumed")
STATUS_FAILED = Event(
    "watchdog.status_failed",
    LogLevel.error,
    "Status line for systemd failed: {error}",
    cure="This is a fault of the program: report it with the traceback.",
)
STATUS_RECOVERED = Event(
    "watchdog.status_recovered", LogLevel.info, "Status line for systemd recovered"
)


class ResponsivenessCheck:
    """Checks that the database still responds; an error response also counts.

    Each call starts a new request if the one before has been answered.

    :param ping: starts a request.
    :param limit: seconds after which an unanswered request is a fault. Three quarters of the
        watchdog's interval are a good choice: the second ping after a hang is withheld. systemd
        then acts within two intervals, and an answer within one and a half is in time.
    :param progress: returns when long work last reported progress, on the reactor's clock; ``None``
        when no such work is under way. A database that makes progress does not hang.
    """

    def __init__(
        self,
        ping: "Callable[[], Deferred[Any]]",
        *,
        reactor: "IReactorTime",
        limit: float,
        progress: Callable[[], float | None],
    ) -> None:
        self._ping = ping
        self._reactor = reactor
        self._limit = limit
        self._progress = progress
        self._asked: float | None = None

    def __call__(self) -> str | None:
        """Return the fault; ``None`` when there is none."""
        now = self._reactor.seconds()
        if self._asked is None:
            self._asked = now
            maybeDeferred(self._ping).addBoth(self._answered)
            return None
        silent = now - max(self._asked, self._progress() or 0.0)
        if silent <= self._limit:
            return None
        return f"the database has not answered for {silent:.0f} s"

    def _answered(self, _: object) -> None:
        self._asked = None


class RecencyCheck:
    """Checks that at least one collector has run recently.

    Each collector has three of its intervals, and no less than ``minimum``, since its last run or
    since the first call.

    :param last_runs: yields, of each collector, when its last run ended on the reactor's clock
        (``None`` before the first), and its interval in seconds.
    :param minimum: seconds; three quarters of the watchdog's interval are a good choice.
    """

    def __init__(
        self,
        last_runs: Callable[[], Iterable[tuple[float | None, float]]],
        *,
        reactor: "IReactorTime",
        minimum: float,
    ) -> None:
        self._last_runs = last_runs
        self._reactor = reactor
        self._minimum = minimum
        self._began: float | None = None

    def __call__(self) -> str | None:
        """Return the fault; ``None`` when there is none, or no collector."""
        now = self._reactor.seconds()
        if self._began is None:
            self._began = now
        shortest = None
        for ended_at, interval in self._last_runs():
            ago = now - max(self._began, ended_at or 0.0)
            if ago <= max(3 * interval, self._minimum):
                return None
            shortest = ago if shortest is None else min(ago, shortest)
        return None if shortest is None else f"collection has not run for {shortest:.0f} s"


class Watchdog(Service):
    """Pings systemd at half the watchdog's interval while every check passes; sends the status.

    A ping also shows that the reactor runs. While a check fails, all are repeated ten times as
    often, so that a stall which ends in time does not count as a hang.

    :param reactor: the timer's clock.
    :param checks: each returns a fault in words, or ``None``.
    :param status: returns the line that ``systemctl status`` shows.
    """

    log = Logger()
    name = "watchdog"

    def __init__(
        self,
        notifier: Notifier,
        *,
        reactor: "IReactorTime",
        checks: Sequence[Callable[[], str | None]],
        status: Callable[[], str],
    ) -> None:
        self._notifier = notifier
        self._reactor = reactor
        self._checks = checks
        self._status = status
        self._timer: IDelayedCall | None = None
        self._withheld = FailureLog(self.log, reactor.seconds)
        self._status_failures = FailureLog(self.log, reactor.seconds)

    def startService(self) -> None:
        """Begin with a ping; without systemd, do nothing."""
        super().startService()
        interval = self._notifier.watchdog
        if interval is None:
            DISABLED.emit(self.log)
        else:
            ENABLED.emit(self.log, watchdog_interval=interval, ping_interval=interval / 2)
        if self._notifier.enabled:
            self._turn()

    def stopService(self) -> None:
        """Stop."""
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._notifier.watchdog is not None:
            STOPPING.emit(self.log)

    def _turn(self) -> None:
        delay = STATUS_EVERY
        interval = self._notifier.watchdog
        if interval is not None:
            delay = max(interval / 2 if self._ping() else interval / 20, _SHORTEST_TURN)
        self._send_status()
        self._timer = self._reactor.callLater(delay, self._turn)

    def _ping(self) -> bool:
        """Ping if every check passes; returns whether systemd has the ping."""
        reasons = [_fault(check) for check in self._checks]
        failed = [(str(number), reason) for number, reason in enumerate(reasons) if reason]
        if failed:
            numbers, texts = zip(*failed, strict=True)
            # A reason has a growing number of seconds in it.
            self._withheld.failed(PING_WITHHELD, ",".join(numbers), reason="; ".join(texts))
            return False
        self._withheld.recovered(PINGS_RESUMED)
        return self._notifier.ping()

    def _send_status(self) -> None:
        try:
            text = self._status()
        except Exception as error:  # noqa: BLE001 - a status that cannot be made must not end the pings
            self._status_failures.failed(
                STATUS_FAILED, type(error).__name__, failure=Failure(), error=str(error)
            )
        else:
            self._status_failures.recovered(STATUS_RECOVERED)
            self._notifier.status(text)


def _fault(check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - the next turn must come
        return f"a check failed: {type(error).__name__}: {error}"
