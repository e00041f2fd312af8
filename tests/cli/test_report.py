"""The health document for people."""

import json
from dataclasses import replace

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.cli.report import Report
from belatwist.collectors.state import State
from belatwist.config import Health
from belatwist.health.document import document
from belatwist.health.snapshot import (
    CollectorState,
    Snapshot,
    StorageState,
    TimeState,
    UploaderState,
)
from belatwist.health.status import judge
from tests.health.snapshots import ABSENT, BAD, CROWDED, HIDDEN

HEALTHY = Snapshot(
    version="0.1.0",
    device_id="box-1",
    now_ms=1_767_268_800_000,
    uptime=11_045.0,
    pid=1234,
    session="5b1c",
    collectors={
        "cpu.usage": CollectorState(State.OK, 3.0, 4_400, 0, None),
        "disk.io": CollectorState(None, None, 0, 0, None),
    },
    uploader=UploaderState(
        enabled=True,
        endpoint="https://vm.example/api/v1/import",
        overdue=12.0,
        age=12.0,
        uploaded=4_375,
        failures=3,
        rejected=1,
        partial=1,
        retrying=0,
        error=None,
        misconfigured=False,
    ),
    storage=StorageState(
        opening=None,
        path="/var/lib/belabox-metrics/metrics.db",
        database_bytes=12_900_000,
        wal_bytes=1_048_576,
        wal_blocked=False,
        pending=25,
        oldest_ms=1_767_268_800_000 - 86_400_000,
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
        pruned=100,
        replaced_as=None,
        replaced_age=None,
        lock="/var/lib/belabox-metrics/metrics.db.lock",
        locked=True,
    ),
    time=TimeState(skew_ms=12, skew_age=60.0, ntp_synced=True, trusted=True, steps=0),
)

HEALTH = Health()


def shown(snapshot: Snapshot) -> list[str]:
    """Format the document of a snapshot."""
    lines = Report(json.loads(document(snapshot, judge(snapshot, HEALTH)))).lines()
    return [click.unstyle(line) for line in lines]


def test_all_is_well() -> None:
    """The report has every part, in words, ages and sizes."""
    assert shown(HEALTHY) == [
        "OK - all is well",
        "",
        "box-1, belatwist 0.1.0, up 3 h 4 min, process 1234, session 5b1c",
        "",
        "COLLECTOR  STATE    LAST     SAMPLES  FAILED  REASON",
        "cpu.usage  ok       3 s ago     4400       0",
        "disk.io    waiting  never          0       0",
        "",
        "uploads     ok, to https://vm.example/api/v1/import",
        "  last      12 s ago",
        "  samples   4375 uploaded, 25 pending, 0 being retried, 1 rejected",
        "  failures  3 attempts failed",
        "storage     ok, /var/lib/belabox-metrics/metrics.db",
        "  size      12.3 MiB, log 1.0 MiB; oldest sample 1 d ago",
        "  samples   0 waiting in memory, 0 lost, 100 deleted because of age or size",
        "  lock      held, /var/lib/belabox-metrics/metrics.db.lock",
        "time        2026-01-01T12:00:00.000Z",
        "  skew      +12 ms, measured 1 min ago",
        "  NTP       synchronised, 0 steps",
    ]


def test_all_is_not_well() -> None:
    """The first line has the worst reason, the next the others; each part has its error."""
    snapshot = replace(
        HEALTHY,
        collectors=HEALTHY.collectors
        | {"cpu.usage": CollectorState(State.FAILING, 90.0, 4_400, 2, "no answer within 5 s")},
        uploader=replace(HEALTHY.uploader, error="connection refused", overdue=95.0, age=None),
        storage=replace(
            HEALTHY.storage,
            error="database or disk is full",
            waiting=80,
            replaced_as="/var/lib/belabox-metrics/metrics.db.corrupt-1",
            replaced_age=30.0,
            locked=False,
        ),
        time=TimeState(skew_ms=None, skew_age=None, ntp_synced=False, trusted=False, steps=2),
    )
    lines = shown(snapshot)
    assert lines[0].startswith("ERROR - storage: samples cannot be stored")
    assert all(line.startswith("  ") for line in lines[1 : lines.index("")])
    text = "\n".join(lines)
    for part in (
        "cpu.usage  failing  1 min 30 s ago     4400       2  no answer within 5 s",
        "  last      never",
        "  failures  3 attempts failed; now: connection refused",
        "  error     database or disk is full",
        "  replaced  30 s ago; the damaged file is /var/lib/belabox-metrics/metrics.db.corrupt-1",
        "  lock      not held, ",
        "  skew      not measured",
        "  NTP       not synchronised, 2 steps; the clock is not trusted yet",
    ):
        assert part in text


def test_the_states_of_sources() -> None:
    """Each in a word, with the reason; below it the cure, and what is left out."""
    collectors = {
        "cpu.temperature": ABSENT,
        "video.ports": HIDDEN,
        "network.traffic": CROWDED,
        "disk.io": replace(BAD, left_out=("sdb",)),
    }
    lines = shown(replace(HEALTHY, collectors=collectors))
    first = next(n for n, line in enumerate(lines) if line.startswith("COLLECTOR"))
    assert lines[first : first + 7] == [
        "COLLECTOR        STATE    LAST           SAMPLES  FAILED  REASON",
        "cpu.temperature  absent   never                0       0"
        "  /sys/class/thermal has no thermal zone",
        "video.ports      hidden   never                0       0"
        "  /dev/video0 is hidden by PrivateDevices=",
        f"{'':58}  cure: Install the drop-in video.conf.",
        "network.traffic  ok       2 s ago             40       0"
        "  left out: veth1, veth2, … and 7 more",
        "disk.io          failing  1 min 5 s ago       40       3  no such sensor",
        f"{'':58}  left out: sdb",
    ]


def test_without_uploads() -> None:
    """If uploads are off, the report still has the number of pending samples."""
    lines = shown(replace(HEALTHY, uploader=replace(HEALTHY.uploader, enabled=False)))
    at = lines.index("uploads    off")
    assert lines[at + 1 : at + 3] == [
        "  samples  25 pending",
        "storage    ok, /var/lib/belabox-metrics/metrics.db",
    ]


@pytest.mark.parametrize("enabled", [True, False])
def test_while_the_database_is_being_opened(enabled: bool) -> None:
    """Numbers that the agent does not have yet are unknown, and neither 0 nor never."""
    found = json.loads(document(HEALTHY, judge(HEALTHY, HEALTH)))
    found["uploader"] |= {"enabled": enabled, "pending_metrics": None}
    found["storage"] |= {
        "opening": "is being migrated",
        "metrics_pending_upload": None,
        "database_size_bytes": None,
        "wal_size_bytes": None,
        "oldest_metric_timestamp": None,
    }
    lines = [" ".join(click.unstyle(line).split()) for line in Report(found).lines()]
    pending = (
        "samples 4375 uploaded, unknown pending, 0 being retried, 1 rejected"
        if enabled
        else "samples unknown pending"
    )
    assert pending in lines
    assert "size unknown, log unknown; oldest sample unknown" in lines
    assert "opening is being migrated" in lines


def test_an_empty_database() -> None:
    """The report says that there are no samples."""
    lines = shown(replace(HEALTHY, storage=replace(HEALTHY.storage, oldest_ms=None)))
    assert "  size      12.3 MiB, log 1.0 MiB; no samples" in lines


def test_colours() -> None:
    """The verdict, a failing collector and a hidden one are coloured, with the cure."""
    collectors = {"a": {"status": "error"}, "b": {"status": "degraded", "reason": "r", "cure": "c"}}
    lines = Report({"status": "error", "collectors": collectors}).lines()
    assert lines[0].startswith("\x1b[31m")
    assert any(line.startswith("\x1b[31m") and "a " in line for line in lines[1:])
    assert [line.rpartition(" ")[2] for line in lines if line.startswith("\x1b[33m")] == [
        "r\x1b[0m",
        "c\x1b[0m",
    ]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=9,
)
_NAMES = st.sampled_from(list(json.loads(document(HEALTHY, judge(HEALTHY, HEALTH)))))
_INNER = st.sampled_from(
    [
        "status",
        "state",
        "reason",
        "cure",
        "left_out",
        "last_collection",
        "last_error",
        "lock",
        "skew_ms",
        "local",
        "enabled",
        "pid",
    ]
)


@given(
    st.dictionaries(_NAMES, _VALUES | st.dictionaries(_INNER, _VALUES)),
    st.sampled_from(["ok", "degraded", "error"]),
)
def test_whatever_the_document_says(some: dict[str, object], status: str) -> None:
    """Members of another type are left out, and no line contains control characters."""
    lines = Report(some | {"status": status}).lines()
    assert click.unstyle(lines[0]).startswith(f"{status.upper()} - ")
    assert all(click.unstyle(line).isprintable() for line in lines)
