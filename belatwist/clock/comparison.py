"""Compares the local clock with a server's, and logs how far it is off."""

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from belatwist.clock.skew import skew_ms
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

DateOf = Callable[[str], Awaitable[tuple[str | None, str]]]
"""Fetches a URL and returns the answer's ``Date`` header, and the address (IP:port) from which it
came. The text of what it raises says what went wrong.
"""

_SKEW = ("skew_ms", "direction", "clock_skew_url", "ingest_url", "server_address")

SKEW_MEASURED = Event("clock.skew_measured", LogLevel.info, "Clock skew measured", fields=_SKEW)
SKEW_LARGE = Event(
    "clock.skew_large",
    LogLevel.warn,
    "Large clock skew detected",
    fields=(*_SKEW, "threshold_ms"),
    cure="Run timedatectl on the device, and check that it reaches an NTP server. If its clock is"
    " right, the server's is wrong.",
)
SKEW_RECOVERED = Event(
    "clock.skew_recovered", LogLevel.info, "Clock skew is within {threshold_ms} ms again"
)
FAILED = Event(
    "clock.comparison_failed",
    LogLevel.warn,
    "Failed to detect clock skew",
    fields=("error", "clock_skew_url"),
    cure="monitoring.clock_skew_url must name an address that answers, and not with a web page."
    " Without that key the agent asks the server of remote.url.",
)
RECOVERED = Event(
    "clock.comparison_recovered", LogLevel.info, "Clock comparison with {clock_skew_url} recovered"
)
TOO_SLOW = Event(
    "clock.comparison_discarded",
    LogLevel.debug,
    "Clock comparison discarded, because it took {round_trip_ms:.0f} ms",
    fields=("clock_skew_url",),
)


class ServerComparison:
    """Asks a server for its time, and keeps the skew.

    :param reactor: the clock that times requests.
    :param now_ms: returns the local clock's Unix time in milliseconds. It may find a step of the
        clock, and call :meth:`reset`.
    :param measured: called with each skew, before :meth:`compare` returns anywhere.
    :param date_of: asks the server for its time; ``None`` where there is no server to ask.
    :param url: asked for the time.
    :param ingest_url: where samples go, for the log.
    :param limit_ms: a larger skew is logged as a warning. A comparison that takes longer says
        nothing, because the round trip is the uncertainty of its result.
    :ivar skew: milliseconds, positive when the local clock is ahead; ``None`` when unknown.
    :ivar skew_at: when that was measured, in seconds on the reactor's clock.
    :ivar began_at: when the last comparison began, on the same clock.
    :ivar error: why the last comparison failed; empty when it did not.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: "IReactorTime",
        now_ms: Callable[[], int],
        measured: Callable[[int], None],
        date_of: DateOf | None,
        url: str,
        ingest_url: str,
        limit_ms: int,
    ) -> None:
        self._reactor = reactor
        self._now_ms = now_ms
        self._on_measured = measured
        self._date_of = date_of
        self._url = url
        self._shown_url = url.partition("?")[0]
        self._ingest_url = ingest_url
        self._limit_ms = limit_ms
        self._failures = FailureLog(self.log, reactor.seconds)
        self._large_skews = FailureLog(self.log, reactor.seconds)
        self._resets = 0
        self._joining: list[Deferred[None]] | None = None
        self.reset()

    def reset(self, *, is_logged: bool = True) -> None:
        """Forget the skew: the clock was stepped, and is another one now.

        :param is_logged: whether to log the next comparison at info, because the step was logged.
        """
        self._resets += 1
        self._is_new = is_logged
        self.skew: int | None = None
        self.skew_at: float | None = None
        self.began_at = -math.inf
        self.error = ""

    @property
    def comparing(self) -> bool:
        """Whether a comparison is under way."""
        return self._joining is not None

    async def compare(self) -> None:
        """Compare the clocks, or wait for the comparison that is under way. Never fails."""
        if self._joining is not None:
            joined: Deferred[None] = Deferred()
            self._joining.append(joined)
            await joined
            return
        self._joining = []
        try:
            await self._ask_server()
        finally:
            joining, self._joining = self._joining, None
            for one in joining:
                one.callback(None)

    async def _ask_server(self) -> None:
        if self._date_of is None:
            return
        sent_ms = self._now_ms()
        sent, resets = self._reactor.seconds(), self._resets
        self.began_at = sent
        try:
            date, server = await self._date_of(self._url)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the next comparison comes
            self._failed(str(error), type(error.__cause__ or error).__name__)
            return
        self._now_ms()
        if resets != self._resets:
            return  # The answer says nothing of the clock as it is by now.
        round_trip_ms = (self._reactor.seconds() - sent) * 1000
        if round_trip_ms > self._limit_ms:
            TOO_SLOW.emit(
                self.log, round_trip_ms=round(round_trip_ms, 1), clock_skew_url=self._shown_url
            )
            return
        skew = skew_ms(date, sent_ms, round_trip_ms)
        if skew is None:
            reason = f"{'no' if date is None else 'an unreadable'} Date in the answer"
            self._failed(reason, reason)
            return
        self._measured(skew, server)
        self._on_measured(skew)

    def _failed(self, reason: str, kind: str) -> None:
        self.error = reason
        self._failures.failed(FAILED, kind, error=reason, clock_skew_url=self._shown_url)

    def _measured(self, skew: int, server: str) -> None:
        self.error = ""
        self._failures.recovered(RECOVERED, clock_skew_url=self._shown_url)
        is_first, self._is_new = self._is_new, False
        self.skew, self.skew_at = skew, self._reactor.seconds()
        direction = "ahead of" if skew > 0 else "behind"
        fields: dict[str, Any] = {
            "skew_ms": skew,
            "direction": f"{direction} the server's clock",
            "clock_skew_url": self._shown_url,
            "ingest_url": self._ingest_url,
            "server_address": server,
        }
        if abs(skew) > self._limit_ms:
            has_changed = self._large_skews.failed(
                SKEW_LARGE, direction, threshold_ms=self._limit_ms, **fields
            )
        else:
            has_changed = self._large_skews.recovered(SKEW_RECOVERED, threshold_ms=self._limit_ms)
        level = LogLevel.info if is_first or has_changed else LogLevel.debug
        SKEW_MEASURED.emit(self.log, level=level, **fields)
