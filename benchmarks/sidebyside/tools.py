"""The tools, as processes: this service, vmagent and the Prometheus agent with a node_exporter."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from benchmarks import harness
from benchmarks.agent import agent, config
from benchmarks.harness import FailedError, Memory, UnavailableError, stop
from benchmarks.server import free_port

Tool = Literal["belatwist", "vmagent", "Prometheus"]
Machine = Literal["this machine", "board model"]
Collectors = Literal["same", "kept", "default"]
"""The collectors of the node_exporter beside a tool. ``same``: those of our families, with all
their series. ``kept``: the same, with only the series that we have as well. ``default``: its
defaults.
"""

PROGRAMS: Mapping[Tool, str] = {"vmagent": "vmagent", "Prometheus": "prometheus"}
EXPORTER = "prometheus-node-exporter"
_PACKAGES = {"vmagent": "victoria-metrics"}

_SAME = (
    "--collector.disable-defaults",
    "--web.disable-exporter-metrics",
    "--collector.cpu",
    "--collector.meminfo",
    "--collector.diskstats",
    r"--collector.diskstats.device-include=^(sd[a-z]+|nvme\d+n\d+|mmcblk\d+|x?vd[a-z]+)$",
    "--collector.diskstats.device-exclude=",
    "--collector.netdev",
    "--no-collector.netdev.netlink",  # It would see this machine's interfaces, not the board's.
    "--collector.netdev.device-exclude="
    "^(lo|docker.*|veth.*|br-.*|wlan.*mon|virbr.*|l4tbr.*|dummy.*|ifb.*|sit.*)$",
    "--collector.loadavg",
    "--collector.thermal_zone",
    "--collector.stat",  # The boot time, which stands for the uptime.
)
_KEPT = (
    "node_cpu_seconds_total;idle",
    "node_memory_(MemAvailable|MemTotal|SwapFree|SwapTotal)_bytes;",
    "node_disk_(reads_completed|writes_completed|read_bytes|written_bytes|io_time_seconds"
    "|io_time_weighted_seconds)_total;",
    "node_network_(receive|transmit)_(bytes|packets|errs)_total;",
    "node_load(1|5|15);",
    "node_boot_time_seconds;",
    "node_thermal_zone_temp;",
)


@dataclass(frozen=True, slots=True)
class Case:
    """A tool with one kind of work.

    :ivar collectors: the collectors of the node_exporter; our service has one set.
    :ivar interval: seconds between ticks.
    """

    tool: Tool
    collectors: Collectors
    machine: Machine
    interval: float

    @property
    def column(self) -> tuple[Tool, Collectors]:
        """Its column in the table."""
        return self.tool, self.collectors


@dataclass(frozen=True, slots=True)
class Way:
    """How a tool sends.

    :ivar port: the port of the gate.
    :ivar device: the label ``device_id`` of everything sent.
    :ivar flush: seconds between two uploads; ``None`` for each tool's default.
    """

    port: int
    device: str
    flush: float | None


@dataclass(frozen=True, slots=True)
class Running:
    """A tool's processes.

    :ivar where: the directory of its files, including the logs.
    """

    pids: tuple[int, ...]
    where: Path

    def check(self) -> None:
        """Check that all processes still run.

        :raises FailedError: when one has ended.
        """
        for pid in self.pids:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                said = "\n".join(
                    log.read_text(errors="replace").strip()[-500:]
                    for log in sorted(self.where.glob("*.log"))
                )
                raise FailedError(f"a process in {self.where.name} has ended:\n{said}")

    def cpu(self) -> float:
        """Return the user and system CPU seconds of all processes."""
        return sum(map(harness.cpu_seconds, self.pids))

    def written(self) -> int:
        """Return the bytes that all processes wrote to storage."""
        return sum(map(harness.written_bytes, self.pids))

    def memory(self) -> Memory:
        """Return the memory of all processes."""
        each = [harness.memory(pid) for pid in self.pids]
        return Memory(sum(one.pss for one in each), sum(one.rss for one in each))


def require(tools: Sequence[Tool]) -> None:
    """Check that the programs are installed.

    :raises UnavailableError: when one is not installed.
    """
    needed = {PROGRAMS[tool] for tool in tools if tool in PROGRAMS}
    for program in sorted(needed | ({EXPORTER} if needed else set())):
        if shutil.which(program) is None:
            package = _PACKAGES.get(program, program)
            raise UnavailableError(f"{program} is not installed (Debian's package {package})")


@contextmanager
def running(case: Case, where: Path, way: Way, board: Path) -> Iterator[Running]:
    """Run a tool's processes until the block ends.

    :param where: a directory of its own, which is made.
    :param board: the directory with the board model's ``proc`` and ``sys``.
    """
    where.mkdir(parents=True)
    with ExitStack() as stack:
        if case.tool == "belatwist":
            yield Running((stack.enter_context(_belatwist(case, where, way, board)),), where)
            return
        exporter_port = free_port()
        command = _exporter(case, exporter_port, board)
        exporter = stack.enter_context(_process(command, where, "exporter"))
        make = _vmagent if case.tool == "vmagent" else _prometheus
        command = make(where, way, _scraping(case, exporter_port, way.device))
        yield Running((stack.enter_context(_process(command, where, "agent")), exporter), where)


@contextmanager
def _process(command: Sequence[str], where: Path, name: str) -> Iterator[int]:
    with (where / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=where, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield process.pid
    finally:
        stop(process)


@contextmanager
def _belatwist(case: Case, where: Path, way: Way, board: Path) -> Iterator[int]:
    path = config(
        where,
        interval=max(case.interval, 1.0),
        url=f"http://127.0.0.1:{way.port}/api/v1/import",
        upload_interval=30.0 if way.flush is None else way.flush,
        root=board if case.machine == "board model" else Path("/"),
        device=way.device,
    )
    tree = yaml.safe_load(path.read_text())
    # The others are not asked for metrics of their own either.
    tree["monitoring"]["self_metrics_interval"] = "24h"
    path.write_text(yaml.safe_dump(tree))
    # No file may ask for less than a second.
    faster = (
        "from belatwist.collectors import registry; build = registry.build; registry.build ="
        f" lambda *a, **k: [one._replace(every={case.interval}) for one in build(*a, **k)];"
    )
    with agent(where, path, setup=faster if case.interval < 1 else "") as made:
        yield made.pid


def _exporter(case: Case, port: int, board: Path) -> list[str]:
    command = [EXPORTER, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    if case.collectors != "default":
        command += _SAME
    if case.machine == "board model":
        command += [f"--path.procfs={board / 'proc'}", f"--path.sysfs={board / 'sys'}"]
    return command


def _scraping(case: Case, exporter_port: int, device: str) -> dict[str, Any]:
    job: dict[str, Any] = {
        "job_name": "node",
        "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}],
    }
    if case.collectors == "kept":
        job["metric_relabel_configs"] = [
            {
                "source_labels": ["__name__", "mode"],
                "regex": "|".join(_KEPT),
                "action": "keep",
            }
        ]
    interval = f"{round(case.interval * 1000)}ms"
    return {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "external_labels": {"device_id": device},
        },
        "scrape_configs": [job],
    }


def _vmagent(where: Path, way: Way, scraping: dict[str, Any]) -> list[str]:
    path = where / "scraping.yaml"
    path.write_text(yaml.safe_dump(scraping))
    command = [
        PROGRAMS["vmagent"],
        f"-promscrape.config={path}",
        f"-httpListenAddr=127.0.0.1:{free_port()}",
        f"-remoteWrite.url=http://127.0.0.1:{way.port}/api/v1/write",
        f"-remoteWrite.tmpDataPath={where / 'queue'}",
        "-loggerLevel=WARN",
    ]
    if way.flush is not None:
        # One queue: with several, each flush is as many smaller requests. Room for an interval: a
        # block that is full goes at once.
        command += [
            f"-remoteWrite.flushInterval={way.flush:g}s",
            "-remoteWrite.queues=1",
            "-remoteWrite.maxRowsPerBlock=100000",
        ]
    return command


def _prometheus(where: Path, way: Way, scraping: dict[str, Any]) -> list[str]:
    remote: dict[str, Any] = {"url": f"http://127.0.0.1:{way.port}/api/v1/write"}
    if way.flush is not None:
        # Room for all samples of an interval in one request, and no help texts: this server
        # throws them away.
        remote["queue_config"] = {
            "batch_send_deadline": f"{round(way.flush * 1000)}ms",
            "max_samples_per_send": 50_000,
            "capacity": 100_000,
            "max_shards": 1,
        }
        remote["metadata_config"] = {"send": False}
    path = where / "prometheus.yaml"
    path.write_text(yaml.safe_dump(scraping | {"remote_write": [remote]}))
    return [
        PROGRAMS["Prometheus"],
        "--enable-feature=agent",
        f"--config.file={path}",
        f"--storage.agent.path={where / 'data'}",
        f"--web.listen-address=127.0.0.1:{free_port()}",
        "--log.level=warn",
    ]
