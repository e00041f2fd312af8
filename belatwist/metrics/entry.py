"""How the catalogue describes a metric."""

from enum import StrEnum
from typing import NamedTuple


class MetricType(StrEnum):
    """The types of metric, as Prometheus names them.

    The store has a histogram as counters: ``_bucket`` (with the tag ``le``), ``_sum`` and
    ``_count`` are appended to its name.
    """

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Entry(NamedTuple):
    """The description of one metric."""

    prometheus_name: str
    """The name that PromQL sees."""
    tags: tuple[str, ...]
    type: MetricType
    unit: str
    help: str
    """One sentence."""
    collector: str
    """The configuration's name of the collector that yields it; :data:`AGENT` for a metric of the
    agent itself."""


AGENT = "always on"
"""Stands for the collector of the agent's own metrics, which nobody can switch off."""


def group(
    collector: str, type_: MetricType, tags: tuple[str, ...], *rows: tuple[str, str, str, str]
) -> dict[str, Entry]:
    """Make the entries of one collector's metrics of one type and with the same tags.

    :param rows: stored name, Prometheus name, unit, help.
    """
    return {
        stored: Entry(prometheus_name, tags, type_, unit, help_, collector)
        for stored, prometheus_name, unit, help_ in rows
    }
