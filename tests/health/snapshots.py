"""Snapshots of an agent: a healthy one, and variants of it."""

from dataclasses import replace
from typing import Any

from belatwist.collectors.state import State
from belatwist.config import Health, Threshold
from belatwist.health.snapshot import (
    CollectorState,
    Snapshot,
    StorageState,
    TimeState,
    UploaderState,
)

HEALTH = Health(
    degraded_threshold=Threshold(pending_metrics=5000, upload_age_seconds=60),
    error_threshold=Threshold(pending_metrics=10000, upload_age_seconds=600),
)
NOW_MS = 1_767_225_600_370  # 2026-01-01T00:00:00.370Z

GOOD = CollectorState(State.OK, age=2.5, collected=40, failed=0, reason=None)
BAD = CollectorState(State.FAILING, age=65.0, collected=40, failed=3, reason="no such sensor")
NEW = CollectorState(None, age=None, collected=0, failed=0, reason=None)
ABSENT = CollectorState(
    State.ABSENT, age=None, collected=0, failed=0, reason="/sys/class/thermal has no thermal zone"
)
HIDDEN = CollectorState(
    State.HIDDEN,
    age=None,
    collected=0,
    failed=0,
    reason="/dev/video0 is hidden by PrivateDevices=",
    cure="Install the drop-in video.conf.",
)
CROWDED = replace(GOOD, left_out=("veth1", "veth2", "… and 7 more"))

HEALTHY = Snapshot(
    version="0.4.0",
    device_id="belabox-001",
    now_ms=NOW_MS,
    uptime=3671.9,
    pid=321,
    session="550e8400-e29b-41d4-a716-446655440000",
    collectors={"cpu.usage": GOOD, "memory.usage": GOOD},
    uploader=UploaderState(
        enabled=True,
        endpoint="https://metrics.example/api/v1/import",
        overdue=12.04,
        age=12.04,
        uploaded=9000,
        failures=2,
        rejected=1,
        partial=1,
        retrying=0,
        error=None,
        misconfigured=False,
    ),
    storage=StorageState(
        opening=None,
        path="/var/lib/belabox-metrics/metrics.db",
        database_bytes=1_048_576,
        wal_bytes=32_768,
        wal_blocked=False,
        pending=80,
        oldest_ms=NOW_MS - 86_400_000,
        error=None,
        waiting=0,
        dropped=0,
        dropped_age=None,
        series=150,
        max_series=10_000,
        refused=0,
        refused_age=None,
        refused_reason="",
        refused_series=(),
        pruned=500,
        replaced_as=None,
        replaced_age=None,
        lock="/var/lib/belabox-metrics/metrics.db.lock",
        locked=True,
    ),
    time=TimeState(skew_ms=-40, skew_age=100.0, ntp_synced=True, trusted=True, steps=1),
)


def healthy_but(
    *,
    collectors: dict[str, CollectorState] | None = None,
    uploader: dict[str, Any] | None = None,
    storage: dict[str, Any] | None = None,
    time: dict[str, Any] | None = None,
    **whole: Any,
) -> Snapshot:
    """Return the healthy snapshot with other collectors, or other fields of its parts or itself."""
    return replace(
        HEALTHY,
        collectors=HEALTHY.collectors if collectors is None else collectors,
        uploader=replace(HEALTHY.uploader, **(uploader or {})),
        storage=replace(HEALTHY.storage, **(storage or {})),
        time=replace(HEALTHY.time, **(time or {})),
        **whole,
    )
