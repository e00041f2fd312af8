"""What a metric is: how it is stored, how it is uploaded, and what it says."""

import re
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from belatwist.metrics.names import OWN_LABELS, metric_name
from belatwist.model import DEFAULT_PRIORITY, PRIORITIES, Series

_STORED = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", re.ASCII)
_TAG = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class MetricType(StrEnum):
    """The kinds of metric, as Prometheus names them.

    A histogram is stored as counters: ``_bucket`` (with the tag ``le``), ``_sum`` and ``_count``
    are appended to its name.
    """

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


GAUGE, COUNTER, HISTOGRAM = MetricType

HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")
"""What is appended to a histogram's name."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: how it is stored, how it is uploaded, and what it says.

    :ivar name: the stored, dotted name (``cpu.usage_percent``).
    :ivar unit: one word, in the plural.
    :ivar help: one sentence.
    :ivar tags: the keys of its series' tags.
    :ivar priority: 0 says why the stream fails now, 1 explains it afterwards, 2 is about the
        machine, 3 is an inventory or about the agent itself.
    :raises ValueError: when it cannot be stored or uploaded under that name.
    """

    name: str
    type: MetricType
    unit: str
    help: str
    _: KW_ONLY
    tags: tuple[str, ...] = ()
    priority: int = DEFAULT_PRIORITY

    def __post_init__(self) -> None:
        """Refuse what would surprise a reader of the metric."""
        wrong = [
            f"the tag {tag!r}" for tag in self.tags if not _TAG.fullmatch(tag) or tag in OWN_LABELS
        ]
        if not _STORED.fullmatch(self.name):
            wrong.append("a name that is not like cpu.usage_percent")
        if self.name.endswith("_total") != (self.type is MetricType.COUNTER):
            wrong.append("a counter ends in _total, and nothing else does")
        if not self.help.endswith("."):
            wrong.append("a help that is no sentence")
        if self.priority not in PRIORITIES:
            wrong.append(f"the priority {self.priority}")
        if wrong:
            raise ValueError(f"metric {self.name!r}: {'; '.join(wrong)}")

    @property
    def prometheus_name(self) -> str:
        """The name that PromQL sees."""
        return metric_name(self.name)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """The names of its series: a histogram has three."""
        if self.type is MetricType.HISTOGRAM:
            return tuple(f"{self.name}{suffix}" for suffix in HISTOGRAM_SUFFIXES)
        return (self.name,)

    def series(self, device_id: str, **tags: str) -> Series:
        """Return its series on a device.

        :param tags: a value for each of its tags; an empty one counts as no tag.
        :raises ValueError: when they are not its tags.
        """
        if set(tags) != set(self.tags):
            raise ValueError(f"{self.name} has the tags {self.tags}, not {tuple(tags)}")
        return Series.of(self.name, device_id, tags, priority=self.priority)
