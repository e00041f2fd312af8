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


class Answering:
    """A check that somebody still answers, whatever the answer: who says no is alive.

    Each call puts the question again, if the one before was answered.

    A good limit is three quarters of the watchdog's interval: who hangs is noticed at the second
    ping, so that systemd acts within two intervals; an answer that takes less than one and a half
    is waited for.

    :param ask: puts the question.
    :param limit: seconds after which a question that is not answered tells of a fault.
    :param progress: tells when a long piece of work last gave a sign of life, on the reactor's
        clock; ``None`` when nothing of the kind is under way. Who works does not hang.
    :param who: what is asked, for the text.
    """

    def __init__(
        self,
        ask: "Callable[[], Deferred[Any]]",
        *,
        reactor: "IReactorTime",
        limit: float,
        progress: Callable[[], float | None],
        who: str = "the database",
    ) -> None:
        self._ask = ask
        self._reactor = reactor
        self._limit = limit
        self._progress = progress
        self._who = who
        self._asked: float | None = None

    def __call__(self) -> str | None:
        """Return why it is not well, ``None`` when it is."""
        now = self._reactor.seconds()
        if self._asked is None:
            self._asked = now
            maybeDeferred(self._ask).addBoth(self._answered)
            return None
        silent = now - max(self._asked, self._progress() or 0.0)
        if silent <= self._limit:
            return None
        return f"{self._who} has not answered for {silent:.0f} s"

    def _answered(self, _: object) -> None:
        self._asked = None


class Lately:
    """A check that at least one of several things goes on, each at an interval of its own.

    Something is given three of its intervals, and no less than ``least``, since it last happened or
    since this was first asked.

    :param last: gives of each thing when it last happened, on the reactor's clock (``None`` when
        not yet), and its interval in seconds.
    :param least: seconds; three quarters of the watchdog's interval are a good choice.
    :param what: what should go on, for the text.
    """

    def __init__(
        self,
        last: Callable[[], Iterable[tuple[float | None, float]]],
        *,
        reactor: "IReactorTime",
        least: float,
        what: str = "collection",
    ) -> None:
        self._last = last
        self._reactor = reactor
        self._least = least
        self._what = what
        self._began: float | None = None

    def __call__(self) -> str | None:
        """Return why it is not well, ``None`` when it is; nothing at all is well."""
        now = self._reactor.seconds()
        if self._began is None:
            self._began = now
        shortest = None
        for at, interval in self._last():
            ago = now - max(self._began, at or 0.0)
            if ago <= max(3 * interval, self._least):
                return None
            shortest = ago if shortest is None else min(ago, shortest)
        return None if shortest is None else f"{self._what} has not run for {shortest:.0f} s"


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
        self._tell_status()
        self._timer = self._reactor.callLater(delay, self._turn)

    def _ping(self) -> bool:
        """Give a sign of life if all is well; returns whether one was given."""
        now = self._reactor.seconds()
        reasons = [reason for check in self._checks if (reason := _ask(check)) is not None]
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
        return self._notifier.alive()

    def _tell_status(self) -> None:
        try:
            text = self._status()
        except Exception:  # noqa: BLE001 - a status that cannot be told must not end the pings
            if not self._status_failing:
                self._status_failing = True
                self.log.failure("the status cannot be told")
        else:
            self._status_failing = False
            self._notifier.status(text)


def _ask(check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - the next turn must come
        return f"a check failed: {type(error).__name__}: {error}"
