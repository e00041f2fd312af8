"""The main job on real input: ``/proc`` → SQLite → a real VictoriaMetrics → PromQL."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from belatwist.collectors.registry import CATALOGUE, HOST, SOURCE_OF
from tests.fixture_trees import READ_HERE
from tests.process import Twistd, write_config
from tests.victoria.compare import assert_same, expected, rows
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

DOCS = Path(__file__).parent.parent.parent / "docs"
BOARD = Path(__file__).parent.parent / "fixtures" / "orangepi5plus"
HOST_DEVICE = "this-host"
BOARD_DEVICE = "the-board"
UPLOADS = 6
DISKS = r"sd[a-z]+|nvme\d+n\d+|mmcblk\d+|vd[a-z]+|xvd[a-z]+"


@dataclass
class World:
    """What a run of the service has left behind.

    :ivar server: still running.
    :ivar host: the database of the run on this machine's own files.
    :ivar board: the database of the run on a fixture board's.
    :ivar before: this machine's counters from before the run, by ``(file, name)``.
    """

    server: VictoriaMetrics
    host: Path
    board: Path
    before: dict[str, list[int]]


def interfaces() -> dict[str, list[int]]:
    """Read ``/proc/net/dev`` in the plainest way."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return {
        name.strip(): [int(field) for field in fields.split()]
        for name, _, fields in (line.rpartition(":") for line in lines)
    }


def run_service(
    folder: Path, server: VictoriaMetrics, device: str, **sections: dict[str, str]
) -> Path:
    """Run the service for some uploads at intervals of 1 s; returns its database."""
    folder.mkdir()
    metrics: list[dict[str, Any]] = [
        {"name": name, "interval": "1s"} for name in sorted(READ_HERE) if name != "disk.io"
    ]
    metrics.append({"name": "disk.io", "interval": "1s", "config": {"allowed_devices": DISKS}})
    config = write_config(
        folder,
        device={"id": device},
        remote={"enabled": True, "url": server.import_url, "upload_interval": "1s"},
        monitoring={"self_metrics_interval": "1s"},
        metrics=metrics,
        **sections,
    )
    with Twistd("bela", "--config", str(config), cwd=folder) as service:
        for _ in range(UPLOADS):
            service.expect_event("upload.completed")
        assert service.stop() == 0
    return folder / "metrics.db"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run the service twice against one server: on this machine, and on a board's files."""
    folder = tmp_path_factory.mktemp("victoria")
    with VictoriaMetrics(folder / "data") as server:
        before = interfaces()
        host = run_service(folder / "host", server, HOST_DEVICE)
        board = run_service(
            folder / "board",
            server,
            BOARD_DEVICE,
            paths={"procfs": str(BOARD / "proc"), "sysfs": str(BOARD / "sys")},
        )
        yield World(server, host, board, before)


@pytest.mark.parametrize("device", [HOST_DEVICE, BOARD_DEVICE])
def test_the_server_has_exactly_what_was_uploaded(world: World, device: str) -> None:
    """Every uploaded sample is there once, to the millisecond; and nothing else."""
    database = world.host if device == HOST_DEVICE else world.board
    wanted = expected(database)
    assert wanted
    assert_same(world.server.export(device), wanted)


def test_most_is_uploaded_and_nothing_rejected(world: World) -> None:
    """What is still pending was collected after the last upload began."""
    assert rows(world.host, "uploaded = 2") == []
    uploaded, pending = rows(world.host, "uploaded = 1"), rows(world.host, "uploaded = 0")
    assert len(uploaded) > len(pending)
    if pending:
        assert pending[0][3] >= uploaded[-1][3]


def test_intervals_are_kept(world: World) -> None:
    """A series that is collected each second has no gap of two."""
    points = [row[3] for row in rows(world.host, "metric_name = 'system.load_1m'")]
    steps = [later - earlier for earlier, later in pairwise(points)]
    assert len(steps) >= UPLOADS - 1
    assert max(steps) < 2000


def test_this_machine_gives_its_part_of_the_catalogue(world: World) -> None:
    """Every metric of the catalogue is there but for hardware that this machine lacks."""
    found = {dict(key)["__name__"] for key in world.server.export(HOST_DEVICE)}
    expected = {m.prometheus_name for m in HOST.values() if SOURCE_OF[m.name] in READ_HERE}
    missing = expected - found
    missing -= {"network_interfaces_dropped_total"}  # Only where there are too many.
    if not list(Path("/sys/class/thermal").glob("thermal_zone*")):
        missing -= {"cpu_temperature_celsius", "thermal_zone_temp_celsius"}
    if not list(Path("/sys/class/net").glob("*/device")):
        missing -= {"network_interface_info"}
    if not any(re.fullmatch(DISKS, path.name) for path in Path("/sys/block").iterdir()):
        missing = {name for name in missing if not name.startswith("disk_")}
    assert missing == set()


def test_the_board_gives_the_rest(world: World) -> None:
    """On the device's own files everything is there; a CPU's usage needs files that change."""
    found = {dict(key)["__name__"] for key in world.server.export(BOARD_DEVICE)}
    expected = {m.prometheus_name for m in HOST.values() if SOURCE_OF[m.name] in READ_HERE}
    missing = expected - found
    assert missing <= {"network_interfaces_dropped_total", "cpu_usage_percent"}


def test_tags_are_labels(world: World) -> None:
    """Each series has its device and the tags of the catalogue, and no others."""
    tags = {metric.prometheus_name: set(metric.tags) for metric in CATALOGUE.values()}
    for name, own in list(tags.items()):
        tags |= {f"{name}_bucket": {*own, "le"}, f"{name}_sum": own, f"{name}_count": own}
    for device in (HOST_DEVICE, BOARD_DEVICE):
        for key in world.server.export(device):
            named = dict(key)
            assert named.keys() - tags[named["__name__"]] == {"__name__", "device_id"}


def test_no_name_contains_a_dot(world: World) -> None:
    """Metric and label names are what PromQL takes."""
    for device in (HOST_DEVICE, BOARD_DEVICE):
        for key in world.server.export(device):
            for label, value in key:
                assert re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", label)
                assert label != "__name__" or re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", value)


def value(world: World, promql: str) -> float:
    """Run a query that has one answer."""
    (one,) = world.server.query(promql)
    return float(one["value"][1])


def test_values_are_plausible(world: World) -> None:
    """They agree with a direct read of ``/proc``."""
    device = f'device_id="{HOST_DEVICE}"'
    meminfo = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total = int(meminfo["MemTotal"].split()[0]) * 1024
    assert value(world, f"memory_total_bytes{{{device}}}") == total
    assert 0 < value(world, f"memory_used_bytes{{{device}}}") < total
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert uptime - 120 < value(world, f"system_uptime_seconds{{{device}}}") <= uptime
    assert 0 <= value(world, f'cpu_usage_percent{{{device},core="all"}}') <= 100
    cores = world.server.query(f'cpu_usage_percent{{{device},core!="all"}}')
    online = len(re.findall(r"^cpu\d", Path("/proc/stat").read_text(), re.MULTILINE))
    assert len(cores) == online
    after = interfaces()
    for series in world.server.query(f"network_rx_bytes_total{{{device}}}"):
        name = series["metric"]["interface"]
        assert world.before[name][0] <= float(series["value"][1]) <= after[name][0]


QUERIES = re.findall(r"```promql\n(.*?)\n```", (DOCS / "promql.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("promql", QUERIES)
def test_documented_queries_return_data(world: World, promql: str) -> None:
    """Each query of the documentation works on the real server."""
    assert world.server.query(promql)
