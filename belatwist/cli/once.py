"""``bela once``: every collector a time or two, without the agent."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from belatwist import config
from belatwist.cli import output
from belatwist.clock.sources import WallClock
from belatwist.collectors import registry
from belatwist.collectors.contract import Collector, Machine
from belatwist.metrics.catalogue import CATALOGUE
from belatwist.metrics.exposition import exposition
from belatwist.model import Sample
from belatwist.procfs.reader import Reader

DEADLINE = 5.0
"""Seconds after which a collector counts as stuck."""

PAUSE = 1.0
"""Seconds between two readings that are compared."""


class Collected:
    """What the collectors have yielded.

    :ivar samples: in the order of the configuration.
    :ivar failures: the reasons of those that failed, by their names.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.failures: dict[str, str] = {}


def collectors(loaded: config.Config) -> list[Collector]:
    """Make the collectors that a configuration enables."""
    machine = Machine(
        device_id=loaded.device.id,
        procfs=Reader(loaded.paths.procfs),
        sysfs=Reader(loaded.paths.sysfs),
        rng=random.Random(),  # noqa: S311 - mock values
        seconds=time.monotonic,
    )
    return [collector for collector, _ in registry.build(loaded.metrics, machine)]


def collect(
    some: Sequence[Collector],
    wall_ms: WallClock,
    wait: Callable[[float], object],
    deadline: float = DEADLINE,
) -> Collected:
    """Run collectors, and those that yield nothing a second time.

    :param wait: waits for so many seconds.
    :param deadline: seconds that all of them have together.
    """
    results = _run(some, wall_ms(), deadline)
    silent = [one for one in some if results[one.name] == []]
    if silent:
        wait(PAUSE)
        results.update(_run(silent, wall_ms(), deadline))
    collected = Collected()
    for name, result in results.items():
        if isinstance(result, str):
            collected.failures[name] = result
        else:
            collected.samples += result
    return collected


def _run(
    some: Sequence[Collector], now_ms: int, deadline: float
) -> dict[str, Sequence[Sample] | str]:
    """Run collectors, each on a thread that can be given up: a dead sensor's read never ends.

    :return: samples, or why there are none, by the names.
    """
    silent = f"no answer within {deadline:g} s"
    results: dict[str, Sequence[Sample] | str] = {one.name: silent for one in some}

    def run(one: Collector) -> None:
        try:
            results[one.name] = one.collect(now_ms)
        except Exception as error:  # noqa: BLE001 - a collector may raise anything; it is told
            results[one.name] = str(error) or type(error).__name__

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in some]
    until = time.monotonic() + deadline
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    return dict(results)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show what collectors warn of meanwhile on stderr."""

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
    """Write samples as aligned lines, under a line of names."""
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
    """Write samples as one JSON array, a sample a line."""
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
    """Write samples as the agent's ``/metrics`` does."""
    return exposition(CollectorRegistry(), samples).decode().splitlines()


FORMATS: Mapping[str, Callable[[Sequence[Sample]], list[str]]] = {
    "table": as_table,
    "json": as_json,
    "prometheus": as_prometheus,
}
