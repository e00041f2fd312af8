"""The metrics of a fixture board as scrapers get them, with a value of every self-metric."""

import os
import shutil

import pytest

from belatwist.collectors.registry import SOURCES
from belatwist.metrics.agent import SELF
from belatwist.metrics.metric import MetricType
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from tests import fixture_trees
from tests.fixture_trees import machine, procfs, sysfs


def collected() -> list[Sample]:
    """Collect from every collector, twice, so that there are deltas."""
    proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    return fixture_trees.collected(machine(proc, sys), proc)


def filled_telemetry() -> Telemetry:
    """Make a telemetry in which every metric has a value."""
    telemetry = Telemetry()
    for name in SOURCES:
        telemetry.metrics_collected.labels(name).inc(40)
        telemetry.metrics_failed.labels(name).inc()
        telemetry.collection_duration.labels(name).observe(0.004)
    for stored, entry in SELF.items():
        if entry.type is MetricType.GAUGE:
            telemetry.watch(stored, lambda: 5.0)
    return telemetry


def program(name: str, package: str) -> str:
    """Find a program.

    Skips where it is not installed; fails where ``BELA_REQUIRE_VICTORIA=1`` demands it.
    """
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian: apt-get install {package})"
        if os.environ.get("BELA_REQUIRE_VICTORIA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
