"""PromQL-safe names."""

import re

import pytest
from hypothesis import example, given

from belatwist.collectors.registry import CATALOGUE
from belatwist.metrics.names import labels, metric_name
from belatwist.model import Series
from tests import strategies

METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@pytest.mark.parametrize(
    ("stored", "uploaded"), [(k, v.prometheus_name) for k, v in CATALOGUE.items()]
)
def test_catalogue(stored: str, uploaded: str) -> None:
    """Every metric of the catalogue is uploaded under the catalogue's name."""
    assert metric_name(stored) == uploaded
    assert METRIC.fullmatch(uploaded)


def test_no_two_names_of_the_catalogue_collide() -> None:
    """No two metrics of the catalogue have the same name once made safe."""
    assert len({metric_name(stored) for stored in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize(
    ("stored", "uploaded"),
    [
        ("cpu.temperature", "cpu_temperature_celsius"),
        ("cpu_temperature", "cpu_temperature_celsius"),
        ("cpu.temperature_celsius", "cpu_temperature_celsius"),
        ("thermal.zone_temp", "thermal_zone_temp_celsius"),
        ("my.cpu.temperature", "my_cpu_temperature"),
        ("4g.signal", "_4g_signal"),
        ("a:b", "a:b"),
        ("a-b c", "a_b_c"),
        ("größe", "gr__e"),
        ("a\n", "a_"),
        ("\u0661", "_"),
        (".", "_"),
    ],
)
def test_metric_names(stored: str, uploaded: str) -> None:
    """Other characters become underscores, one precedes a digit, temperatures get their unit."""
    assert metric_name(stored) == uploaded


@given(strategies.anything.filter(bool))
def test_metric_names_are_safe(stored: str) -> None:
    """Any name becomes a name that PromQL reads; making it safe again changes nothing."""
    safe = metric_name(stored)
    assert METRIC.fullmatch(safe)
    assert metric_name(safe) == safe


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, {}),
        ({"core": "0", "zone": "x"}, {"core": "0", "zone": "x"}),
        ({"device_id": "x"}, {"exported_device_id": "x"}),
        ({"device.id": "x"}, {"exported_device_id": "x"}),
        ({"__name__": "x"}, {"exported___name__": "x"}),
        (
            {"__name__": "x", "device_id": "y", "exported_device_id": "z"},
            {"exported___name__": "x", "exported_device_id": "y"}
            | {"exported_exported_device_id": "z"},
        ),
        ({"a.b": "1", "a_b": "2"}, {"a_b": "1", "exported_a_b": "2"}),
        ({"4g": "x"}, {"_4g": "x"}),
        ({"": "x"}, {"_": "x"}),
        ({"a:b": "x"}, {"a_b": "x"}),
    ],
)
def test_labels(tags: dict[str, str], expected: dict[str, str]) -> None:
    """Tag names become label names; no tag replaces our own labels or an earlier one."""
    found = labels("box", Series.of("m", "box", tags).tags)
    assert found == {"device_id": "box"} | expected


@given(strategies.anything, strategies.tags(strategies.anything, strategies.anything))
@example("box", {"a.b": "1", "a:b": "2", "a_b": "3", "exported_a_b": "4"})
def test_labels_are_safe_and_complete(device: str, tags: dict[str, str]) -> None:
    """Every tag has a label of its own that PromQL reads; ``device_id`` is the device's."""
    pairs = Series.of("m", device, tags).tags
    found = labels(device, pairs)
    assert list(found.values()) == [device, *(value for _, value in pairs)]
    assert found["device_id"] == device
    assert "__name__" not in found
    assert all(LABEL.fullmatch(label) for label in found)


@given(strategies.series())
def test_safe_labels_stay(series: Series) -> None:
    """Labels that are safe already go through as they are."""
    once = labels("box", series.tags)
    tags = [(k, v) for k, v in once.items() if k != "device_id"]
    assert labels("box", tags) == once
