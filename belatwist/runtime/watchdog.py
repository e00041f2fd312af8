"""Signs of life for systemd's watchdog, and the checks on which they depend."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from belatwist.runtime.sd_notify import Notifier

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

STATUS_EVERY = 30.0
"""Seconds between two looks at the status where there is no watchdog."""

_SHORTEST_TURN = 0.05


class ResponsivenessCheck:
    """Checks that the database still responds; an error response also counts.

    Each call starts a new request if the one before has been answered.

    :param ping: starts a request.
    :param limit: seconds after which an unanswered request is a fault. Three quarters of the
        watchdog's interval are a good choice: the second ping after a hang is withheld, so that
        systemd acts within two intervals, and an answer within one and a half is in time.
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
    """Gives signs of life at half the watchdog's interval, while all is well; and the status.

    That it runs shows that the reactor turns. While a check is not satisfied it looks again ten
    times as often, so that a stall which ends in time is not taken for a hang.

    :param reactor: the timer's clock.
    :param checks: each returns ``None``, or why it is not well.
    :param status: what to tell ``systemctl status``.
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
        self._status_failing = False
        self._timer: IDelayedCall | None = None
        self._withheld = 0
        self._withheld_since = 0.0

    def startService(self) -> None:
        """Begin, with a sign of life; without systemd there is nothing to do."""
        super().startService()
        interval = self._notifier.watchdog
        if interval is None:
            self.log.info("Systemd watchdog not enabled")
        else:
            self.log.info(
                "Systemd watchdog enabled", watchdog_interval=interval, ping_interval=interval / 2
            )
        if self._notifier.enabled:
            self._turn()

    def stopService(self) -> None:
        """Stop."""
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._notifier.watchdog is not None:
            self.log.info("Watchdog pinger stopping")

    def _turn(self) -> None:
        delay = STATUS_EVERY
        interval = self._notifier.watchdog
        if interval is not None:
            delay = max(interval / 2 if self._ping() else interval / 20, _SHORTEST_TURN)
        self._send_status()
        self._timer = self._reactor.callLater(delay, self._turn)

    def _ping(self) -> bool:
        """Give a sign of life if all is well; returns whether one was given."""
        now = self._reactor.seconds()
        reasons = [reason for check in self._checks if (reason := _reason(check)) is not None]
        if reasons:
            say = self.log.debug if self._withheld else self.log.error
            if not self._withheld:
                self._withheld_since = now
            self._withheld += 1
            say("Watchdog ping withheld", reason="; ".join(reasons))
            return False
        if self._withheld:
            seconds = round(now - self._withheld_since, 1)
            self.log.info("Watchdog pings resumed", withheld=self._withheld, seconds=seconds)
            self._withheld = 0
        return self._notifier.ping()

    def _send_status(self) -> None:
        try:
            text = self._status()
        except Exception:  # noqa: BLE001 - a status that cannot be told must not end the pings
            if not self._status_failing:
                self._status_failing = True
                self.log.failure("the status cannot be told")
        else:
            self._status_failing = False
            self._notifier.status(text)


def _reason(check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - the next turn must come
        return f"a check failed: {type(error).__name__}: {error}"
