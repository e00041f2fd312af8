"""The table of collectors and the catalogue of what they yield."""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from twisted.internet.task import Clock

from belatwist import config
from belatwist.collectors.contract import COUNTER, GAUGE, Metric, Source
from belatwist.collectors.disk import DiskIOOptions
from belatwist.collectors.network import NetworkTrafficOptions
from belatwist.collectors.registry import HOST, SOURCE_OF, SOURCES, build, by_name
from belatwist.errors import BelaError
from belatwist.model import REAL, Sample
from belatwist.upload.jsonl import Encoder
from tests.collectors import kernel_texts
from tests.fixture_trees import (
    FIXTURES,
    NOW_MS,
    Board,
    collect,
    enabled,
    machine,
    procfs,
    sysfs,
)


def everything(proc: Board, sys: Board, *, limit: int = 32) -> dict[str, list[Sample]]:
    """Collect twice from every collector, so that deltas appear; give the second round.

    By the collectors' clock an hour has passed, after which they repeat what they say rarely.
    """
    clock = Clock()
    sources = enabled(
        machine(proc, sys, seconds=clock.seconds),
        network_traffic=NetworkTrafficOptions(max_interfaces=limit),
    )
    for one in sources:
        collect(one, NOW_MS - 10_000)
    proc.become("orangepi5plus-t10")
    clock.advance(3600)
    return {one.source.name: list(collect(one, NOW_MS)) for one in sources}


def test_only_enabled_entries_are_made_in_their_order() -> None:
    """Each with the interval of its entry."""
    metrics = [
        config.CollectorEntry(name="system.uptime", interval=60.0),
        config.CollectorEntry(name="cpu.usage", interval=10.0, enabled=False),
        config.CollectorEntry(name="memory.usage", interval=30.0),
    ]
    sources = build(metrics, machine(procfs("vm"), sysfs("vm")))
    found = [(one.source.name, one.every) for one in sources]
    assert found == [("system.uptime", 60.0), ("memory.usage", 30.0)]


def test_options_reach_their_collectors() -> None:
    """The disk's and the network's options are those of the entry."""
    metrics = [
        config.CollectorEntry(
            name="disk.io",
            interval=1.0,
            config=DiskIOOptions(allowed_devices="nvme0n1", sector_size="logical"),
        ),
        config.CollectorEntry(
            name="network.traffic",
            interval=1.0,
            config=NetworkTrafficOptions(
                include_ifaces=("lo|eth.",), exclude_ifaces=("eth1",), max_interfaces=2
            ),
        ),
    ]
    trees = ("variants/nvme-4kn", "orangepi5plus")
    sources = build(metrics, machine(procfs(*trees), sysfs(*trees)))
    disk, network = (collect(one, NOW_MS) for one in sources)
    assert {s.series.tags for s in disk} == {(("device", "nvme0n1"),)}
    assert [s.value for s in disk if "read_bytes" in s.series.name] == [742106 * 4096]
    assert {tag for s in network for tag in s.series.tags if tag[0] == "interface"} == {
        ("interface", "eth2"),
        ("interface", "eth0"),
    }
    assert [s.value for s in network if "dropped" in s.series.name] == [1]


def test_the_board_yields_the_catalogue() -> None:
    """Every sample is in the catalogue, under its collector and tags, and nothing is missing."""
    reports = everything(procfs("orangepi5plus"), sysfs("orangepi5plus"), limit=5)
    for collector, samples in reports.items():
        for s in samples:
            entry = HOST[s.series.name]
            assert SOURCE_OF[entry.name] == collector
            assert tuple(key for key, _ in s.series.tags) == entry.tags
            assert s.series.value_type == REAL
            assert s.series.device_id == "box"
            assert s.timestamp_ms == NOW_MS
    found = {s.series.name for samples in reports.values() for s in samples}
    assert found == {name for name in HOST if SOURCE_OF[name] in reports}
    assert {name for name, source in SOURCES.items() if source.default} <= reports.keys()


def test_the_board_is_stored_and_uploaded_as_ever() -> None:
    """Names, tags, priorities and values are a contract with databases and servers in the field.

    A new source adds lines to the golden file, and changes none.
    """
    golden = (FIXTURES / "golden" / "orangepi5plus.jsonl").read_text("utf-8").splitlines()
    reports = everything(procfs("orangepi5plus"), sysfs("orangepi5plus"), limit=5)
    encoder = Encoder()
    found = [
        json.dumps(
            {
                "source": source,
                "stored": s.series.name,
                "tags": dict(s.series.tags),
                "priority": s.series.priority,
                "value": s.value,
                "uploaded": encoder.encode([(s.timestamp_ms, 1, float(s.value))], {1: s.series})
                .decode()
                .rstrip("\n"),
            }
        )
        for source, samples in reports.items()
        for s in samples
    ]
    assert sorted(found) == golden


def test_no_two_samples_of_a_round_are_one() -> None:
    """The store would silently keep one of two samples with the same identity."""
    reports = everything(procfs("orangepi5plus"), sysfs("variants/bogus-zone", "orangepi5plus"))
    samples = [s for report in reports.values() for s in report]
    assert len({(s.series, s.timestamp_ms) for s in samples}) == len(samples) > 60


def test_the_names_of_the_catalogue() -> None:
    """Uploaded names suit PromQL and are different; counters, and only they, end in _total."""
    uploaded = [entry.prometheus_name for entry in HOST.values()]
    assert len(set(uploaded)) == len(uploaded)
    for stored, entry in HOST.items():
        assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", entry.prometheus_name)
        assert entry.prometheus_name.removesuffix("_celsius") == stored.replace(".", "_")
        assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", tag) for tag in entry.tags)
        assert not {"device_id", "__name__"} & set(entry.tags)
        assert entry.prometheus_name.endswith("_total") == (entry.type == "counter")


@pytest.mark.parametrize("tree", ["vm", "container"])
def test_a_poor_machine_is_no_error(tree: str) -> None:
    """What a machine does not have is absent, and every collector works on it."""
    sources = enabled(machine(procfs(tree), sysfs(tree)))
    names = {s.series.name for one in sources for s in collect(one, NOW_MS)}
    assert names <= HOST.keys()
    assert not any(name.startswith(("thermal.", "cpu.", "disk.")) for name in names)
    assert "memory.used_bytes" in names


@given(kernel_texts.damaged(kernel_texts.files("proc/net/dev") + kernel_texts.files("proc/stat")))
def test_damage_never_breaks_a_collector(text: bytes) -> None:
    """On any text a collector raises what it announces, or yields catalogued, storable samples."""
    proc, sys = procfs("orangepi5plus"), sysfs("orangepi5plus")
    sources = enabled(machine(proc, sys))
    for _ in range(2):
        for one in sources:
            try:
                samples = collect(one, NOW_MS)
            except BelaError:
                continue
            assert {s.series.name for s in samples} <= HOST.keys()
            assert len({s.series for s in samples}) == len(samples)
            for s in samples:
                s.series.tags_json.encode()
        proc.texts = dict.fromkeys(("stat", "meminfo", "diskstats", "net/dev"), text)
        sys.texts = {"class/thermal/thermal_zone0/temp": text}


def source(name: str, *metrics: Metric) -> Source:
    """Declare a source that makes nothing."""
    return Source(name, 1.0, lambda *_: pytest.fail("made"), metrics)


ONE = Metric("one.bytes", GAUGE, "bytes", "One.")


@pytest.mark.parametrize(
    ("sources", "error"),
    [
        ([source("a.one"), source("a.one")], "the source a.one is claimed by a.one and by a.one"),
        (
            [source("a.one", ONE), source("a.two", ONE)],
            "the metric one.bytes is claimed by a.one and by a.two",
        ),
        (
            [
                source("a.one", Metric("a.b_c", GAUGE, "bytes", "A.")),
                source("a.two", Metric("a_b.c", GAUGE, "bytes", "B.")),
            ],
            "the uploaded name a_b_c is claimed by a.one and by a.two",
        ),
    ],
)
def test_two_sources_that_claim_one_name(sources: list[Source], error: str) -> None:
    """It is one clear error, at start, that names both."""
    with pytest.raises(ValueError, match=f"^{error}$"):
        by_name(sources)


@pytest.mark.parametrize("name", ["", "cpu", "Cpu.usage", "cpu.usage.all", "cpu usage", "cpu.\n"])
def test_a_source_needs_a_name_that_a_configuration_can_spell(name: str) -> None:
    """Anything else is refused where it is declared."""
    with pytest.raises(ValueError, match=r"a source's name is like network\.traffic"):
        source(name)


@pytest.mark.parametrize("name", ["", ".conf", "a/b.conf", "../b.conf", "b.confx", "B.conf", "a"])
def test_a_drop_in_is_a_file_name(name: str) -> None:
    """Anything else is refused where it is declared, with a good example."""
    with pytest.raises(ValueError, match=r"a drop-in's name is like some\.device\.conf, not '"):
        Source("some.device", 10.0, SOURCES["disk.io"].make, (), drop_in=name)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Metric("bytes", GAUGE, "bytes", "A."), "a name that is not like"),
        (lambda: Metric("a.b_total", GAUGE, "bytes", "A."), "a counter ends in _total"),
        (lambda: Metric("a.b", COUNTER, "bytes", "A."), "a counter ends in _total"),
        (lambda: Metric("a.b", GAUGE, "bytes", "A"), "a help that is no sentence"),
        (lambda: Metric("a.b", GAUGE, "bytes", "A.", tags=("device_id",)), "the tag 'device_id'"),
        (lambda: Metric("a.b", GAUGE, "bytes", "A.", tags=("A b",)), "the tag 'A b'"),
        (lambda: Metric("a.b", GAUGE, "bytes", "A.", priority=4), "the priority 4"),
    ],
)
def test_a_metric_that_would_surprise(make: Callable[[], Metric], error: str) -> None:
    """It is refused where it is declared."""
    with pytest.raises(ValueError, match=error):
        make()


def test_a_series_has_the_tags_that_its_metric_declares() -> None:
    """A source cannot invent others, and cannot forget one."""
    metric = Metric("a.b", GAUGE, "bytes", "A.", tags=("zone",), priority=1)
    on = machine()
    assert on.series(metric, zone="x").tags == (("zone", "x"),)
    assert on.series(metric, zone="x").priority == 1
    for tags in ({}, {"zone": "x", "more": "y"}, {"other": "x"}):
        with pytest.raises(ValueError, match=r"a\.b has the tags"):
            on.series(metric, **tags)
