"""The agent's own counters and times, in one registry.

The objects are prometheus-client's, their names and meanings the catalogue's. So one place
describes a metric, for the samples that are stored and for the text that is scraped.
"""

from collections.abc import Callable, Iterable, Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from belatwist.metrics.agent import SELF

# Each counter would otherwise have a second series with the time at which it was made.
prometheus_client.disable_created_metrics()

Labels = tuple[tuple[str, str], ...]
"""Label names and values, as the metric orders them."""

_COLLECTION_SECONDS = (0.01, 0.1, 1.0)
_UPLOAD_SECONDS = (0.5, 2.0, 10.0)
_STORAGE_SECONDS = (0.01, 0.1, 1.0)


class _Watched(Collector):
    """A gauge that is read at each request, and absent while it has no value."""

    def __init__(self, stored: str, read: Callable[[], float | None]) -> None:
        self._entry = SELF[stored]
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self._entry.prometheus_name, self._entry.help)]

    def collect(self) -> Iterator[Metric]:
        value = self._read()
        if value is not None:
            yield GaugeMetricFamily(self._entry.prometheus_name, self._entry.help, value=value)


class Telemetry:
    """The agent's own metrics; an instance belongs to one agent. Safe to use from any thread.

    Few buckets, because each is a series of its own: a few per cent of what is stored and sent.

    :ivar registry: holds all of them.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics_collected = self._counter("collector.metrics_collected_total")
        self.metrics_failed = self._counter("collector.metrics_failed_total")
        self.collection_duration = self._histogram(
            "collector.collection_duration_seconds", _COLLECTION_SECONDS
        )
        self.metrics_uploaded = self._counter("uploader.metrics_uploaded_total")
        self.upload_failures = self._counter("uploader.upload_failures_total")
        self.partial_success = self._counter("uploader.partial_success_total")
        self.metrics_rejected = self._counter("uploader.metrics_rejected_total")
        self.upload_duration = self._histogram("uploader.upload_duration_seconds", _UPLOAD_SECONDS)
        self.metrics_pruned = self._counter("storage.metrics_pruned_total")
        self.metrics_dropped = self._counter("storage.metrics_dropped_total")
        self.metrics_refused = self._counter("storage.metrics_refused_total")
        self.write_failures = self._counter("storage.write_failures_total")
        self.query_duration = self._histogram("storage.query_duration_seconds", _STORAGE_SECONDS)
        self.write_duration = self._histogram("storage.write_duration_seconds", _STORAGE_SECONDS)
        self.clock_steps = self._counter("time.clock_steps_total")

    def watch(self, stored: str, read: Callable[[], float | None]) -> None:
        """Read a gauge of the catalogue with a function, at each request.

        :param stored: its stored name.
        :param read: returns its value, ``None`` while it has none; called from any thread.
        """
        self.registry.register(_Watched(stored, read))

    def values(self) -> Iterator[tuple[str, Labels, float]]:
        """Yield the Prometheus name, the labels and the value of each metric that has a value."""
        for family in self.registry.collect():
            for one in family.samples:
                yield one.name, tuple(one.labels.items()), one.value

    def _counter(self, stored: str) -> Counter:
        entry = SELF[stored]
        return Counter(entry.prometheus_name, entry.help, entry.tags, registry=self.registry)

    def _histogram(self, stored: str, buckets: tuple[float, ...]) -> Histogram:
        entry = SELF[stored]
        return Histogram(
            entry.prometheus_name, entry.help, entry.tags, buckets=buckets, registry=self.registry
        )
