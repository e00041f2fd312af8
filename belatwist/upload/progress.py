"""How uploads are going: told to the log, counted, and kept for whoever asks after their health."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.log.throttle import Trouble
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Series
from belatwist.store import Row, SampleStore
from belatwist.text import one_line
from belatwist.upload.cycle import Cycle
from belatwist.upload.policy import Accepted, NotAccepted, OnHold, Retry, advice
from belatwist.upload.retry import Sent

if TYPE_CHECKING:
    from constantly import NamedConstant
    from twisted.internet.interfaces import IReactorTime


_MOST_SAID = 120
"""Characters of a server's answer in front of what to check."""


class Progress:
    """Takes note of everything that happens to samples on their way.

    What goes on for hours is told once, loudly: each kind of failure at its first time, and one
    summary when it is over. The rest is for those who debug. All moments are seconds on the
    reactor's clock.

    :param endpoint: where bodies go, without anything secret.
    :ivar last_upload_at: when the server last took samples; ``None`` when it did not yet.
    :ivar caught_up_at: when nothing was pending last, or uploads were started.
    :ivar misconfigured: whether the server's last answer says that the configuration is wrong.
    :ivar retrying: samples of the body that is being tried again, 0 when none is.
    """

    log = Logger()

    def __init__(
        self,
        store: SampleStore,
        *,
        reactor: "IReactorTime",
        telemetry: Telemetry,
        endpoint: str,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._telemetry = telemetry
        self._endpoint = endpoint
        self.last_upload_at: float | None = None
        self.caught_up_at = reactor.seconds()
        self.misconfigured = False
        self.retrying = 0
        self._quiet = False
        self._error: str | None = None
        self._trouble = Trouble(reactor.seconds)
        self._hold = Trouble(reactor.seconds)
        self._told: set[str] = set()
        self._rejected: set[Series] = set()
        self._broken: str | None = None
        self._broken_since = 0.0
        self._broken_cycles = 0

    @property
    def error(self) -> str | None:
        """Why samples could not be sent the last time; ``None`` when they could."""
        return self._broken or self._error

    def started(self) -> None:
        """Uploads begin: what was pending before is not late yet."""
        self.caught_up_at = self._reactor.seconds()

    def look(self) -> None:
        """Take note of the moment if nothing is pending."""
        if not self._store.pending:
            self.caught_up_at = self._reactor.seconds()

    def accepted(self, cycle: Cycle, count: int, size: int, outcome: Accepted, sent: Sent) -> None:
        """The server has taken a chunk.

        :param count: its samples.
        :param size: bytes of its body.
        """
        self.last_upload_at = self._reactor.seconds()
        self._telemetry.metrics_uploaded.inc(count)
        self._works()
        self.log.emit(
            LogLevel.debug if self._quiet else LogLevel.info,
            "Upload chunk succeeded",
            batch_id=cycle.batch_id,
            chunk_index=cycle.chunks,
            attempt=sent.attempt,
            count=count,
            endpoint=self._endpoint,
            http_status=outcome.status,
            bytes_sent=size,
            bytes_rcvd=outcome.received_bytes,
            duration_ms=_ms(sent.seconds),
        )
        self._quiet = True
        cycle.chunks += 1
        cycle.samples += count
        cycle.bytes += size

    def will_retry(
        self, cycle: Cycle, count: int, failure: Retry, attempt: int, wait: float
    ) -> None:
        """A try has failed, and another one follows.

        :param count: samples of the body.
        :param attempt: which try that was.
        :param wait: seconds until the next one.
        """
        self.retrying = count
        self._failed(
            cycle,
            failure,
            LogLevel.warn,
            "Upload chunk failed, retrying",
            kind="retrying",
            attempt=attempt,
            backoff_ms=_ms(wait),
            count=count,
        )

    def failed(self, cycle: Cycle, failure: NotAccepted, attempt: int) -> None:
        """The cycle ends: everything else stays pending for the next one.

        :param failure: a refusal is one of everything that is sent.
        :param attempt: which try that was, or would have been.
        """
        cycle.incomplete = True
        check = advice(failure)
        text = "upload failed, {pending} samples wait: {error}"
        if isinstance(failure, OnHold):
            text = "uploads wait, and {pending} samples with them: {error}"
        self._failed(
            cycle,
            failure,
            LogLevel.error if check else LogLevel.warn,
            f"{text}; check {{check}}" if check else text,
            kind=type(failure).__name__,
            attempt=attempt,
            pending=self._store.pending,
            **({"check": check} if check else {}),
        )

    def refused(self, cycle: Cycle) -> None:
        """The server has refused samples all by themselves; they will be asked about again."""
        cycle.incomplete = True

    def rejected(
        self, cycle: Cycle, rows: Sequence[Row], series: Mapping[int, Series], reason: str
    ) -> None:
        """Samples will not be sent: the server refuses them, or would drop them.

        :param rows: samples of any series; each series is told of once, loudly.
        """
        cycle.incomplete = True
        cycle.rejected += len(rows)
        self._telemetry.metrics_rejected.inc(len(rows))
        counts: dict[Series, int] = {}
        for row in rows:
            one = series[row[1]]
            counts[one] = counts.get(one, 0) + 1
        for one, count in counts.items():
            self.log.emit(
                LogLevel.debug if one in self._rejected else LogLevel.warn,
                "{count} samples of {metric} {tags} are not sent, {reason}",
                batch_id=cycle.batch_id,
                count=count,
                reason=reason,
                metric=one.name[:200],
                tags=one.tags_json[:200],
            )
            self._rejected.add(one)

    def ended(self, cycle: Cycle) -> None:
        """A cycle has come to its end."""
        self.look()
        if cycle.samples and cycle.incomplete:
            self._telemetry.partial_success.inc()
        if cycle.samples or cycle.rejected:
            self.log.info(
                "uploaded {count} samples in {chunks} requests, {bytes_sent} bytes,"
                " {duration_ms:.0f} ms; {rejected} rejected, {pending} pending",
                batch_id=cycle.batch_id,
                count=cycle.samples,
                chunks=cycle.chunks,
                bytes_sent=cycle.bytes,
                duration_ms=_ms(self._reactor.seconds() - cycle.began),
                rejected=cycle.rejected,
                pending=self._store.pending,
            )

    def broke(self, error: Exception) -> None:
        """A cycle was ended by an error of our own."""
        if self._broken is None:
            self._broken_since = self._reactor.seconds()
            self._broken_cycles = 0
        self._broken_cycles += 1
        text = one_line(f"{type(error).__name__}: {error}")
        if text == self._broken:
            self.log.debug("upload cycle failed again: {error}", error=text)
        else:
            self.log.failure(
                "upload cycle failed; the next one comes at its time",
                failure=Failure(error, type(error), error.__traceback__),
                level=LogLevel.error,
            )
        self._broken = text

    def ran(self) -> None:
        """A cycle has ended by itself, whatever the server said."""
        if self._broken is not None:
            self.log.info(
                "upload cycles run again, after {seconds:.0f} s and {failures} failures",
                seconds=round(self._reactor.seconds() - self._broken_since, 1),
                failures=self._broken_cycles,
            )
            self._broken = None

    def _failed(
        self,
        cycle: Cycle,
        failure: NotAccepted,
        level: "NamedConstant",
        text: str,
        *,
        kind: str,
        **fields: object,
    ) -> None:
        """Tell of a failure, loudly when it is the first of its kind, quietly while it goes on."""
        check = advice(failure)
        self.misconfigured = check is not None
        self._error = failure.reason
        if check:
            # What a server says may be long, and health shows only the beginning.
            said = failure.reason[:_MOST_SAID].rstrip()
            self._error = f"{said}; check {check}"
        if isinstance(failure, OnHold):
            loud, level = self._hold.fails(), LogLevel.info
        else:
            self._telemetry.upload_failures.inc()
            self._trouble.fails()
            loud = self._trouble.loud and kind not in self._told
            if loud:
                self._told.add(kind)
        self.log.emit(
            level if loud else LogLevel.debug,
            text,
            batch_id=cycle.batch_id,
            chunk_index=cycle.chunks,
            endpoint=self._endpoint,
            http_status=failure.status,
            error=failure.reason,
            error_type=failure.error_type,
            **fields,
        )

    def _works(self) -> None:
        """Tell that failures, or the waiting for the clock, are over, if there was anything."""
        self._error = None
        self.misconfigured = False
        held, over = self._hold.works(), self._trouble.works()
        if over is not None:
            self._told.clear()
            self.log.emit(
                LogLevel.info if over.loud else LogLevel.debug,
                "the server takes samples again, after {seconds:.0f} s and {failures} failures",
                seconds=over.seconds,
                failures=over.failures,
            )
            self._quiet = self._quiet and not over.loud
        if held is not None and (over is None or not over.loud):
            self.log.emit(
                LogLevel.info if held.loud else LogLevel.debug,
                "uploads go on, after {seconds:.0f} s",
                seconds=held.seconds,
            )


def _ms(seconds: float) -> float:
    """Return milliseconds, to a tenth."""
    return round(seconds * 1000, 1)
