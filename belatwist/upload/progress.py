"""Logs and counts how uploads go, and keeps it for the health document."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog, kind_of
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Series
from belatwist.store import Row, SampleStore
from belatwist.text import one_line, shorten
from belatwist.upload.cycle import Cycle
from belatwist.upload.policy import Accepted, NotAccepted, OnHold, Retryable, advice
from belatwist.upload.retry import Sent

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

MAX_NAMED_SERIES = 256
"""Series with rejected samples that the log names, at most, so that memory stays bounded."""

_LONGEST_ANSWER = 120
"""Characters of a server's answer in front of what to check."""

_LONGEST_NAME = 200
"""Characters of a metric's name, and of its tags, in the log."""

_CHUNK = ("batch_id", "chunk_index", "attempt", "endpoint", "http_status")
_FAILURE = (*_CHUNK, "error", "error_type")

CHUNK_SUCCEEDED = Event(
    "upload.chunk_succeeded",
    LogLevel.info,
    "Upload chunk succeeded",
    fields=(*_CHUNK, "count", "bytes_sent", "bytes_rcvd", "duration_ms"),
)
CHUNK_FAILED = Event(
    "upload.chunk_failed",
    LogLevel.warn,
    "Upload chunk failed, retrying",
    fields=(*_FAILURE, "count", "backoff_ms"),
    cure="Nothing, if it passes: the agent sends the same samples again.",
)
FAILED = Event(
    "upload.failed",
    LogLevel.warn,
    "Upload failed, {pending} samples pending: {error}",
    fields=_FAILURE,
    cure="Nothing, if the link or the server comes back: the samples stay on the device until"
    " then.",
)
MISCONFIGURED = Event(
    "upload.misconfigured",
    LogLevel.error,
    "Upload failed, {pending} samples pending: {error}; check {check}",
    fields=_FAILURE,
    cure="Correct the key that the message names. The next upload uses a new token without a"
    " restart.",
)
RECOVERED = Event("upload.recovered", LogLevel.info, "Uploads to {endpoint} recovered")
ON_HOLD = Event(
    "upload.on_hold",
    LogLevel.info,
    "Uploads on hold, {pending} samples pending: {error}",
    fields=_FAILURE,
    cure="Let the device reach an NTP server, or the server of the uploads. Uploads resume without"
    " a restart.",
)
RESUMED = Event("upload.resumed", LogLevel.info, "Uploads resumed")
COMPLETED = Event(
    "upload.completed",
    LogLevel.info,
    "Uploaded {count} samples in {chunks} requests, {bytes_sent} bytes, {duration_ms:.0f} ms;"
    " {rejected} rejected, {pending} pending",
    fields=("batch_id",),
)
REJECTED = Event(
    "upload.samples_rejected",
    LogLevel.warn,
    "Rejected {count} samples of {metric} {tags}: {reason}",
    fields=("batch_id",),
    cure="Look the samples up in the view metrics, where uploaded is 2. The agent keeps them for"
    " storage.retention.uploaded.",
)
CYCLE_FAILED = Event(
    "upload.cycle_failed",
    LogLevel.error,
    "Upload cycle failed, retrying at the next interval: {error}",
    cure="Look for a message about the database or the disk. Without one this is a fault of the"
    " program: report it with the traceback.",
)
CYCLE_RECOVERED = Event("upload.cycle_recovered", LogLevel.info, "Upload cycles recovered")


class Progress:
    """Records what happens to samples on their way to the server.

    All moments are seconds on the reactor's clock.

    :param endpoint: where bodies go, without anything secret.
    :ivar last_upload_at: when the server last accepted samples; ``None`` before the first time.
    :ivar caught_up_at: when nothing was last pending, or uploads were started.
    :ivar misconfigured: whether the server's last answer says that the configuration is wrong.
    :ivar retrying: samples of the body that waits for its next attempt; 0 when none does.
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
        self._error: str | None = None
        self._cycle_error: str | None = None
        self._failures = FailureLog(self.log, reactor.seconds)
        self._holds = FailureLog(self.log, reactor.seconds)
        self._cycle_failures = FailureLog(self.log, reactor.seconds)
        self._named: set[Series] = set()

    @property
    def error(self) -> str | None:
        """Why the last attempt to send samples failed; ``None`` when it did not."""
        return self._cycle_error or self._error

    def started(self) -> None:
        """Begin to count: samples that are pending at the start are not late yet."""
        self.caught_up_at = self._reactor.seconds()

    def look(self) -> None:
        """Keep the moment if nothing is pending."""
        if not self._store.pending:
            self.caught_up_at = self._reactor.seconds()

    def accepted(self, cycle: Cycle, count: int, size: int, outcome: Accepted, sent: Sent) -> None:
        """Record a chunk that the server has accepted.

        The first chunk of a run, and the first after a logged failure, are logged at info.

        :param count: samples in the chunk.
        :param size: bytes of the body.
        """
        is_first = self.last_upload_at is None
        self.last_upload_at = self._reactor.seconds()
        self._telemetry.metrics_uploaded.inc(count)
        self._error = None
        self.misconfigured = False
        has_recovered = self._failures.recovered(RECOVERED, endpoint=self._endpoint)
        self._holds.recovered(RESUMED)
        CHUNK_SUCCEEDED.emit(
            self.log,
            level=LogLevel.info if is_first or has_recovered else LogLevel.debug,
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
        cycle.chunks += 1
        cycle.samples += count
        cycle.bytes += size

    def will_retry(
        self, cycle: Cycle, count: int, failure: Retryable, attempt: int, wait: float
    ) -> None:
        """Record an attempt that has failed, before the next one.

        :param count: samples in the body.
        :param attempt: its number, from 1.
        :param wait: seconds until the next attempt.
        """
        self.retrying = count
        self._failed(CHUNK_FAILED, cycle, failure, attempt, backoff_ms=_ms(wait), count=count)

    def failed(self, cycle: Cycle, failure: NotAccepted, attempt: int) -> None:
        """Record the failure that ends a cycle. All other samples stay pending for the next one.

        :param failure: a :class:`Rejected` means that the server refuses everything.
        :param attempt: the number of the last attempt, made or not.
        """
        cycle.incomplete = True
        pending = self._store.pending
        if (check := advice(failure)) is not None:
            self._failed(MISCONFIGURED, cycle, failure, attempt, pending=pending, check=check)
            # A server's answer may be long, and health shows only the beginning.
            reason = failure.reason[:_LONGEST_ANSWER].rstrip()
            self._error = f"{reason}; check {check}"
            self.misconfigured = True
        elif isinstance(failure, OnHold):
            self._failed(ON_HOLD, cycle, failure, attempt, pending=pending)
        else:
            self._failed(FAILED, cycle, failure, attempt, pending=pending)

    def refused(self, cycle: Cycle) -> None:
        """Record that the server has refused samples by themselves. They will be sent again."""
        cycle.incomplete = True

    def rejected(
        self, cycle: Cycle, rows: Sequence[Row], series: Mapping[int, Series], reason: str
    ) -> None:
        """Record samples that will not be sent: the server refuses them, or would drop them.

        :param rows: samples of any series. The log names each series once at warn.
        """
        cycle.incomplete = True
        cycle.rejected += len(rows)
        self._telemetry.metrics_rejected.inc(len(rows))
        counts: dict[Series, int] = {}
        for row in rows:
            one = series[row[1]]
            counts[one] = counts.get(one, 0) + 1
        for one, count in counts.items():
            is_new = one not in self._named and len(self._named) < MAX_NAMED_SERIES
            REJECTED.emit(
                self.log,
                level=LogLevel.warn if is_new else LogLevel.debug,
                batch_id=cycle.batch_id,
                count=count,
                reason=reason,
                metric=shorten(one.name, _LONGEST_NAME),
                tags=shorten(one.tags_json, _LONGEST_NAME),
            )
            if is_new:
                self._named.add(one)

    def ended(self, cycle: Cycle) -> None:
        """Record the end of a cycle."""
        self.look()
        if cycle.samples and cycle.incomplete:
            self._telemetry.partial_success.inc()
        if cycle.samples or cycle.rejected:
            COMPLETED.emit(
                self.log,
                batch_id=cycle.batch_id,
                count=cycle.samples,
                chunks=cycle.chunks,
                bytes_sent=cycle.bytes,
                duration_ms=_ms(self._reactor.seconds() - cycle.began),
                rejected=cycle.rejected,
                pending=self._store.pending,
            )

    def broke(self, error: Exception) -> None:
        """Record an error of the agent's own that has ended a cycle.

        One of the database has no traceback in the log: it comes from the disk.
        """
        failure = Failure(error, type(error), error.__traceback__)
        self._cycle_error = one_line(f"{type(error).__name__}: {error}")
        self._cycle_failures.failed(
            CYCLE_FAILED,
            kind_of(error),
            failure=None if isinstance(error, sqlite3.Error) else failure,
            error=self._cycle_error,
        )

    def ran(self) -> None:
        """Record that a cycle has ended without an error of the agent's own."""
        self._cycle_error = None
        self._cycle_failures.recovered(CYCLE_RECOVERED)

    def _failed(
        self, event: Event, cycle: Cycle, failure: NotAccepted, attempt: int, **fields: Any
    ) -> None:
        self._error = failure.reason
        self.misconfigured = False
        failures, kind = self._holds, ""
        if not isinstance(failure, OnHold):
            self._telemetry.upload_failures.inc()
            failures, kind = self._failures, f"{event.name} {failure.status or failure.error_type}"
        failures.failed(
            event,
            kind,
            batch_id=cycle.batch_id,
            chunk_index=cycle.chunks,
            attempt=attempt,
            endpoint=self._endpoint,
            http_status=failure.status,
            error=failure.reason,
            error_type=failure.error_type,
            **fields,
        )


def _ms(seconds: float) -> float:
    """Return milliseconds, to a tenth."""
    return round(seconds * 1000, 1)
