"""Compares what a database says with what a server has."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from belatwist.metrics.names import labels, metric_name
from tests.victoria.server import Points


def rows(database: Path, where: str) -> list[tuple[Any, ...]]:
    """Read name, tags, device, time and value of samples, by time."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "SELECT metric_name, tags, device_id, timestamp_ms, metric_value FROM metrics"
            f" WHERE {where} ORDER BY timestamp_ms"
        ).fetchall()


def expected(database: Path) -> Points:
    """Return what the server should have: what the database says was uploaded, as it is named."""
    result: Points = {}
    for name, tags, device_id, timestamp, value in rows(database, "uploaded = 1"):
        named = {"__name__": metric_name(name), **labels(device_id, json.loads(tags).items())}
        result.setdefault(tuple(sorted(named.items())), []).append((timestamp, value))
    return result


def assert_same(exported: Points, wanted: Points) -> None:
    """Check that a server has each sample once, to the millisecond, and nothing else.

    Whole numbers are exact. Of a fraction VictoriaMetrics itself keeps 12 significant digits, which
    is a relative error of up to 1e-11 (lib/decimal of its source: ``conversionPrecision``).
    """
    assert exported.keys() == wanted.keys()
    for key, points in wanted.items():
        assert [at for at, _ in exported[key]] == [at for at, _ in points], key
        for (at, got), (_, sent) in zip(exported[key], points, strict=True):
            exact = sent.is_integer() and abs(sent) < 2**53
            assert got == (sent if exact else pytest.approx(sent, rel=1e-11, abs=0)), (key, at)
