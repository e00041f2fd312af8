"""The text for scrapers has what the catalogue has, in Prometheus' format."""

import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from belatwist.collectors.registry import HOST, SOURCE_OF
from belatwist.metrics.agent import SELF
from belatwist.metrics.exposition import exposition
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import TEXT, Sample, Series, sample
from tests.fixture_trees import NOW_MS, READ_HERE
from tests.health.scraping import collected, filled_telemetry, program
from tests.strategies import numbers, texts

DEVICE = "belabox-001"

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and sorted labels."""


def text(samples: Sequence[Sample]) -> str:
    """Write samples, and a registry without a value."""
    return exposition(Telemetry().registry, samples, HOST).decode()


def values(written: str) -> Values:
    """Read a text with the library's parser, only what is of the machine."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(written)
        for one in family.samples
        if not one.name.startswith(("collector_", "uploader_", "storage_", "time_"))
    }


def measured(name: str, value: float, **tags: str) -> Sample:
    """Make a sample."""
    return sample(Series.of(name, DEVICE, tags), NOW_MS, value)


def test_a_metric_of_each_kind() -> None:
    """Uploaded name, help and kind are the catalogue's; labels are the tags, and no device."""
    samples = [
        measured("network.rx_bytes_total", 2**53 - 1, interface="usb0"),
        measured("network.rx_bytes_total", 7, interface="wwan0"),
        measured("cpu.temperature", 52.25),
    ]
    lines = text(samples).splitlines()[:7]
    assert lines == [
        "# HELP cpu_temperature_celsius Heat of the hottest zone of the processor.",
        "# TYPE cpu_temperature_celsius gauge",
        "cpu_temperature_celsius 52.25",
        "# HELP network_rx_bytes_total Bytes received.",
        "# TYPE network_rx_bytes_total counter",
        'network_rx_bytes_total{interface="usb0"} 9.007199254740991e+15',
        'network_rx_bytes_total{interface="wwan0"} 7.0',
    ]


def test_no_series_is_there_twice() -> None:
    """A scraper refuses such a text: of several samples of a series the last one counts."""
    samples = [measured("system.load_1m", 1), measured("system.load_1m", 2)]
    assert values(text(samples)) == {("system_load_1m", ()): 2.0}


def test_what_is_no_metric_of_the_machine_is_left_out() -> None:
    """Texts have no value, and the self-metrics are the registry's."""
    samples = [
        Sample(Series.of("system.load_1m", DEVICE, value_type=TEXT), NOW_MS, "much"),
        measured("collector.memory_usage_bytes", 5),
        measured("new.metric", 5),
    ]
    assert text(samples) == text([])


def test_the_self_metrics_follow() -> None:
    """The agent's own metrics are in the same text."""
    telemetry = Telemetry()
    telemetry.metrics_uploaded.inc(80)
    telemetry.collection_duration.labels("cpu.usage").observe(0.05)
    telemetry.watch("time.skew_ms", lambda: -40)
    written = exposition(telemetry.registry, [], HOST).decode()
    assert "\nuploader_metrics_uploaded_total 80.0\n" in written
    assert (
        '\ncollector_collection_duration_seconds_bucket{collector="cpu.usage",le="0.1"} 1.0\n'
        in written
    )
    assert "\ntime_skew_ms -40.0\n" in written
    assert "_created" not in written


@st.composite
def drawn(draw: st.DrawFn) -> list[Sample]:
    """Draw samples of the catalogue, their tags holding anything."""
    names = draw(st.lists(st.sampled_from(sorted(HOST)), max_size=8))
    return [
        measured(name, draw(numbers), **{tag: draw(texts) for tag in HOST[name].tags})
        for name in names
    ]


@given(drawn())
def test_any_tags_give_a_whole_text(samples: list[Sample]) -> None:
    """Each series is read back, once, with its labels and its value."""
    assert values(text(samples)) == {
        (HOST[one.series.name].prometheus_name, one.series.tags): one.value for one in samples
    }


def test_a_tag_keeps_clear_of_the_uploaders_labels() -> None:
    """It has the name here that it has on the server."""
    samples = [measured("system.load_1m", 1, device_id="x", **{"a-b": "y"})]
    labels = (("a_b", "y"), ("exported_device_id", "x"))
    assert values(text(samples)) == {("system_load_1m", labels): 1.0}


def test_a_board_gives_the_whole_catalogue() -> None:
    """Every metric read here is there, with the kind and the labels of the catalogue."""
    written = text([*collected(), measured("network.interfaces_dropped_total", 3)])
    found = {family.name: family for family in text_string_to_metric_families(written)}
    for entry in HOST.values():
        if SOURCE_OF[entry.name] not in READ_HERE:
            continue
        name = entry.prometheus_name.removesuffix("_total")
        family = found.pop(name)
        assert (family.type, family.documentation) == (entry.type, entry.help)
        for one in family.samples:
            assert one.labels.keys() == set(entry.tags)
            assert one.name == entry.prometheus_name
    own = {entry.prometheus_name.removesuffix("_total") for entry in SELF.values()}
    assert found.keys() <= own


NAMED_BY_THE_CATALOGUE = {
    f"{name} metric names should not contain abbreviated units"
    for name in (
        "disk_io_time_ms_total",
        "disk_weighted_io_time_ms_total",
        "storage_wal_checkpoint_duration_ms",
        "time_skew_ms",
    )
}


@pytest.mark.process
@pytest.mark.victoria
def test_promtool_takes_it() -> None:
    """Prometheus' own tool reads it, and objects to nothing but milliseconds in four names."""
    check = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"],
        input=exposition(filled_telemetry().registry, collected(), HOST),
        capture_output=True,
        check=False,
    )
    lines = (check.stdout + check.stderr).decode().splitlines()
    assert set(lines) == NAMED_BY_THE_CATALOGUE
    assert len(lines) == len(NAMED_BY_THE_CATALOGUE)
    assert check.returncode == 3  # 1 is what cannot be read; 3 what could be named better.
