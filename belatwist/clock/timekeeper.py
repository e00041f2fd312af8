"""Watches the wall clock: notices when it jumps, and finds out whether it is right."""

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.clock.skew import skew_ms
from belatwist.clock.sources import STEP_MS, Clocks
from belatwist.log.throttle import Trouble
from belatwist.metrics.telemetry import Telemetry

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

COMPARE_AGAIN = 1.0
"""Seconds until a doubtful clock is compared again: it is asked about before each request, and a
comparison is a request itself."""

HOPELESS_MS = 2 * 24 * 3600 * 1000
"""A server drops what is stamped further ahead than this, and says that it has taken it; what is
stamped by a clock that is as far behind may lie before its retention. Such samples wait for a step
of the clock, however long."""

DateOf = Callable[[str], Awaitable[tuple[str | None, str]]]
"""Fetches a URL and returns the answer's ``Date`` header and the address (IP:port) from which it
came; fails in words.
"""


class ClockStore(Protocol):
    """What the timekeeper tells the store of the clock; see :mod:`belatwist.store.sql.eras`."""

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is known to be good."""
        ...

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[tuple[int, int]]":
        """Record a step of the clock, and move samples with it.

        :return: how many samples moved, and how many were dropped as duplicates.
        """
        ...

    def trust_clock(self) -> "Deferred[None]":
        """Record that the clock is known to be good."""
        ...


class Timekeeper(Service):
    """Stamps samples, and says when they may be sent.

    The clock is known to be good when the kernel says that somebody keeps it right, or when it
    agrees with the server's. A step of the clock takes that knowledge away. What was stamped
    without it moves with the next step; see :mod:`belatwist.store.sql.eras`.

    :param store: where the samples are; open.
    :param reactor: the timers' clock.
    :param date_of: asks the server for its time; ``None`` where there is no server to ask.
    :param url: whom to ask.
    :param ingest_url: where samples go, for the log.
    :param limit_ms: a clock that differs from the server's by more is not good.
    :param interval: seconds between two comparisons.
    :param hold: seconds after which samples are sent all the same, unless the clock is known to be
        so wrong that the server would drop them.
    :ivar steps: how often the clock was stepped.
    :ivar skew: the last comparison in milliseconds, positive when our clock is ahead; ``None``
        before there was one, and after a step.
    :ivar skew_at: when that was, in seconds on the reactor's clock; ``None`` when there is none.
    :ivar trusted: whether the clock is known to be good.
    """

    log = Logger()
    name = "clock"

    def __init__(
        self,
        store: ClockStore,
        clocks: Clocks,
        *,
        reactor: "IReactorTime",
        date_of: DateOf | None,
        url: str,
        ingest_url: str,
        limit_ms: int,
        interval: float,
        hold: float,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._clocks = clocks
        self._reactor = reactor
        self._date_of = date_of
        self._url = url
        self._shown_url = url.partition("?")[0]
        self._ingest_url = ingest_url
        self._limit_ms = limit_ms
        self._interval = interval
        self._hold = hold
        self._telemetry = telemetry
        self.steps = 0
        self.skew: int | None = None
        self.skew_at: float | None = None
        self.trusted = False
        self._offset_ms = 0
        self._untrusted_since = 0.0
        self._told_hold = False
        self._trouble = Trouble(reactor.seconds)
        self._error = ""
        self._skewed: bool | None = None
        self._noting = 0
        self._compared_at = -math.inf
        self._joining: list[Deferred[None]] | None = None
        self._loop = LoopingCall(self._compare_now)
        self._loop.clock = reactor

    def startService(self) -> None:
        """Begin to watch. The store learns of this boot's clock before anything is stored."""
        super().startService()
        _, self._offset_ms = self._clocks.read()
        self._untrusted_since = self._reactor.seconds()
        Deferred.fromCoroutine(self._enter())
        if self._date_of is not None:
            self._loop.start(self._interval)

    def stopService(self) -> "Deferred[None] | None":
        """Stop comparing."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return None

    def now_ms(self) -> int:
        """Return Unix time in milliseconds, for a stamp; takes note of a step since the last."""
        wall, offset = self._clocks.read()
        step, self._offset_ms = offset - self._offset_ms, offset
        if abs(step) >= STEP_MS:
            self._stepped(offset, step)
        if not self.trusted:
            self._ask_kernel()
        return wall

    async def hold_reason(self) -> str | None:
        """Say why samples should not be sent yet; ``None`` when nothing speaks against it."""
        self.now_ms()
        if self._noting:
            return "the store has not taken note of its state yet"
        age = self._reactor.seconds() - self._compared_at
        if not self.trusted and (age >= COMPARE_AGAIN or self._joining is not None):
            await self._compare()
        if self.trusted:
            return None
        waited = self._reactor.seconds() - self._untrusted_since
        if waited < self._hold or abs(self.skew or 0) > HOPELESS_MS:
            return self._reason()
        if not self._told_hold:
            self._told_hold = True
            self.log.warn(
                "the clock is not known to be good ({reason}); after {hold:.0f} s samples are sent"
                " all the same",
                reason=self._reason(),
                hold=self._hold,
            )
        return None

    def _reason(self) -> str:
        if self.skew is None:
            asked = f": {self._error}" if self._error else ""
            return (
                "the kernel does not keep it synchronised, and it could not be compared with the"
                f" server's{asked}"
            )
        return f"it differs from the server's by {self.skew / 1000:.1f} s"

    async def _enter(self) -> None:
        steps = self.steps
        self._noting += 1
        try:
            good = await self._store.enter_era(self._clocks.boot_id(), self._offset_ms)
        except Exception:  # noqa: BLE001 - the clock then counts as doubtful, which is safe
            self.log.failure("cannot look up what is known of this boot's clock")
            return
        finally:
            self._noting -= 1
        if steps != self.steps:
            return  # It says nothing of the clock as it is by now.
        if good:
            self._mark_trusted("this boot's clock was found good before")
        else:
            self._ask_kernel()

    def _ask_kernel(self) -> None:
        # Two days off, whoever is right: the server would drop samples, and say that it has them.
        if abs(self.skew or 0) <= HOPELESS_MS and self._clocks.synchronised():
            self._mark_trusted("the kernel keeps it synchronised")

    def _mark_trusted(self, why: str) -> None:
        if self.trusted:
            return
        self.trusted = True
        self._told_hold = False
        self.log.info("the clock is known to be good: {why}", why=why)
        self._store.trust_clock().addErrback(self._not_noted)

    def _mark_untrusted(self) -> None:
        """Take back that the clock is good: what vouched for it may have been wrong itself."""
        self.trusted = False
        self._untrusted_since = self._reactor.seconds()
        self.log.warn("the clock is no longer known to be good: {reason}", reason=self._reason())
        # A new era: what is stored from now on moves when the clock is put right.
        Deferred.fromCoroutine(self._note_step(self._offset_ms, 0))

    def _stepped(self, offset_ms: int, step_ms: int) -> None:
        self.steps += 1
        self._telemetry.clock_steps.inc()
        self._untrusted_since = self._reactor.seconds()
        self.trusted = False
        self.skew = self.skew_at = None
        self._skewed = None
        self._compared_at = -math.inf
        self.log.warn(
            "the wall clock was stepped by {step_ms} ms", step_ms=step_ms, steps=self.steps
        )

        Deferred.fromCoroutine(self._note_step(offset_ms, step_ms))

    async def _note_step(self, offset_ms: int, step_ms: int) -> None:
        self._noting += 1
        try:
            moved, dropped = await self._store.step_clock(
                self._clocks.boot_id(), offset_ms, step_ms
            )
        except Exception:  # noqa: BLE001 - whatever the store raises, stamping goes on
            self.log.failure("cannot take note of the clock's step")
            return
        finally:
            self._noting -= 1
        if moved:
            self.log.info(
                "moved {count} pending samples with the clock ({dropped} were there already)",
                count=moved,
                dropped=dropped,
            )

    def _not_noted(self, failure: Failure) -> None:
        self.log.failure("cannot take note of the clock's state", failure=failure)

    def _compare_now(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._compare())

    async def _compare(self) -> None:
        """Compare the clock with the server's, or wait for who does so already. Never fails."""
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
        sent_ms = self.now_ms()
        sent, steps = self._reactor.seconds(), self.steps
        self._compared_at = sent
        try:
            date, server = await self._date_of(self._url)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, the next comparison comes
            self._not_compared(str(error))
            return
        self.now_ms()
        if steps != self.steps:
            return  # It says nothing of the clock as it is by now.
        round_trip_ms = (self._reactor.seconds() - sent) * 1000
        if round_trip_ms > self._limit_ms:
            self.log.debug(
                "a comparison of the clock took {round_trip_ms:.0f} ms, and says nothing",
                clock_skew_url=self._shown_url,
                round_trip_ms=round(round_trip_ms, 1),
            )
            return
        skew = skew_ms(date, sent_ms, round_trip_ms)
        if skew is None:
            self._not_compared(f"{'no' if date is None else 'an unreadable'} Date in the answer")
            return
        self._compared(skew, server)

    def _not_compared(self, reason: str) -> None:
        """Tell of a comparison that came to nothing: loudly when it is the first.

        A clock that is not known to be good is compared before each upload, on whatever link.
        """
        self._error = reason
        self.log.emit(
            LogLevel.warn if self._trouble.fails() else LogLevel.debug,
            "Failed to detect clock skew",
            error=reason,
            clock_skew_url=self._shown_url,
        )

    def _compared(self, skew: int, server: str) -> None:
        """Take note of a comparison; tell of it loudly when it differs in kind from the last."""
        if (over := self._trouble.works()) is not None:
            self.log.emit(
                LogLevel.info if over.loud else LogLevel.debug,
                "the clock can be compared again, after {seconds:.0f} s and {failures} failures",
                seconds=over.seconds,
                failures=over.failures,
                clock_skew_url=self._shown_url,
            )
        self.skew, self.skew_at = skew, self._reactor.seconds()
        large = abs(skew) > self._limit_ms
        changed, self._skewed = large is not self._skewed, large
        fields: dict[str, object] = {
            "skew_ms": skew,
            "direction": f"{'ahead of' if skew > 0 else 'behind'} the server's clock",
            "clock_skew_url": self._shown_url,
            "ingest_url": self._ingest_url,
            "server_address": server,
        }
        level = LogLevel.info if changed else LogLevel.debug
        self.log.emit(level, "Clock skew measured", **fields)
        if large:
            level = LogLevel.warn if changed else LogLevel.debug
            fields["threshold_ms"] = self._limit_ms
            self.log.emit(level, "Large clock skew detected", **fields)
            hopeless = abs(skew) > HOPELESS_MS
            if self.trusted and (hopeless or not self._clocks.synchronised()):
                self._mark_untrusted()
        else:
            self._mark_trusted(f"it agrees with the server's within {self._limit_ms / 1000:g} s")
