"""``bela once`` runs every collector without the agent."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from belatwist import config
from belatwist.cli.once import PAUSE, collect
from belatwist.collectors.contract import EnabledSource, Source
from belatwist.errors import AbsentError, HiddenError
from belatwist.model import Sample, Series, sample
from belatwist.procfs.reader import UNMOUNTED_CURE
from tests.cli.running import bela, process
from tests.process import write_config

BOARD = Path(__file__).parent.parent / "fixtures" / "orangepi5plus"
LOAD = Series.of("system.load_1m", "box")


class Fake:
    """A collector that does something else at each of its runs."""

    def __init__(self, *runs: "Callable[[], Sequence[Sample]]") -> None:
        self.runs = list(runs)

    def collect(self, now_ms: int) -> Sequence[Sample]:
        return self.runs.pop(0)()


def fake(name: str, *runs: "Callable[[], Sequence[Sample]]") -> EnabledSource:
    """Make a source of a collector that is told what to do."""
    collector = Fake(*runs)
    return EnabledSource(Source(f"test.{name}", 1.0, lambda *_: collector, ()), collector, 1.0)


def nothing() -> Sequence[Sample]:
    """Yield no sample."""
    return []


def something() -> Sequence[Sample]:
    """Yield a sample."""
    return [sample(LOAD, 1, 0.5)]


def broken() -> Sequence[Sample]:
    """Fail."""
    raise ValueError("the sensor is gone")


def test_a_collector_without_samples_runs_again() -> None:
    """It runs a second time after a pause, and the other collectors do not."""
    waits: list[float] = []
    first, second = fake("first", nothing, something), fake("second", something)
    collected = collect([first, second], lambda: 1, waits.append)
    assert collected.samples == [*something(), *something()]
    assert collected.failures == {}
    assert waits == [PAUSE]
    for one in (first, second):
        assert isinstance(one.collector, Fake)
        assert one.collector.runs == []


def test_no_second_run_without_need() -> None:
    """Where all have answered there is no second time; failing is an answer."""
    waits: list[float] = []
    collected = collect([fake("a", something), fake("b", broken)], lambda: 1, waits.append)
    assert collected.failures == {"test.b": "the sensor is gone"}
    assert collected.samples == something()
    assert waits == []


def test_no_samples_twice_is_no_failure() -> None:
    """There may be no such hardware."""
    collected = collect([fake("a", nothing, nothing)], lambda: 1, lambda _: None)
    assert (collected.samples, collected.failures) == ([], {})


def absent() -> Sequence[Sample]:
    """Say that the machine has no such thing."""
    raise AbsentError("there is no UPS")


def hidden() -> Sequence[Sample]:
    """Say that something keeps the collector from looking."""
    raise HiddenError("/dev/video0 is hidden by PrivateDevices=", "Install video.conf.")


def test_absent_is_no_failure() -> None:
    """It is noted, and the collector does not run again."""
    waits: list[float] = []
    collected = collect([fake("a", absent), fake("b", something)], lambda: 1, waits.append)
    assert (collected.samples, collected.failures) == (something(), {})
    assert collected.notes() == ["test.a: absent: there is no UPS"]
    assert waits == []


def test_absent_at_the_second_run() -> None:
    """The last word counts."""
    collected = collect([fake("a", nothing, absent)], lambda: 1, lambda _: None)
    assert collected.notes() == ["test.a: absent: there is no UPS"]


def test_hidden_is_a_failure_with_its_cure() -> None:
    """It must not read as absent."""
    collected = collect([fake("a", hidden)], lambda: 1, lambda _: None)
    assert collected.failures == {
        "test.a": "its source is hidden: /dev/video0 is hidden by PrivateDevices=;"
        " Install video.conf."
    }
    assert collected.notes() == []


def test_a_stuck_collector_is_abandoned() -> None:
    """A read that never ends is a failure, and the others are there."""
    never = threading.Event()

    def stuck() -> Sequence[Sample]:
        never.wait()
        return []

    both = [fake("stuck", stuck), fake("well", something)]
    collected = collect(both, lambda: 1, lambda _: None, deadline=1.0)
    never.set()
    assert collected.failures == {"test.stuck": "no answer within 1 s"}
    assert collected.samples == something()


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A configuration for the fixture board, without what needs a second reading."""
    names = ("cpu.temperature", "memory.usage", "disk.io", "network.traffic", "system.uptime")
    return write_config(
        tmp_path,
        paths={"procfs": str(BOARD / "proc"), "sysfs": str(BOARD / "sys")},
        metrics=[{"name": name} for name in names],
    )


def test_the_table(board: Path, tmp_path: Path) -> None:
    """Name, tags, value and unit, aligned under their names; nothing is stored."""
    done = bela("once", "--config", board)
    assert (done.exit_code, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["METRIC", "TAGS", "VALUE", "UNIT"]
    end = head.index("VALUE") + len("VALUE")
    assert all(line[end : end + 2] == "  " and line[end - 1].isdigit() for line in lines)
    (total,) = (line for line in lines if line.startswith("memory.total_bytes"))
    assert "bytes (" in total
    assert any("zone=" in line and line.endswith("celsius") for line in lines)
    assert list(tmp_path.iterdir()) == [board]


def test_json(board: Path) -> None:
    """An array of objects, one a line, with exact values."""
    done = bela("once", "--config", board, "--format", "json")
    found = json.loads(done.stdout)
    assert len(found) == len(done.stdout.splitlines()) - 2
    (uptime,) = (one for one in found if one["metric"] == "system.uptime_seconds")
    assert uptime["unit"] == "seconds"
    assert uptime["device"] == "test-device"
    assert uptime["tags"] == {}
    assert uptime["value"] == float((BOARD / "proc" / "uptime").read_text().split()[0])


def test_prometheus(board: Path) -> None:
    """The text that the agent's ``/metrics`` gives, which a parser of Prometheus' reads."""
    done = bela("once", "--config", board, "--format", "prometheus")
    families = {family.name: family for family in text_string_to_metric_families(done.stdout)}
    assert families["cpu_temperature_celsius"].type == "gauge"
    assert families["disk_read_bytes"].type == "counter"
    (total,) = families["memory_total_bytes"].samples
    assert total.labels == {}


def test_what_is_absent_or_left_out(tmp_path: Path) -> None:
    """The table ends with it, and the exit status is 0; the other formats are samples only."""
    (tmp_path / "class").mkdir()
    path = write_config(
        tmp_path,
        paths={"procfs": str(BOARD / "proc"), "sysfs": str(tmp_path)},
        metrics=[
            {"name": "cpu.temperature"},
            {"name": "network.traffic", "config": {"include_ifaces": [".*"], "max_interfaces": 1}},
        ],
    )
    done = bela("once", "--config", path)
    assert done.exit_code == 0
    table, _, notes = done.stdout.partition("\n\n")
    assert "network.rx_bytes_total" in table
    first, second = notes.splitlines()
    assert first == f"cpu.temperature: absent: {tmp_path}/class/thermal has no thermal zone"
    assert second.startswith("network.traffic: left out: ")
    assert json.loads(bela("once", "--config", path, "--format", "json").stdout)


def test_a_hidden_source(tmp_path: Path) -> None:
    """Stderr has what hides it and the cure, and the exit status is 1."""
    path = write_config(
        tmp_path,
        paths={"sysfs": str(tmp_path / "unmounted")},
        metrics=[{"name": "cpu.temperature"}],
    )
    done = bela("once", "--config", path)
    assert (done.exit_code, "absent" in done.stdout) == (1, False)
    assert done.stderr.startswith(
        f"bela: collector cpu.temperature: its source is hidden: {tmp_path}/unmounted/class: "
    )
    assert done.stderr.endswith(f"; {UNMOUNTED_CURE}\n")


def test_a_failing_collector(tmp_path: Path) -> None:
    """Stderr has its error, stdout the others' samples, and the exit status is 1."""
    (tmp_path / "uptime").write_text("5.00 1.00\n")
    (tmp_path / "loadavg").write_text("rubbish\n")
    path = write_config(
        tmp_path,
        paths={"procfs": str(tmp_path)},
        metrics=[{"name": "system.load"}, {"name": "system.uptime"}],
    )
    done = bela("once", "--config", path)
    assert done.exit_code == 1
    assert done.stderr.startswith("bela: collector system.load: ")
    assert "system.uptime_seconds" in done.stdout


def test_warnings_are_shown(tmp_path: Path) -> None:
    """Lines that it leaves out are no failure, but stderr shows them."""
    (tmp_path / "net").mkdir()
    lines = (BOARD / "proc" / "net" / "dev").read_text()
    (tmp_path / "net" / "dev").write_text(f"{lines}odd: x\n")
    path = write_config(
        tmp_path, paths={"procfs": str(tmp_path)}, metrics=[{"name": "network.traffic"}]
    )
    done = bela("once", "--config", path)
    assert done.exit_code == 0
    assert "left out" in done.stderr
    assert "interface=eth0" in done.stdout


def test_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the default file does not exist the defaults apply, with a note."""
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "none.yaml"))
    done = bela("once", "--format", "json")
    assert done.stderr.startswith(f"bela: {tmp_path}/none.yaml: no such file; using the defaults")
    names = {one["metric"] for one in json.loads(done.stdout)}
    assert {"cpu.usage_percent", "system.load_1m"} <= names
    assert "srt.packet_loss_percent" not in names


def test_a_configuration_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A misspelt name is a mistake."""
    done = bela("once", "--config", tmp_path / "none.yaml")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"bela: {tmp_path}/none.yaml: no such file; --config FILE names another\n"
    )


def test_a_token_that_is_not_ours_to_read_is_no_matter(tmp_path: Path) -> None:
    """Only the agent needs it, and an operator may not be allowed to read it."""
    path = write_config(
        tmp_path,
        remote={"auth_token_file": str(tmp_path / "none")},
        metrics=[{"name": "system.uptime"}],
    )
    assert bela("once", "--config", path).exit_code == 0


@pytest.mark.process
def test_it_does_without_the_reactor(tmp_path: Path) -> None:
    """A process that runs it through ends by itself, with what it should."""
    path = write_config(tmp_path, metrics=[{"name": "cpu.usage"}])
    done = process("once", "--config", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "core=all" in done.stdout
