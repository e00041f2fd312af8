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
from belatwist.cli.reactor import ReactorThread, load_reactor
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


def machine(loaded: config.Config) -> Machine:
    """Make the machine that collectors use."""
    return Machine.of(
        loaded.device.id,
        procfs=Reader(loaded.paths.procfs),
        sysfs=Reader(loaded.paths.sysfs),
        seconds=time.monotonic,
        load_reactor=load_reactor,
        ca_file=loaded.remote.tls_ca_file,
    )


def enabled_sources(loaded: config.Config) -> list[EnabledSource]:
    """Make the collectors that a configuration enables."""
    return registry.build(loaded.metrics, machine(loaded))


def collect(
    sources: Sequence[EnabledSource],
    wall_ms: WallClock,
    wait: Callable[[float], object],
    deadline: float = DEADLINE,
) -> Collected:
    """Run collectors, and run those that yield nothing a second time.

    The reactor is loaded only where one of them needs it.

    :param wait: waits for so many seconds.
    :param deadline: seconds that all of them have together, each time.
    """
    if not any(one.asynchronous or one.pushed for one in sources):
        return _Collection(sources, wall_ms, deadline, _call).run(wait)
    with ReactorThread(deadline) as reactor:
        return _Collection(sources, wall_ms, deadline, reactor.call).run(wait)


def _call(function: Callable[[], Any]) -> Any:
    return function()


class _Collection:
    """Runs collectors.

    :param on_reactor: calls a function on the reactor, where some of the collectors need it.
    """

    def __init__(
        self,
        sources: Sequence[EnabledSource],
        wall_ms: WallClock,
        deadline: float,
        on_reactor: Callable[[Callable[[], Any]], Any],
    ) -> None:
        self._sources = sources
        self._wall_ms = wall_ms
        self._deadline = deadline
        self._on_reactor = on_reactor

    def run(self, wait: Callable[[float], object]) -> Collected:
        """Start the services, collect, collect again from silent sources, and stop the services."""
        pushed = [one for one in self._sources if one.pushed]
        results = _failed(self._serve("startService", pushed))
        ready = [one for one in self._sources if one.source.name not in results]
        results |= self._collect(ready)
        silent = [one for one in ready if _is_empty(results[one.source.name])]
        if silent:
            wait(PAUSE)
            results |= self._collect(silent)
        stops = _failed(self._serve("stopService", [one for one in pushed if one in ready]))
        collected = Collected()
        for one in self._sources:
            name = one.source.name
            collected.add(name, results[name])
            if name in stops:
                collected.failures.setdefault(name, f"its service did not stop: {stops[name]}")
            if left_out := getattr(one.collector, "left_out", ()):
                collected.left_out[name] = first_of(left_out, _MAX_LEFT_OUT)
        return collected

    def _serve(self, method: str, sources: Sequence[EnabledSource]) -> dict[str, Any]:
        """Call a method of collectors that are services."""
        return self._side_by_side(
            {
                one.source.name: partial(self._on_reactor, getattr(one.collector, method))
                for one in sources
            }
        )

    def _collect(self, sources: Sequence[EnabledSource]) -> dict[str, Any]:
        """Return the samples of each, or why there are none, by the sources' names."""
        now_ms = self._wall_ms()
        calls: dict[str, Callable[[], Any]] = {
            one.source.name: partial(one.collector.collect, now_ms) for one in sources
        }
        for one in sources:
            if one.asynchronous:
                calls[one.source.name] = partial(self._on_reactor, calls[one.source.name])
        return self._side_by_side(calls)

    def _side_by_side(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        results = run_all(list(calls.values()), self._deadline)
        return dict(zip(calls, results, strict=True))


def _failed(results: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result for name, result in results.items() if isinstance(result, Exception)}


def _is_empty(result: object) -> bool:
    return isinstance(result, Sequence) and not result


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
