"""The entries of the catalogue of metrics."""

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
    """A single sentence."""
    collector: str
    """The configuration's name of the collector that yields it; :data:`AGENT` for a metric of the
    agent itself."""


AGENT = "always on"
"""The collector of the agent's own metrics in the catalogue. It cannot be switched off."""


def group(
    collector: str, type_: MetricType, tags: tuple[str, ...], *rows: tuple[str, str, str, str]
) -> dict[str, Entry]:
    """Make the entries of metrics that share their collector, type and tags.

    :param rows: stored name, Prometheus name, unit, help.
    """
    return {
        stored: Entry(prometheus_name, tags, type_, unit, help_, collector)
        for stored, prometheus_name, unit, help_ in rows
    }
