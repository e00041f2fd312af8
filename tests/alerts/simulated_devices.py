"""Devices of the tests' own: every series of a real one, made longer, and bent where it is told.

The names, the tags and the first values are those that the real collectors and the real telemetry
yield from a fixture board; the lines are the real encoder's.
"""

import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial

from belatwist.collectors.registry import CATALOGUE, SOURCE_OF, SOURCES
from belatwist.collectors.selfmetrics import SelfMetrics
from belatwist.metrics.metric import MetricType
from belatwist.metrics.names import metric_name
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series
from belatwist.upload.jsonl import Encoder
from tests import fixture_trees
from tests.fixture_trees import NOW_MS, machine, procfs, sysfs
from tests.victoria.server import VictoriaMetrics

Curve = Callable[[float], float | None]
"""A value by the seconds since the start; ``None`` where there is no sample."""

Changes = Mapping[str, Curve]
"""What differs from an ordinary device: by the uploaded name, or by ``name/value`` for the series
whose tag has that value."""

BOARD_UPTIME = 5821.37
"""Seconds since boot in the fixture."""

_SUFFIXES = ("", "_bucket", "_sum", "_count")

SELF_EVERY = 120
PACE = {
    entry.prometheus_name + suffix: int(source.every) if source else SELF_EVERY
    for entry in CATALOGUE.values()
    for source in [SOURCES.get(SOURCE_OF.get(entry.name, ""))]
    for suffix in _SUFFIXES
}
"""Seconds between two samples with the default configuration, by uploaded name."""

_COUNTERS = {
    entry.prometheus_name + suffix
    for entry in CATALOGUE.values()
    if entry.type is not MetricType.GAUGE
    for suffix in _SUFFIXES
}

_OWN_GAUGES = {
    "storage.database_size_bytes": 40e6,
    "storage.wal_size_bytes": 2e6,
    "storage.metrics_pending_upload": 300.0,
    "storage.wal_checkpoint_duration_ms": 80.0,
    "storage.wal_bytes_reclaimed": 2e6,
    "time.skew_ms": -120.0,
}
"""By stored name; the two about the process are read from this one."""


@cache
def board() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return a value for every series of a device, by its uploaded name and its tags."""
    found = {
        (metric_name(one.series.name), one.series.tags): float(one.value)
        for one in [*_collected(), *_told()]
    }
    # Only a device with too many interfaces has it.
    return {**found, ("network_interfaces_dropped_total", ()): 0.0}


def _collected() -> list[Sample]:
    """Collect from every collector, twice, so that there are deltas."""
    proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    return fixture_trees.collected(replace(machine(proc, sys), device_id="board"), proc)


def _told() -> list[Sample]:
    """Tell a telemetry what an hour and a half of an ordinary device would."""
    telemetry = Telemetry()
    for name in SOURCES:
        telemetry.metrics_collected.labels(name).inc(6000)
        telemetry.metrics_failed.labels(name).inc(0)
        for seconds in (0.003, 0.004, 0.02):
            telemetry.collection_duration.labels(name).observe(seconds)
    telemetry.metrics_uploaded.inc(48_000)
    telemetry.metrics_pruned.inc(9_000)
    for seconds in (0.2, 0.3, 0.4, 0.9, 3.0):
        telemetry.upload_duration.observe(seconds)
    for seconds in (0.002, 0.003, 0.05):
        telemetry.query_duration.observe(seconds)
        telemetry.write_duration.observe(seconds)
    for stored, value in _OWN_GAUGES.items():
        telemetry.watch(stored, partial(float, value))
    return SelfMetrics("board", telemetry).collect(NOW_MS)


def ordinary(name: str, first: float) -> Curve:
    """Go on as a device would: what is counted goes on as fast as it has since boot."""
    if name == "system_uptime_seconds":
        return lambda t: first + t
    if name in _COUNTERS:
        return lambda t: first * (1 + t / BOARD_UPTIME)
    return lambda t: first * (1 + (t // 60 % 5) / 100)


def samples(
    device: str,
    changes: Changes,
    times: Callable[[int], Iterable[int]],
    only: Callable[[str], bool] = lambda name: True,
) -> Iterator[tuple[Series, int, float]]:
    """Give what a device has to say.

    :param times: seconds since the start at which it says it, for an interval in seconds.
    :param only: which uploaded names are wanted.
    :return: series, seconds since the start, value.
    """
    for (name, tags), first in board().items():
        if not only(name):
            continue
        curve = changes.get(name)
        for _, value in tags:
            curve = changes.get(f"{name}/{value}", curve)
        curve = curve or ordinary(name, first)
        series = Series.of(name, device, dict(tags))
        for at in times(PACE[name]):
            if (number := curve(at)) is not None:
                yield series, at, number


def send(
    server: VictoriaMetrics, start_ms: int, points: Iterable[tuple[Series, int, float]]
) -> None:
    """Import samples, encoded as the agent does, and make them visible.

    :param start_ms: Unix time of second 0.
    """
    numbers: dict[Series, int] = {}
    rows = [
        (start_ms + 1000 * at, numbers.setdefault(series, len(numbers)), value)
        for series, at, value in points
    ]
    body = Encoder().encode(rows, {number: series for series, number in numbers.items()})
    with urllib.request.urlopen(server.import_url, body):
        pass
    server.flush()
