"""``bela once``: it runs every collector once or twice, without the agent."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from belatwist import config
from belatwist.cli import output
from belatwist.cli.reactor import load_reactor
from belatwist.clock.sources import WallClock
from belatwist.collectors import registry
from belatwist.collectors.contract import EnabledSource, Machine
from belatwist.collectors.registry import CATALOGUE, HOST
from belatwist.errors import AbsentError, HiddenError
from belatwist.metrics.exposition import exposition
from belatwist.model import Sample
from belatwist.procfs.reader import Reader
from belatwist.runtime.threads import run_all
from belatwist.text import first_of

DEADLINE = 5.0
"""Seconds after which a collector counts as stuck."""

PAUSE = 1.0
"""Seconds between two readings that are compared."""

_MAX_LEFT_OUT = 30


class Collected:
    """The samples of all collectors, and why some have none.

    :ivar samples: in the order of the configuration.
    :ivar failures: why collectors failed or may not look, by their names.
    :ivar absent: what this machine does not have, by the names of its collectors.
    :ivar left_out: items that a collector does not report, by the names of such collectors.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.failures: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self.left_out: dict[str, Sequence[str]] = {}

    def add(self, name: str, result: Sequence[Sample] | Exception) -> None:
        """Add the result of a collector."""
        if isinstance(result, AbsentError):
            self.absent[name] = str(result)
        elif isinstance(result, HiddenError):
            self.failures[name] = f"its source is hidden: {result}; {result.cure}"
        elif isinstance(result, Exception):
            self.failures[name] = str(result) or type(result).__name__
        else:
            self.samples += result

    def notes(self) -> list[str]:
        """Return lines about what the samples do not show and what is no fault."""
        return [
            *(f"{name}: absent: {why}" for name, why in self.absent.items()),
            *(f"{name}: left out: {', '.join(items)}" for name, items in self.left_out.items()),
        ]


def enabled_sources(loaded: config.Config) -> list[EnabledSource]:
    """Make the collectors that a configuration enables."""
    machine = Machine.of(
        loaded.device.id,
        procfs=Reader(loaded.paths.procfs),
        sysfs=Reader(loaded.paths.sysfs),
        seconds=time.monotonic,
        load_reactor=load_reactor,
        ca_file=loaded.remote.tls_ca_file,
    )
    return registry.build(loaded.metrics, machine)


def collect(
    sources: Sequence[EnabledSource],
    wall_ms: WallClock,
    wait: Callable[[float], object],
    deadline: float = DEADLINE,
) -> Collected:
    """Run collectors, and run those that yield nothing a second time.

    :param wait: waits for so many seconds.
    :param deadline: seconds that all of them have together, each time.
    """
    results = _run(sources, wall_ms(), deadline)
    silent = [one for one in sources if results[one.source.name] == []]
    if silent:
        wait(PAUSE)
        results.update(_run(silent, wall_ms(), deadline))
    collected = Collected()
    for name, result in results.items():
        collected.add(name, result)
    for one in sources:
        if left_out := getattr(one.collector, "left_out", ()):
            collected.left_out[one.source.name] = first_of(left_out, _MAX_LEFT_OUT)
    return collected


def _run(
    sources: Sequence[EnabledSource], now_ms: int, deadline: float
) -> dict[str, Sequence[Sample] | Exception]:
    """Run collectors side by side.

    :return: the samples of each, or why there are none, by the sources' names.
    """
    collects: list[Callable[[], Any]] = [partial(one.collector.collect, now_ms) for one in sources]
    results = run_all(collects, deadline)
    return {one.source.name: result for one, result in zip(sources, results, strict=True)}


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show the warnings of collectors on stderr meanwhile."""

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_level", LogLevel.info) >= LogLevel.warn:
            output.notify(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)


def as_table(samples: Sequence[Sample]) -> list[str]:
    """Write samples as aligned lines, below a line of headings."""
    rows = [("METRIC", "TAGS", "VALUE", "UNIT")]
    for one in samples:
        entry = CATALOGUE.get(one.series.name)
        unit = entry.unit if entry else ""
        if unit == "bytes":
            unit = f"bytes ({output.size(float(one.value))})"
        elif unit == "seconds":
            unit = f"seconds ({output.span(float(one.value))})"
        value = output.number(one.value)
        rows.append((one.series.name, output.tags(one.series.tags), value, unit))
    return output.table(rows, right=(2,))


def as_json(samples: Sequence[Sample]) -> list[str]:
    """Write samples as a JSON array, a line for each sample."""
    lines = [json.dumps(_record(one)) for one in samples]
    return ["[", *(f"{line}," for line in lines[:-1]), *lines[-1:], "]"]


def _record(one: Sample) -> Mapping[str, object]:
    entry = CATALOGUE.get(one.series.name)
    return {
        "time": output.utc(one.timestamp_ms),
        "timestamp_ms": one.timestamp_ms,
        "metric": one.series.name,
        "tags": dict(one.series.tags),
        "value": one.value,
        "unit": entry.unit if entry else None,
        "device": one.series.device_id,
    }


def as_prometheus(samples: Sequence[Sample]) -> list[str]:
    """Write samples in the format of the agent's ``/metrics``."""
    return exposition(CollectorRegistry(), samples, HOST).decode().splitlines()


FORMATS: Mapping[str, Callable[[Sequence[Sample]], list[str]]] = {
    "table": as_table,
    "json": as_json,
    "prometheus": as_prometheus,
}
