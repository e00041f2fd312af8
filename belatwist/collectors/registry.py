"""The registry: every source, and what the rest of the agent derives from them."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from belatwist.collectors import (
    cpu,
    disk,
    filesystem,
    load,
    memory,
    network,
    nut,
    srt,
    thermal,
    uptime,
)
from belatwist.collectors.contract import EnabledSource, Machine, Source
from belatwist.config import CollectorEntry
from belatwist.metrics.agent import SELF
from belatwist.metrics.metric import Metric


def by_name(sources: Iterable[Source]) -> Mapping[str, Source]:
    """Return sources by their names.

    :raises ValueError: when two of them claim one name, or one metric.
    """
    known = tuple(sources)
    metrics = [(metric, source.name) for source in known for metric in source.metrics]
    _refuse_twice("source", ((source.name, source.name) for source in known))
    _refuse_twice("metric", ((metric.name, owner) for metric, owner in metrics))
    _refuse_twice("uploaded name", ((metric.prometheus_name, owner) for metric, owner in metrics))
    return MappingProxyType({source.name: source for source in known})


def _refuse_twice(what: str, claims: Iterable[tuple[str, str]]) -> None:
    owners: dict[str, list[str]] = {}
    for name, owner in claims:
        owners.setdefault(name, []).append(owner)
    for name, found in owners.items():
        if len(found) > 1:
            raise ValueError(f"the {what} {name} is claimed by {' and by '.join(found)}")


SOURCES = by_name(
    (
        thermal.SOURCE,
        cpu.SOURCE,
        memory.SOURCE,
        disk.SOURCE,
        filesystem.SOURCE,
        network.SOURCE,
        load.SOURCE,
        uptime.SOURCE,
        nut.SOURCE,
        srt.SOURCE,
    )
)
"""Every source that a configuration may name, by its name. A new one is a line here."""

HOST: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for source in SOURCES.values() for metric in source.metrics}
)
"""What is measured of the machine, by its stored name."""

SOURCE_OF: Mapping[str, str] = MappingProxyType(
    {metric.name: source.name for source in SOURCES.values() for metric in source.metrics}
)
"""The name of the source that yields a metric, by its stored name."""

CATALOGUE: Mapping[str, Metric] = MappingProxyType({**HOST, **SELF})
"""Every metric, by its stored name."""


def build(
    entries: Sequence[CollectorEntry],
    machine: Machine,
    sources: Mapping[str, Source] = SOURCES,
) -> list[EnabledSource]:
    """Make the collectors that a configuration enables.

    :param entries: validated; each names one of the sources.
    :return: in the order of the entries.
    """
    return [
        EnabledSource(
            source := sources[entry.name], source.make(machine, entry.config), entry.interval
        )
        for entry in entries
        if entry.enabled
    ]
