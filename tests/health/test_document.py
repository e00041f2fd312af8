"""The document has every figure under its name, and nothing that cannot be read."""

import json
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from belatwist.collectors.state import State
from belatwist.health.document import document, readiness
from belatwist.health.snapshot import Snapshot
from belatwist.health.status import judge
from tests.health.snapshots import (
    ABSENT,
    BAD,
    CROWDED,
    GOOD,
    HEALTH,
    HEALTHY,
    HIDDEN,
    NEW,
    healthy_but,
)

DOCS = Path(__file__).parent.parent.parent / "docs" / "health.md"


def read(snapshot: Snapshot) -> Any:
    """Make the document and read it again."""
    return json.loads(document(snapshot, judge(snapshot, HEALTH)))


GOLDEN = {
    "status": "degraded",
    "reasons": [
        "storage: the database was damaged and put aside as /db.corrupt-1",
        "storage: samples were lost within the last hour, 5 in this run",
        'storage: new series are not stored, three are alive: m {"a":"\\u0007"}, n {}',
        "collector cpu.temperature: no such sensor",
        "uploader: no upload for 95 s (limit 60 s): connection refused",
    ],
    "version": "0.4.0",
    "device_id": "belabox-001",
    "session_id": "550e8400-e29b-41d4-a716-446655440000",
    "pid": 321,
    "uptime_seconds": 3671,
    "timestamp": "2026-01-01T00:00:00.370Z",
    "collectors": {
        "cpu.usage": {
            "status": "ok",
            "state": "ok",
            "reason": None,
            "cure": None,
            "left_out": [],
            "last_collection": "2025-12-31T23:59:57.870Z",
            "metrics_collected": 40,
            "metrics_failed": 0,
            "last_error": None,
        },
        "cpu.temperature": {
            "status": "error",
            "state": "failing",
            "reason": "no such sensor",
            "cure": None,
            "left_out": [],
            "last_collection": "2025-12-31T23:58:55.370Z",
            "metrics_collected": 40,
            "metrics_failed": 3,
            "last_error": "no such sensor",
        },
        "disk.io": {
            "status": "ok",
            "state": None,
            "reason": None,
            "cure": None,
            "left_out": [],
            "last_collection": None,
            "metrics_collected": 0,
            "metrics_failed": 0,
            "last_error": None,
        },
    },
    "uploader": {
        "status": "degraded",
        "enabled": True,
        "endpoint": "https://metrics.example/api/v1/import",
        "last_upload": "2025-12-31T23:58:25.320Z",
        "last_error": "connection refused",
        "misconfigured": False,
        "overdue_seconds": 95.0,
        "metrics_uploaded": 9000,
        "metrics_rejected": 1,
        "upload_failures": 2,
        "partial_successes": 1,
        "pending_metrics": 80,
        "retry_queue_size": 50,
    },
    "storage": {
        "status": "degraded",
        "path": "/var/lib/belabox-metrics/metrics.db",
        "opening": None,
        "last_error": None,
        "database_size_bytes": 1048576,
        "wal_size_bytes": 32768,
        "wal_blocked": False,
        "metrics_pending_upload": 80,
        "oldest_metric_timestamp": "2025-12-31T00:00:00.370Z",
        "metrics_waiting": 0,
        "metrics_dropped": 5,
        "last_drop": "2025-12-31T23:59:00.370Z",
        "metrics_refused": 6,
        "last_refusal": "2025-12-31T23:59:30.370Z",
        "refusal_reason": "three are alive",
        "refused_series": ['m {"a":"\\u0007"}', "n {}"],
        "series_alive": 150,
        "max_series": 10000,
        "metrics_pruned": 500,
        "replaced_as": "/db.corrupt-1",
        "replaced_at": "2025-12-31T23:50:00.370Z",
        "lock": {"path": "/var/lib/belabox-metrics/metrics.db.lock", "held": True},
    },
    "time": {
        "local": "2026-01-01T00:00:00.370Z",
        "skew_ms": -40,
        "skew_measured": "2025-12-31T23:58:20.370Z",
        "ntp_synced": True,
        "trusted": True,
        "steps": 1,
    },
}


def test_the_whole_document() -> None:
    """Every member, in order; an age becomes the time at which it was, in UTC."""
    snapshot = healthy_but(
        collectors={"cpu.usage": GOOD, "cpu.temperature": BAD, "disk.io": NEW},
        uploader={"overdue": 95.0, "age": 95.05, "error": "connection refused", "retrying": 50},
        storage={
            "dropped": 5,
            "dropped_age": 60.0,
            "refused": 6,
            "refused_age": 30.0,
            "refused_reason": "three are alive",
            "refused_series": ('m {"a":"\a"}', "n {}"),
            "replaced_as": "/db.corrupt-1",
            "replaced_age": 600.0,
        },
    )
    assert read(snapshot) == GOLDEN
    assert list(read(snapshot)) == list(GOLDEN)


def test_the_states_of_sources() -> None:
    """What is absent is no error; what is hidden has its cure; what is left out is named."""
    found = read(healthy_but(collectors={"a": ABSENT, "b": HIDDEN, "c": CROWDED}))
    members = ("status", "state", "reason", "cure", "left_out", "last_error")
    shown = {name: [one[key] for key in members] for name, one in found["collectors"].items()}
    assert shown == {
        "a": ["ok", "absent", ABSENT.reason, None, [], None],
        "b": ["degraded", "hidden", HIDDEN.reason, HIDDEN.cure, [], HIDDEN.reason],
        "c": ["ok", "ok", None, None, ["veth1", "veth2", "… and 7 more"], None],
    }


SPECIFIED = {
    "collectors": {"status", "last_collection", "metrics_collected", "last_error"},
    "uploader": {
        "status",
        "last_upload",
        "metrics_uploaded",
        "upload_failures",
        "pending_metrics",
        "retry_queue_size",
    },
    "storage": {
        "database_size_bytes",
        "wal_size_bytes",
        "metrics_pending_upload",
        "oldest_metric_timestamp",
    },
    "time": {"local", "skew_ms", "ntp_synced"},
}


def test_what_others_rely_on() -> None:
    """The members that dashboards and checks were written for have their names and places."""
    found = read(HEALTHY)
    assert found.keys() >= {"status", "version", "uptime_seconds", "timestamp", *SPECIFIED}
    for name, members in SPECIFIED.items():
        part = found[name]["cpu.usage"] if name == "collectors" else found[name]
        assert part.keys() >= members


def test_never_is_null() -> None:
    """An event that has not happened has no time, and an unknown value is null."""
    found = read(
        healthy_but(
            collectors={"a": NEW},
            uploader={"age": None},
            storage={"oldest_ms": None},
            time={"skew_ms": None, "skew_age": None, "ntp_synced": None},
        )
    )
    assert found["collectors"]["a"]["last_collection"] is None
    assert found["uploader"]["last_upload"] is None
    storage = found["storage"]
    for name in ("oldest_metric_timestamp", "last_drop", "replaced_as", "replaced_at", "opening"):
        assert storage[name] is None
    for name in ("skew_ms", "skew_measured", "ntp_synced"):
        assert found["time"][name] is None


def test_nothing_is_overdue_while_nothing_waits() -> None:
    """The age that is judged is that of a backlog; without one, or without uploads, it is 0."""
    assert read(healthy_but(uploader={"overdue": 95.26}))["uploader"]["overdue_seconds"] == 95.3
    for snapshot in (
        healthy_but(uploader={"overdue": 95.26}, storage={"pending": 0}),
        healthy_but(uploader={"overdue": 95.26, "enabled": False}),
    ):
        assert read(snapshot)["uploader"]["overdue_seconds"] == 0.0


@pytest.mark.parametrize("unix_ms", [-(10**15), 10**15, 2**63 - 1, -(2**63)])
def test_impossible_times_are_null(unix_ms: int) -> None:
    """A time outside the calendar leaves the rest of the document as it is."""
    assert (
        read(healthy_but(storage={"oldest_ms": unix_ms}))["storage"]["oldest_metric_timestamp"]
        is None
    )


def test_a_clock_in_1970() -> None:
    """A device without a clock reports its times as they are."""
    found = read(healthy_but(now_ms=5, uploader={"age": 1.0}))
    assert found["timestamp"] == "1970-01-01T00:00:00.005Z"
    assert found["uploader"]["last_upload"] == "1969-12-31T23:59:59.005Z"


def test_every_text_is_harmless() -> None:
    """Any error, path or name leaves the document printable and UTF-8."""
    evil = "\x1b[31m\n\udcff\u202e" + "x" * 10_000
    bad = replace(BAD, reason=evil, cure=evil, left_out=(evil,))
    encoded = document(
        snapshot := healthy_but(
            device_id=evil,
            collectors={"a": bad},
            uploader={"endpoint": evil, "error": evil, "overdue": 1e6},
            storage={
                "path": evil,
                "opening": evil,
                "error": evil,
                "replaced_as": evil,
                "replaced_age": 1.0,
                "lock": evil,
                "locked": False,
                "refused_age": 1.0,
                "refused_reason": "why",
                "refused_series": (evil,),
            },
        ),
        judge(snapshot, HEALTH),
    )
    assert len(encoded) < 10_000
    assert encoded.decode().isprintable()
    # What is left of a control character is its escape, as text.
    assert "\\" not in encoded.decode().replace(r"\\u", "")


def changed(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, State):
        return State.OK
    if isinstance(value, tuple):
        return (*value, "x")
    if value is None:
        return "x"
    return value + "x" if isinstance(value, str) else value + 1000


def test_nothing_of_a_snapshot_is_left_out() -> None:
    """Each of its fields, changed, changes the document."""
    everything = healthy_but(
        collectors={"a": BAD},
        uploader={"error": "e"},
        storage={"error": "e", "replaced_as": "r", "replaced_age": 1.0}
        | {"dropped_age": 1.0, "refused_age": 1.0},
    )

    def variants(one: Any) -> Any:
        for field in fields(one):
            value = getattr(one, field.name)
            if is_dataclass(value):
                inner = variants(value)
            elif isinstance(value, dict):
                inner = ((f"a.{n}", {"a": state}) for n, state in variants(value["a"]))
            else:
                inner = [("", changed(value))]
            for name, other in inner:
                members = {f.name: getattr(one, f.name) for f in fields(one)} | {field.name: other}
                yield f"{field.name}.{name}".rstrip("."), type(one)(**members)

    whole = read(everything)
    reported = {name for name, variant in variants(everything) if read(variant) != whole}
    assert {name for name, _ in variants(everything)} - reported == set()


def test_readiness() -> None:
    """It says whether, and if not why."""
    assert json.loads(readiness(judge(HEALTHY, HEALTH))) == {
        "ready": True,
        "status": "ok",
        "reasons": [],
    }
    assert json.loads(readiness(judge(healthy_but(storage={"error": "full"}), HEALTH))) == {
        "ready": False,
        "status": "error",
        "reasons": ["storage: samples cannot be stored: full"],
    }


def test_every_member_is_documented() -> None:
    """``docs/health.md`` has a row for each, by its path, and no other."""

    def paths(value: Any, prefix: str) -> Any:
        for name, inner in value.items():
            path = f"{prefix}{'*' if prefix == 'collectors.' else name}"
            if isinstance(inner, dict):
                yield from paths(inner, f"{path}.")
            else:
                yield path

    rows = re.findall(r"^\| `([a-z_.*]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(set(paths(GOLDEN, "")))
