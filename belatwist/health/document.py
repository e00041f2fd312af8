"""The health document: a snapshot and its verdict as JSON.

Times are RFC 3339 in UTC with milliseconds; ``null`` stands for never. Every text is one printable
line of bounded length.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from belatwist.collectors.state import State
from belatwist.health.snapshot import (
    CollectorState,
    Snapshot,
    StorageState,
    TimeState,
    UploaderState,
)
from belatwist.health.status import Status, Verdict
from belatwist.text import one_line

_MAX_TEXT = 500  # Characters: enough for a long path.
_MAX_NAME = 100  # Characters of the name of an item.

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def document(snapshot: Snapshot, verdict: Verdict) -> bytes:
    """Encode the whole document.

    ``docs/health.md`` describes every member.
    """
    now_ms = snapshot.now_ms
    return msgspec.json.encode(
        {
            "status": verdict.status.word,
            "reasons": verdict.reasons,
            "version": snapshot.version,
            "device_id": _text(snapshot.device_id),
            "session_id": snapshot.session,
            "pid": snapshot.pid,
            "uptime_seconds": int(snapshot.uptime),
            "timestamp": _time(now_ms),
            "collectors": {
                name: _collector(state, verdict.collectors[name], now_ms)
                for name, state in snapshot.collectors.items()
            },
            "uploader": _uploader(
                snapshot.uploader, verdict.uploader, _pending(snapshot.storage), now_ms
            ),
            "storage": _storage(snapshot.storage, verdict.storage, now_ms),
            "time": _clock(snapshot.time, now_ms),
        }
    )


def readiness(verdict: Verdict) -> bytes:
    """Encode the answer of the readiness check: ``ready``, ``status`` and ``reasons``."""
    return msgspec.json.encode(
        {
            "ready": verdict.status is Status.OK,
            "status": verdict.status.word,
            "reasons": verdict.reasons,
        }
    )


def _collector(state: CollectorState, status: Status, now_ms: int) -> dict[str, Any]:
    return {
        "status": status.word,
        "state": state.state,
        "reason": _text(state.reason),
        "cure": _text(state.cure),
        "left_out": [one_line(name, _MAX_NAME) for name in state.left_out],
        "last_collection": _ago(state.age, now_ms),
        "metrics_collected": state.collected,
        "metrics_failed": state.failed,
        "last_error": None if state.state is State.ABSENT else _text(state.reason),
    }


def _pending(state: StorageState) -> int | None:
    """Return the number of pending samples; ``None`` before the database is open."""
    return None if state.opening is not None else state.pending


def _uploader(
    state: UploaderState, status: Status, pending: int | None, now_ms: int
) -> dict[str, Any]:
    return {
        "status": status.word,
        "enabled": state.enabled,
        "endpoint": _text(state.endpoint),
        "last_upload": _ago(state.age, now_ms),
        "last_error": _text(state.error),
        "misconfigured": state.misconfigured,
        "overdue_seconds": round(state.overdue, 1) if state.enabled and pending else 0.0,
        "metrics_uploaded": state.uploaded,
        "metrics_rejected": state.rejected,
        "upload_failures": state.failures,
        "partial_successes": state.partial,
        "pending_metrics": pending,
        "retry_queue_size": state.retrying,
    }


def _storage(state: StorageState, status: Status, now_ms: int) -> dict[str, Any]:
    return {
        "status": status.word,
        "path": _text(state.path),
        "opening": _text(state.opening),
        "last_error": _text(state.error),
        "database_size_bytes": state.database_bytes,
        "wal_size_bytes": state.wal_bytes,
        "wal_blocked": state.wal_blocked,
        "metrics_pending_upload": _pending(state),
        "oldest_metric_timestamp": None if state.oldest_ms is None else _time(state.oldest_ms),
        "metrics_waiting": state.waiting,
        "metrics_dropped": state.dropped,
        "last_drop": _ago(state.dropped_age, now_ms),
        "metrics_refused": state.refused,
        "last_refusal": _ago(state.refused_age, now_ms),
        "refusal_reason": _text(state.refused_reason or None),
        "refused_series": [_text(name) for name in state.refused_series],
        "series_alive": state.series,
        "max_series": state.max_series,
        "metrics_pruned": state.pruned,
        "replaced_as": _text(state.replaced_as),
        "replaced_at": _ago(state.replaced_age, now_ms),
        "lock": {"path": _text(state.lock), "held": state.locked},
    }


def _clock(state: TimeState, now_ms: int) -> dict[str, Any]:
    return {
        "local": _time(now_ms),
        "skew_ms": state.skew_ms,
        "skew_measured": _ago(state.skew_age, now_ms),
        "ntp_synced": state.ntp_synced,
        "trusted": state.trusted,
        "steps": state.steps,
    }


def _text(text: str | None) -> str | None:
    return None if text is None else one_line(text, _MAX_TEXT)


def _ago(age: float | None, now_ms: int) -> str | None:
    """Write the time of an event.

    :param age: seconds before now; ``None`` for never.
    """
    return None if age is None else _time(now_ms - round(age * 1000))


def _time(unix_ms: int) -> str | None:
    """Write a time as RFC 3339; ``None`` for a time outside the years 1 to 9999."""
    try:
        at = _EPOCH + timedelta(milliseconds=unix_ms)
    except OverflowError:
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
