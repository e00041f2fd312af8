"""The agent's own metrics as samples."""

from pathlib import Path

import pytest

from belatwist.collectors.selfmetrics import SelfMetrics, resident_bytes
from belatwist.metrics.agent import SELF
from belatwist.metrics.metric import MetricType
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import REAL, Sample

NOW_MS = 1_763_800_000_000


def collect(telemetry: Telemetry, collector: SelfMetrics | None = None) -> dict[str, list[Sample]]:
    """Collect once, and sort by name."""
    collector = collector or SelfMetrics("box", telemetry)
    found: dict[str, list[Sample]] = {}
    for one in collector.collect(NOW_MS):
        found.setdefault(one.series.name, []).append(one)
    return found


def full() -> Telemetry:
    """Return a telemetry in which everything has a value, but for what the process is asked."""
    telemetry = Telemetry()
    telemetry.metrics_collected.labels("cpu.usage").inc(9)
    telemetry.metrics_failed.labels("cpu.usage")
    telemetry.collection_duration.labels("cpu.usage").observe(0.02)
    for stored, entry in SELF.items():
        if entry.type is MetricType.GAUGE and not stored.startswith("collector."):
            telemetry.watch(stored, lambda: 5)
    return telemetry


def test_everything_is_collected() -> None:
    """Every metric of the catalogue's own part is there, under its tags and no others."""
    found = collect(full())
    expected = {}
    for stored, entry in SELF.items():
        if entry.type is MetricType.HISTOGRAM:
            expected[f"{stored}_bucket"] = {*entry.tags, "le"}
            expected[f"{stored}_sum"] = expected[f"{stored}_count"] = set(entry.tags)
        else:
            expected[stored] = set(entry.tags)
    assert {name: dict(s[0].series.tags).keys() for name, s in found.items()} == expected
    for samples in found.values():
        assert len({one.series for one in samples}) == len(samples)
        for one in samples:
            assert one.timestamp_ms == NOW_MS
            assert (one.series.device_id, one.series.value_type) == ("box", REAL)


def test_a_histogram_is_cumulative() -> None:
    """A bucket counts the values up to its bound, the last bucket all; sum and count agree."""
    telemetry = Telemetry()
    for seconds in (0.005, 0.05, 0.05, 30.0):
        telemetry.write_duration.observe(seconds)
    found = collect(telemetry)
    buckets = {
        dict(one.series.tags)["le"]: one.value
        for one in found["storage.write_duration_seconds_bucket"]
    }
    assert buckets == {"0.01": 1, "0.1": 3, "1.0": 3, "+Inf": 4}
    assert [one.value for one in found["storage.write_duration_seconds_count"]] == [4]
    (total,) = found["storage.write_duration_seconds_sum"]
    assert total.value == pytest.approx(30.105)


def test_what_has_no_value_is_absent() -> None:
    """A missing value is neither 0 nor NaN."""
    telemetry = Telemetry()
    telemetry.watch("time.skew_ms", lambda: None)
    telemetry.watch("storage.wal_bytes_reclaimed", lambda: float("nan"))
    found = collect(telemetry)
    assert not {"time.skew_ms", "storage.wal_bytes_reclaimed"} & found.keys()


def test_the_process_is_measured() -> None:
    """Its memory is that of this process, its CPU time a part of a core."""
    telemetry = Telemetry()
    found = collect(telemetry, SelfMetrics("box", telemetry))
    (memory,) = found["collector.memory_usage_bytes"]
    (cpu,) = found["collector.cpu_usage_percent"]
    assert isinstance(memory.value, float)
    assert isinstance(cpu.value, float)
    assert 10e6 < memory.value < 2e9
    assert 0 <= cpu.value < 6400


def test_memory_that_cannot_be_read(tmp_path: Path) -> None:
    """It is absent."""
    assert resident_bytes(tmp_path / "missing") is None
    (tmp_path / "statm").write_text("1")
    assert resident_bytes(tmp_path / "statm") is None


def test_series_are_made_once() -> None:
    """Their tags are sorted and encoded once, not at each collection."""
    telemetry = full()
    collector = SelfMetrics("box", telemetry)
    first, second = collector.collect(NOW_MS), collector.collect(NOW_MS + 1)
    before = {id(one.series) for one in first}
    assert {id(one.series) for one in second} == before


def test_two_agents_do_not_share() -> None:
    """A registry belongs to one agent: nothing is kept in the module."""
    one, other = Telemetry(), Telemetry()
    one.clock_steps.inc()
    assert collect(other)["time.clock_steps_total"][0].value == 0
