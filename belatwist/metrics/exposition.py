"""The metrics as Prometheus text, for scrapers.

Format: Prometheus documentation, "Exposition formats", text-based format 0.0.4.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from belatwist.metrics import names
from belatwist.metrics.metric import Metric, MetricType
from belatwist.model import REAL, Sample, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Host(Collector):
    """Samples of the machine, under the names with which they are uploaded."""

    def __init__(self, samples: Iterable[Sample], catalogue: Mapping[str, Metric]) -> None:
        self._samples = samples
        self._catalogue = catalogue

    def collect(self) -> Iterable[Family]:
        """Return the metrics of the catalogue that have a value, in its order."""
        families: dict[str, Family] = {}
        for series, value in self._last():
            family = families.get(series.name)
            if family is None:
                entry = self._catalogue[series.name]
                name = entry.prometheus_name
                if entry.type is MetricType.COUNTER:
                    # The library appends a counter's suffix itself.
                    name = name.removesuffix("_total")
                family = families[series.name] = Family(name, entry.help, entry.type)
            labels = names.labels("", series.tags)
            del labels["device_id"]
            family.add_sample(self._catalogue[series.name].prometheus_name, labels, value)
        return [families[stored] for stored in self._catalogue if stored in families]

    def _last(self) -> Iterator[tuple[Series, float]]:
        """Give each series' last value, once: a scraper refuses a text that repeats a series."""
        last = {one.series: one.value for one in self._samples}
        for series, value in last.items():
            if series.value_type == REAL and series.name in self._catalogue:
                yield series, float(value)


def exposition(
    registry: CollectorRegistry, samples: Iterable[Sample], catalogue: Mapping[str, Metric]
) -> bytes:
    """Write the machine's metrics, then the agent's own.

    Labels are the tags alone, because a scraper knows the device. There are no timestamps, so that
    the scraper's clock counts.

    :param registry: the agent's own metrics.
    :param samples: the last samples of each collector.
    :param catalogue: the metrics of the machine, by stored name. Others are left out.
    """
    return generate_latest(_Host(samples, catalogue)) + generate_latest(registry)
