"""The status is what the thresholds say, and the reasons say why."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.collectors.state import State
from belatwist.config import Health, Threshold
from belatwist.health.snapshot import CollectorState, Snapshot
from belatwist.health.status import MAX_REASON, MAX_REASONS, Status, judge
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
from tests.strategies import anything

OK, DEGRADED, ERROR = Status


@pytest.mark.parametrize(
    "snapshot",
    [
        HEALTHY,
        healthy_but(collectors={}),
        healthy_but(collectors={"a": NEW, "b": NEW}),
        healthy_but(collectors={"a": GOOD, "b": ABSENT}),
        healthy_but(collectors={"a": ABSENT}),
        healthy_but(collectors={"a": CROWDED}),
        healthy_but(uploader={"age": None}),
        healthy_but(uploader={"error": "connection refused", "failures": 9, "retrying": 50}),
        healthy_but(storage={"waiting": 80, "pruned": 10**6, "wal_bytes": 2**30}),
        healthy_but(time={"skew_ms": 10**9, "ntp_synced": False, "trusted": False, "steps": 99}),
        healthy_but(time={"skew_ms": None, "skew_age": None, "ntp_synced": None}),
    ],
    ids=[
        "well",
        "no collectors",
        "before the first collections",
        "a source that is absent",
        "no source that is there",
        "items that are left out",
        "before the first upload",
        "a try that failed",
        "figures that are not judged",
        "a bad clock",
        "an unknown clock",
    ],
)
def test_what_is_no_fault(snapshot: Snapshot) -> None:
    """Values in no rule leave the status ok, such as the clock's skew."""
    verdict = judge(snapshot, HEALTH)
    assert (verdict.status, verdict.reasons) == (OK, ())
    assert (verdict.uploader, verdict.storage) == (OK, OK)
    assert set(verdict.collectors.values()) <= {OK}


SOURCE_HIDDEN = f"its source is hidden: {HIDDEN.reason}; {HIDDEN.cure}"
LATE = "uploader: no upload for {} s (limit {} s)"
MANY = "uploader: {} samples pending (limit 5000)"
BOTH = "uploader: no upload for {} s (limit 600 s) and {} samples pending (limit 10000)"


@pytest.mark.parametrize(
    ("overdue", "pending", "status", "reasons"),
    [
        (0.0, 0, OK, []),
        (60.0, 1, OK, []),
        (60.001, 1, DEGRADED, [LATE.format(61, 60)]),
        (95.0, 80, DEGRADED, [LATE.format(95, 60)]),
        (60.001, 0, OK, []),
        (10.0**6, 0, OK, []),
        (0.0, 5000, OK, []),
        (0.0, 5001, DEGRADED, [MANY.format(5001)]),
        (60.0, 5000, OK, []),
        (61.0, 5000, DEGRADED, [LATE.format(61, 60)]),
        (61.0, 5001, DEGRADED, [LATE.format(61, 60), MANY.format(5001)]),
        (600.0, 10000, DEGRADED, [LATE.format(600, 60), MANY.format(10000)]),
        (600.0, 10001, DEGRADED, [LATE.format(600, 60), MANY.format(10001)]),
        (600.001, 10000, DEGRADED, [LATE.format(601, 60), MANY.format(10000)]),
        (600.001, 10001, ERROR, [BOTH.format(601, 10001)]),
        (60.0, 10**9, DEGRADED, [MANY.format(10**9)]),
        (10.0**6, 1, DEGRADED, [LATE.format(10**6, 60)]),
        (10.0**6, 10**9, ERROR, [BOTH.format(10**6, 10**9)]),
    ],
)
def test_around_the_thresholds(
    overdue: float, pending: int, status: Status, reasons: list[str]
) -> None:
    """A limit itself is no fault, anything above is; an age counts only with something pending."""
    snapshot = healthy_but(uploader={"overdue": overdue}, storage={"pending": pending})
    verdict = judge(snapshot, HEALTH)
    assert (verdict.status, list(verdict.reasons)) == (status, reasons)
    assert (verdict.uploader, verdict.storage) == (status, OK)


def test_the_thresholds_are_the_configured_ones() -> None:
    """Other thresholds move all four limits."""
    health = Health(
        degraded_threshold=Threshold(pending_metrics=10, upload_age_seconds=5),
        error_threshold=Threshold(pending_metrics=20, upload_age_seconds=50),
    )
    for overdue, pending, status in (
        (5.0, 10, OK),
        (5.1, 10, DEGRADED),
        (5.0, 11, DEGRADED),
        (50.0, 21, DEGRADED),
        (50.1, 20, DEGRADED),
        (50.1, 21, ERROR),
    ):
        snapshot = healthy_but(uploader={"overdue": overdue}, storage={"pending": pending})
        assert judge(snapshot, health).status is status, (overdue, pending)


def test_uploads_switched_off_are_no_fault() -> None:
    """Nothing about uploads is judged then, what is pending neither."""
    uploader = {"enabled": False, "overdue": 1e6, "misconfigured": True, "error": "old"}
    verdict = judge(healthy_but(uploader=uploader, storage={"pending": 10**9}), HEALTH)
    assert (verdict.status, verdict.reasons, verdict.uploader) == (OK, (), OK)


@pytest.mark.parametrize(
    ("uploader", "pending", "status", "reasons"),
    [
        (
            {"overdue": 95.0, "error": "connection refused"},
            1,
            DEGRADED,
            [LATE.format(95, 60) + ": connection refused"],
        ),
        (
            {"overdue": 700.0, "error": "connection refused"},
            20000,
            ERROR,
            [BOTH.format(700, 20000) + ": connection refused"],
        ),
        (
            {"misconfigured": True, "error": "401 Unauthorized"},
            0,
            DEGRADED,
            [
                "uploader: the server's answer says that the configuration is wrong:"
                " 401 Unauthorized"
            ],
        ),
        (
            {"misconfigured": True, "overdue": 700.0, "error": "404"},
            20000,
            ERROR,
            [
                BOTH.format(700, 20000),
                "uploader: the server's answer says that the configuration is wrong: 404",
            ],
        ),
    ],
    ids=["late", "late and many", "misconfigured", "misconfigured for long"],
)
def test_the_cause_is_told_once(
    uploader: dict[str, Any], pending: int, status: Status, reasons: list[str]
) -> None:
    """Why the last try failed ends the sentence; a server's refusal counts at once."""
    verdict = judge(healthy_but(uploader=uploader, storage={"pending": pending}), HEALTH)
    assert (verdict.status, list(verdict.reasons)) == (status, reasons)


@pytest.mark.parametrize(
    ("storage", "status", "reason"),
    [
        (
            {"error": "database or disk is full", "waiting": 240},
            ERROR,
            "samples cannot be stored (240 wait in memory): database or disk is full",
        ),
        ({"error": "I/O error"}, ERROR, "samples cannot be stored: I/O error"),
        (
            {"opening": "is being migrated from version 2, 40 %"},
            DEGRADED,
            "the database is being migrated from version 2, 40 %",
        ),
        ({"dropped": 7, "dropped_age": 0.0}, DEGRADED, "samples were lost within the last hour"),
        ({"dropped": 7, "dropped_age": 3600.0}, DEGRADED, ", 7 in this run"),
        ({"dropped": 7, "dropped_age": 3600.001}, OK, ""),
        (
            {
                "refused_age": 3600.0,
                "refused_reason": "no room",
                "refused_series": ("a {}", "b {}"),
            },
            DEGRADED,
            "new series are not stored, no room: a {}, b {}",
        ),
        ({"refused": 7, "refused_age": 3600.001}, OK, ""),
        (
            {"replaced_as": "/x/metrics.db.corrupt-1", "replaced_age": 3600.0},
            DEGRADED,
            "the database was damaged and put aside as /x/metrics.db.corrupt-1",
        ),
        ({"replaced_as": "/x/metrics.db.corrupt-1", "replaced_age": 3600.001}, OK, ""),
        (
            {"locked": False, "lock": "/x/metrics.db.lock"},
            DEGRADED,
            "/x/metrics.db.lock was removed or replaced: a second instance could start",
        ),
        (
            {"wal_blocked": True, "wal_bytes": 67108864},
            DEGRADED,
            "another program keeps the write-ahead log from being emptied (67108864 bytes)",
        ),
    ],
)
def test_the_storage(storage: dict[str, Any], status: Status, reason: str) -> None:
    """Samples that cannot be stored are an error; the rest is for someone to look at."""
    verdict = judge(healthy_but(storage=storage), HEALTH)
    assert (verdict.status, verdict.storage, verdict.uploader) == (status, status, OK)
    assert len(verdict.reasons) == (status is not OK)
    for line in verdict.reasons:
        assert line.startswith("storage: ")
        assert reason in line


@pytest.mark.parametrize(
    ("collectors", "status", "reasons"),
    [
        ({"a": GOOD, "b": BAD}, DEGRADED, ["collector b: no such sensor"]),
        ({"a": NEW, "b": BAD}, DEGRADED, ["collector b: no such sensor"]),
        (
            {"a": BAD, "b": BAD},
            ERROR,
            [
                "collectors: all are failing",
                "collector a: no such sensor",
                "collector b: no such sensor",
            ],
        ),
        ({"a": BAD}, ERROR, ["collectors: all are failing", "collector a: no such sensor"]),
        (
            {"a": ABSENT, "b": BAD},
            ERROR,
            ["collectors: all are failing", "collector b: no such sensor"],
        ),
        ({"a": GOOD, "b": HIDDEN}, DEGRADED, [f"collector b: {SOURCE_HIDDEN}"]),
        ({"a": HIDDEN, "b": HIDDEN}, DEGRADED, [f"collector {n}: {SOURCE_HIDDEN}" for n in "ab"]),
        (
            {"a": HIDDEN, "b": BAD},
            DEGRADED,
            [f"collector a: {SOURCE_HIDDEN}", "collector b: no such sensor"],
        ),
    ],
)
def test_the_collectors(
    collectors: dict[str, CollectorState], status: Status, reasons: list[str]
) -> None:
    """One that fails or is hidden degrades; that all present ones fail is an error.

    One that has not run yet is neither.
    """
    verdict = judge(healthy_but(collectors=collectors), HEALTH)
    assert (verdict.status, list(verdict.reasons)) == (status, reasons)
    assert verdict.collectors == {
        name: {State.FAILING: ERROR, State.HIDDEN: DEGRADED}.get(collector.state or State.OK, OK)
        for name, collector in collectors.items()
    }


@pytest.mark.parametrize(
    ("reason", "cure", "expected"),
    [
        (None, None, "the agent may not look"),
        ("x" * 1000, "Install it.", "x" * 139 + "…; Install it."),
        ("a\nb", "c\x1b", "a b; c\\u001b"),
    ],
)
def test_what_hides_a_source_leaves_room_for_the_cure(
    reason: str | None, cure: str | None, expected: str
) -> None:
    """However much it says, the cure stands behind it; and both are harmless."""
    hidden = replace(HIDDEN, reason=reason, cure=cure)
    (line,) = judge(healthy_but(collectors={"a": GOOD, "b": hidden}), HEALTH).reasons
    assert line == f"collector b: its source is hidden: {expected}"


def test_the_most_severe_comes_first() -> None:
    """Of any component."""
    verdict = judge(
        healthy_but(
            collectors={"a": GOOD, "b": BAD},
            uploader={"overdue": 700.0},
            storage={"pending": 20000, "wal_blocked": True},
        ),
        HEALTH,
    )
    assert [line.partition(":")[0] for line in verdict.reasons] == [
        "uploader",
        "storage",
        "collector b",
    ]
    assert (verdict.status, verdict.uploader, verdict.storage) == (ERROR, ERROR, DEGRADED)


def test_reasons_are_bounded() -> None:
    """In number and in length, the most severe being kept."""
    bad = replace(BAD, reason="x" * 10_000)
    verdict = judge(healthy_but(collectors={f"c{n}": bad for n in range(100)}), HEALTH)
    assert len(verdict.reasons) == MAX_REASONS
    assert verdict.reasons[0] == "collectors: all are failing"
    assert {len(reason) for reason in verdict.reasons[1:]} == {MAX_REASON}
    assert verdict.reasons[1].endswith("xxx…")


ages = st.sampled_from([0.0, 59.9, 60.0, 60.1, 599.9, 600.0, 600.1, 1e7]) | st.floats(0, 1e4)
recent = st.none() | st.sampled_from([0.0, 3599.9, 3600.0, 3600.1]) | st.floats(0, 1e4)
errors = st.none() | anything
collector_states = st.builds(
    CollectorState,
    state=st.none() | st.sampled_from(State),
    age=st.none() | ages,
    collected=st.just(1),
    failed=st.just(1),
    reason=errors,
    cure=errors,
    left_out=st.lists(anything, max_size=3).map(tuple),
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Draw agents in every condition, often at the thresholds."""
    pending = st.sampled_from([0, 1, 4999, 5000, 5001, 9999, 10000, 10001])
    return healthy_but(
        collectors=draw(st.dictionaries(st.sampled_from("abc"), collector_states)),
        uploader={
            "enabled": draw(st.booleans()),
            "overdue": draw(ages),
            "error": draw(errors),
            "misconfigured": draw(st.booleans()),
        },
        storage={
            "opening": draw(st.none() | st.just("is being opened")),
            "pending": draw(pending),
            "error": draw(errors),
            "dropped_age": draw(recent),
            "refused_age": draw(recent),
            "replaced_as": draw(st.none() | anything),
            "replaced_age": draw(recent),
            "locked": draw(st.booleans()),
            "wal_blocked": draw(st.booleans()),
        },
    )


def broken_rules(one: Snapshot) -> list[Status]:
    """Apply the rules one by one: what each of those that are broken makes of the status."""
    up, store, pending = one.uploader, one.storage, one.storage.pending
    states = [collector.state for collector in one.collectors.values()]
    present = [state for state in states if state is not State.ABSENT]
    rules = {
        ERROR: [
            bool(present) and set(present) == {State.FAILING},
            up.enabled and up.overdue > 600 and pending > 10000,
            store.error is not None,
        ],
        DEGRADED: [
            State.FAILING in states,
            State.HIDDEN in states,
            up.enabled and pending > 0 and up.overdue > 60,
            up.enabled and pending > 5000,
            up.enabled and up.misconfigured,
            store.opening is not None,
            store.dropped_age is not None and not store.dropped_age > 3600,
            store.refused_age is not None and not store.refused_age > 3600,
            store.replaced_as is not None
            and store.replaced_age is not None
            and not store.replaced_age > 3600,
            not store.locked,
            store.wal_blocked,
        ],
    }
    return [status for status, broken in rules.items() for rule in broken if rule]


@given(snapshots())
def test_the_status_is_that_of_the_worst_rule(snapshot: Snapshot) -> None:
    """In every combination; and there are reasons exactly where the status is not ok."""
    verdict = judge(snapshot, HEALTH)
    assert verdict.status is max(broken_rules(snapshot), default=OK)
    assert verdict.status >= max(verdict.uploader, verdict.storage)
    assert bool(verdict.reasons) == (verdict.status is not OK)
    assert len(verdict.reasons) <= MAX_REASONS
    for reason in verdict.reasons:
        assert reason.isprintable()
        assert len(reason) <= MAX_REASON
        assert reason.partition(" ")[0] in {"uploader:", "storage:", "collectors:", "collector"}
