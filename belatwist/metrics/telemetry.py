"""What the agent counts and times about itself, in one registry that is passed around.

The objects are prometheus-client's. Their names and meanings are the catalogue's, so that a metric
is described in one place, whether it is stored and uploaded as samples or scraped as text.
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
    """A gauge that is read when it is asked for, and absent while there is nothing to say."""

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
        self.write_failures = self._counter("storage.write_failures_total")
        self.query_duration = self._histogram("storage.query_duration_seconds", _STORAGE_SECONDS)
        self.write_duration = self._histogram("storage.write_duration_seconds", _STORAGE_SECONDS)
        self.clock_steps = self._counter("time.clock_steps_total")

    def watch(self, stored: str, read: Callable[[], float | None]) -> None:
        """Have a gauge of the catalogue read from somewhere, whenever it is asked for.

        :param stored: its stored name.
        :param read: gives its value, ``None`` while there is none; called from any thread.
        """
        self.registry.register(_Watched(stored, read))

    def values(self) -> Iterator[tuple[str, Labels, float]]:
        """Give the uploaded name, the labels and the value of everything that has one by now."""
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
