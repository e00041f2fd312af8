"""The metrics as Prometheus text, for scrapers.

Format: Prometheus documentation, "Exposition formats", text-based format 0.0.4.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from belatwist.metrics import names
from belatwist.metrics.catalogue import HOST
from belatwist.metrics.entry import MetricType
from belatwist.model import REAL, Sample, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Host(Collector):
    """Samples of the machine, under the names with which they are uploaded."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the catalogue that have a value, in its order."""
        families: dict[str, Metric] = {}
        for series, value in self._last():
            family = families.get(series.name)
            if family is None:
                entry = HOST[series.name]
                name = entry.prometheus_name
                if entry.type is MetricType.COUNTER:
                    # The library appends a counter's suffix itself.
                    name = name.removesuffix("_total")
                family = families[series.name] = Metric(name, entry.help, entry.type)
            labels = names.labels("", series.tags)
            del labels["device_id"]
            family.add_sample(HOST[series.name].prometheus_name, labels, value)
        return [families[stored] for stored in HOST if stored in families]

    def _last(self) -> Iterator[tuple[Series, float]]:
        """Give each series' last value, once: a scraper refuses a text that repeats a series."""
        last = {one.series: one.value for one in self._samples}
        for series, value in last.items():
            if series.value_type == REAL and series.name in HOST:
                yield series, float(value)


def exposition(registry: CollectorRegistry, samples: Iterable[Sample]) -> bytes:
    """Write the machine's metrics, then the agent's own.

    Labels are the tags alone, because a scraper knows the device. There are no timestamps, so that
    the scraper's clock counts.

    :param registry: the agent's own metrics.
    :param samples: the last samples of each collector.
    """
    return generate_latest(_Host(samples)) + generate_latest(registry)
