"""Watches the wall clock: notices when it jumps, and decides whether to trust it."""

from typing import TYPE_CHECKING, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.clock.comparison import DateOf, ServerComparison
from belatwist.clock.sources import STEP_MS, Clocks
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.metrics.telemetry import Telemetry

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

COMPARE_AGAIN = 1.0
"""Seconds until an untrusted clock is compared again. The uploader asks for it before each request,
and a comparison is a request itself."""

HOPELESS_MS = 2 * 24 * 3600 * 1000
"""A server drops samples that are stamped further ahead than this, and acknowledges them. Samples
of a clock that is as far behind may lie before its retention. They wait for a step of the clock,
however long."""

_FAULT = "Look for a message about the database or the disk. The agent holds samples meanwhile."

TRUSTED = Event("clock.trusted", LogLevel.info, "Clock trusted: {why}")
UNTRUSTED = Event(
    "clock.untrusted",
    LogLevel.warn,
    "Clock no longer trusted: {reason}",
    cure="Run timedatectl on the device, and check that it reaches an NTP server.",
)
SENT_UNTRUSTED = Event(
    "clock.hold_expired",
    LogLevel.warn,
    "Samples are sent with an untrusted clock, {hold:g} s on hold are over: {reason}",
    cure="Run timedatectl on the device, and check that it reaches an NTP server.",
)
STEPPED = Event(
    "clock.stepped",
    LogLevel.warn,
    "Wall clock was stepped by {step_ms} ms",
    fields=("steps",),
    cure="Nothing after a boot. Later steps mean that something else sets the clock, or that it"
    " runs badly.",
)
RESTAMPED = Event(
    "clock.samples_restamped",
    LogLevel.info,
    "Moved {count} pending samples with the clock, dropped {dropped} duplicates",
)
STATE_UNKNOWN = Event(
    "clock.state_unknown",
    LogLevel.error,
    "State of this boot's clock could not be read: {error}",
    cure=_FAULT,
)
STATE_STORED = Event("clock.state_stored", LogLevel.info, "State of the clock is stored again")
STATE_NOT_STORED = Event(
    "clock.state_not_stored",
    LogLevel.error,
    "State of the clock could not be stored: {error}",
    cure=_FAULT,
)


class ClockStore(Protocol):
    """What the timekeeper tells the store of the clock; see :mod:`belatwist.store.sql.eras`."""

    def enter_era(self, boot_id: str, offset_ms: int) -> "Deferred[bool]":
        """Find out whether this boot's clock is trusted."""
        ...

    def step_clock(self, boot_id: str, offset_ms: int, step_ms: int) -> "Deferred[tuple[int, int]]":
        """Record a step of the clock, and move samples with it.

        :return: how many samples moved, and how many were dropped as duplicates.
        """
        ...

    def trust_clock(self) -> "Deferred[None]":
        """Record that the clock is trusted."""
        ...


class Timekeeper(Service):
    """Stamps samples, and decides when they may be sent.

    It trusts the clock when the kernel reports that it is synchronised, or when the clock agrees
    with the server's. A step ends the trust. Samples that were stamped without it move with the
    next step; see :mod:`belatwist.store.sql.eras`.

    :param store: where the samples are; open.
    :param reactor: the timers' clock.
    :param date_of: asks the server for its time; ``None`` where there is no server to ask.
    :param url: asked for the time.
    :param ingest_url: where samples go, for the log.
    :param limit_ms: the largest skew with which the clock agrees with the server's.
    :param interval: seconds between two comparisons.
    :param hold: seconds after which samples are sent in spite of an untrusted clock, unless it is
        so wrong that the server would drop them.
    :ivar steps: how often the clock was stepped.
    :ivar trusted: whether the clock is trusted.
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
        self._limit_ms = limit_ms
        self._interval = interval if date_of is not None else None
        self._hold = hold
        self._telemetry = telemetry
        self.steps = 0
        self.trusted = False
        self._offset_ms = 0
        self._untrusted_since = 0.0
        self._why = ""
        self._failures = FailureLog(self.log, reactor.seconds)
        self._store_failures = FailureLog(self.log, reactor.seconds)
        self._storing = 0
        self._comparison = ServerComparison(
            reactor=reactor,
            now_ms=self.now_ms,
            measured=self._judge,
            date_of=date_of,
            url=url,
            ingest_url=ingest_url,
            limit_ms=limit_ms,
        )
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self._comparison.compare()))
        self._loop.clock = reactor

    @property
    def skew(self) -> int | None:
        """The last comparison in milliseconds, positive when the local clock is ahead.

        ``None`` before the first one, and after a step.
        """
        return self._comparison.skew

    @property
    def skew_at(self) -> float | None:
        """When :attr:`skew` was measured, in seconds on the reactor's clock."""
        return self._comparison.skew_at

    def startService(self) -> None:
        """Begin to watch. The store learns of this boot's clock before anything is stored."""
        super().startService()
        _, self._offset_ms = self._clocks.read()
        self._untrusted_since = self._reactor.seconds()
        Deferred.fromCoroutine(self._enter())
        if self._interval is not None:
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
        if self.trusted:
            self._failures.recovered(TRUSTED, why=self._why)
        else:
            self._ask_kernel()
        return wall

    async def hold_reason(self) -> str | None:
        """Return why samples should not be sent yet; ``None`` when they may be."""
        self.now_ms()
        if self._storing:
            return "the store has not recorded its state yet"
        age = self._reactor.seconds() - self._comparison.began_at
        if not self.trusted and (age >= COMPARE_AGAIN or self._comparison.comparing):
            await self._comparison.compare()
        if self.trusted:
            return None
        waited = self._reactor.seconds() - self._untrusted_since
        if waited < self._hold or self._is_hopeless():
            return self._reason()
        self._failures.failed(SENT_UNTRUSTED, "sent", reason=self._reason(), hold=self._hold)
        return None

    def _reason(self) -> str:
        if self.skew is None:
            error = f": {self._comparison.error}" if self._comparison.error else ""
            return (
                "the kernel does not keep it synchronised, and it could not be compared with the"
                f" server's{error}"
            )
        return f"it differs from the server's by {self.skew / 1000:.1f} s"

    def _is_hopeless(self) -> bool:
        """Whether the server would drop samples of this clock, and acknowledge them."""
        return abs(self.skew or 0) > HOPELESS_MS

    async def _enter(self) -> None:
        steps = self.steps
        self._storing += 1
        try:
            was_trusted = await self._store.enter_era(self._clocks.boot_id(), self._offset_ms)
        except Exception as error:  # noqa: BLE001 - the clock stays untrusted, which is safe
            STATE_UNKNOWN.failure(self.log, error=str(error))
            return
        finally:
            self._storing -= 1
        if steps != self.steps:
            return  # The answer says nothing of the clock as it is by now.
        if was_trusted:
            self._mark_trusted("an earlier run of this boot has trusted it")
        else:
            self._ask_kernel()

    def _ask_kernel(self) -> None:
        if not self._is_hopeless() and self._clocks.synchronised():
            self._mark_trusted("the kernel keeps it synchronised")

    def _mark_trusted(self, why: str) -> None:
        if self.trusted:
            return
        self.trusted, self._why = True, why
        if self._failures.failing:
            self._failures.recovered(TRUSTED, why=why)
        else:
            TRUSTED.emit(self.log, why=why)
        self._store.trust_clock().addCallbacks(self._stored, self._not_stored)

    def _mark_untrusted(self) -> None:
        """End the trust, because its reason may have been wrong itself."""
        self.trusted = False
        self._untrusted_since = self._reactor.seconds()
        is_logged = self._failures.failed(UNTRUSTED, "untrusted", reason=self._reason())
        # A new era: samples that are stored from now on move when the clock is put right.
        Deferred.fromCoroutine(self._store_step(self._offset_ms, 0, is_logged=is_logged))

    def _stepped(self, offset_ms: int, step_ms: int) -> None:
        self.steps += 1
        self._telemetry.clock_steps.inc()
        self._untrusted_since = self._reactor.seconds()
        self.trusted = False
        is_logged = self._failures.failed(STEPPED, "stepped", step_ms=step_ms, steps=self.steps)
        self._comparison.reset(is_logged=is_logged)
        Deferred.fromCoroutine(self._store_step(offset_ms, step_ms, is_logged=is_logged))

    async def _store_step(self, offset_ms: int, step_ms: int, *, is_logged: bool) -> None:
        """Record a step.

        :param is_logged: whether the step is in the log at its level; so is then what follows.
        """
        self._storing += 1
        try:
            count, dropped = await self._store.step_clock(
                self._clocks.boot_id(), offset_ms, step_ms
            )
        except Exception as error:  # noqa: BLE001 - whatever the store raises, stamping goes on
            self._not_stored(Failure(error))
            return
        finally:
            self._storing -= 1
        self._stored()
        if count:
            level = LogLevel.info if is_logged else LogLevel.debug
            RESTAMPED.emit(self.log, level=level, count=count, dropped=dropped)

    def _stored(self, _: object = None) -> None:
        self._store_failures.recovered(STATE_STORED)

    def _not_stored(self, failure: Failure) -> None:
        self._store_failures.failed(
            STATE_NOT_STORED,
            type(failure.value).__name__,
            failure=failure,
            error=str(failure.value),
        )

    def _judge(self, skew: int) -> None:
        """Trust the clock, or do not, for a comparison."""
        if abs(skew) <= self._limit_ms:
            self._mark_trusted(f"it agrees with the server's within {self._limit_ms / 1000:g} s")
        elif self.trusted and (self._is_hopeless() or not self._clocks.synchronised()):
            self._mark_untrusted()
