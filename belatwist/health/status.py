"""The verdict on a snapshot: the status, and the reasons in words.

A value equal to a limit is within it. The clock's skew is reported, but does not change the status.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from belatwist.collectors.state import State
from belatwist.config import Health
from belatwist.health.snapshot import CollectorState, Snapshot, StorageState, UploaderState
from belatwist.text import counted, one_line

RECENT_SECONDS = 3600.0
"""How long lost samples or a replaced database degrade the status."""

MAX_REASONS = 20
MAX_REASON = 300
"""The most characters of a reason."""

_MAX_WHAT = 140


class Status(IntEnum):
    """The status of the agent or of a part; a worse one is greater."""

    OK = 0
    DEGRADED = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """``ok``, ``degraded`` or ``error``."""
        return self.name.lower()


_STATUS: dict[State | None, Status] = {
    State.HIDDEN: Status.DEGRADED,
    State.FAILING: Status.ERROR,
}

Finding = tuple[Status, str]
"""A fault: its status, and a sentence that begins with the component."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a snapshot.

    :ivar status: the status of the agent.
    :ivar reasons: why the status is not ok, most severe first; empty when it is. At most
        :data:`MAX_REASONS` printable lines.
    :ivar collectors: by name; one whose source is hidden is degraded, one that fails is in error.
    """

    status: Status
    reasons: tuple[str, ...]
    collectors: dict[str, Status]
    uploader: Status
    storage: Status


def judge(snapshot: Snapshot, thresholds: Health) -> Verdict:
    """Judge a snapshot by the configured thresholds."""
    storage = list(_storage(snapshot.storage))
    uploader = list(_uploader(snapshot.uploader, snapshot.storage.pending, thresholds))
    findings = [*storage, *_collectors(snapshot.collectors), *uploader]
    findings.sort(key=lambda finding: -finding[0])
    return Verdict(
        _worst(findings),
        tuple(one_line(reason, MAX_REASON) for _, reason in findings[:MAX_REASONS]),
        {name: _STATUS.get(state.state, Status.OK) for name, state in snapshot.collectors.items()},
        _worst(uploader),
        _worst(storage),
    )


def summary(snapshot: Snapshot, verdict: Verdict) -> str:
    """Summarise the state in one line, for ``systemctl status``."""
    if verdict.reasons:
        return f"{verdict.status.word}: {verdict.reasons[0]}"
    uploader, pending = snapshot.uploader, snapshot.storage.pending
    if not uploader.enabled:
        return "ok: uploads are switched off"
    if uploader.age is None:
        return f"ok: {counted(pending, 'sample')} pending, no upload yet"
    return f"ok: {counted(pending, 'sample')} pending, {uploader.uploaded} uploaded"


def _worst(findings: list[Finding]) -> Status:
    return max((status for status, _ in findings), default=Status.OK)


def _storage(storage: StorageState) -> Iterator[Finding]:
    if storage.error is not None:
        waiting = f" ({storage.waiting} wait in memory)" if storage.waiting else ""
        yield Status.ERROR, f"storage: samples cannot be stored{waiting}: {storage.error}"
    if storage.opening is not None:
        yield Status.DEGRADED, f"storage: the database {storage.opening}"
    if storage.replaced_as is not None and _recent(storage.replaced_age):
        reason = f"the database was damaged and put aside as {storage.replaced_as}"
        yield Status.DEGRADED, f"storage: {reason}"
    if _recent(storage.dropped_age):
        reason = f"samples were lost within the last hour, {storage.dropped} in this run"
        yield Status.DEGRADED, f"storage: {reason}"
    if _recent(storage.refused_age):
        reason = f"new series are not stored, {storage.refused_reason}"
        yield Status.DEGRADED, f"storage: {reason}: {', '.join(storage.refused_series)}"
    if not storage.locked:
        reason = f"{storage.lock} was removed or replaced: a second instance could start"
        yield Status.DEGRADED, f"storage: {reason}"
    if storage.wal_blocked:
        reason = "another program keeps the write-ahead log from being emptied"
        yield Status.DEGRADED, f"storage: {reason} ({storage.wal_bytes} bytes)"


def _recent(age: float | None) -> bool:
    return age is not None and age <= RECENT_SECONDS


def _collectors(collectors: dict[str, CollectorState]) -> Iterator[Finding]:
    # A source that is absent neither fails nor works: it must not conceal that all others fail.
    present = [state.state for state in collectors.values() if state.state is not State.ABSENT]
    if present and all(state is State.FAILING for state in present):
        yield Status.ERROR, "collectors: all are failing"
    for name, collector in collectors.items():
        if collector.state is State.FAILING:
            yield Status.DEGRADED, f"collector {name}: {collector.reason or 'is failing'}"
        elif collector.state is State.HIDDEN:
            yield Status.DEGRADED, f"collector {name}: its source is hidden: {_hidden(collector)}"


def _hidden(collector: CollectorState) -> str:
    """Say what hides a source, and the cure: the first must not push the second off the line."""
    what = one_line(collector.reason or "the agent may not look", _MAX_WHAT)
    return f"{what}; {collector.cure}" if collector.cure else what


def _uploader(uploader: UploaderState, pending: int, thresholds: Health) -> Iterator[Finding]:
    if not uploader.enabled:
        return
    degraded, error = thresholds.degraded_threshold, thresholds.error_threshold
    cause = "" if uploader.error is None else f": {uploader.error}"
    if uploader.misconfigured:
        reason = "the server's answer says that the configuration is wrong"
        yield Status.DEGRADED, f"uploader: {reason}{cause}"
        cause = ""
    late = f"no upload for {math.ceil(uploader.overdue)} s"
    many = f"{counted(pending, 'sample')} pending"
    if uploader.overdue > error.upload_age_seconds and pending > error.pending_metrics:
        reason = (
            f"{late} (limit {error.upload_age_seconds} s)"
            f" and {many} (limit {error.pending_metrics}){cause}"
        )
        yield Status.ERROR, f"uploader: {reason}"
        return
    if pending > 0 and uploader.overdue > degraded.upload_age_seconds:
        reason = f"{late} (limit {degraded.upload_age_seconds} s){cause}"
        yield Status.DEGRADED, f"uploader: {reason}"
    if pending > degraded.pending_metrics:
        yield Status.DEGRADED, f"uploader: {many} (limit {degraded.pending_metrics})"
