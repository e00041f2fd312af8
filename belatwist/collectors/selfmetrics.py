"""The agent's own metrics as samples, like any others."""

import math
import os
import time
from pathlib import Path

from belatwist.collectors.contract import EnabledSource, Source
from belatwist.metrics.agent import SELF
from belatwist.metrics.names import metric_name
from belatwist.metrics.telemetry import Labels, Telemetry
from belatwist.model import Sample, Series, sample

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_STORED = {
    metric_name(stored): stored for metric in SELF.values() for stored in metric.stored_names
}


class SelfMetrics:
    """All metrics of the telemetry, and the memory and CPU time of this process.

    :param device_id: the device that measures.
    """

    def __init__(self, device_id: str, telemetry: Telemetry) -> None:
        self._device_id = device_id
        self._telemetry = telemetry
        self._series: dict[tuple[str, Labels], Series] = {}
        self._cpu_percent: float | None = None
        self._read_at = time.monotonic()
        self._cpu_seconds = time.process_time()
        telemetry.watch("collector.memory_usage_bytes", resident_bytes)
        telemetry.watch("collector.cpu_usage_percent", lambda: self._cpu_percent)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read all metrics that have a value by now."""
        self._read_cpu()
        return [
            sample(self._of(name, labels), now_ms, value)
            for name, labels, value in self._telemetry.values()
            if math.isfinite(value)
        ]

    def _read_cpu(self) -> None:
        now, used = time.monotonic(), time.process_time()
        passed = now - self._read_at
        if passed > 0:
            self._cpu_percent = round(100 * (used - self._cpu_seconds) / passed, 2)
        self._read_at, self._cpu_seconds = now, used

    def _of(self, name: str, labels: Labels) -> Series:
        series = self._series.get((name, labels))
        if series is None:
            series = Series.of(_STORED[name], self._device_id, dict(labels))
            self._series[name, labels] = series
        return series


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> float | None:
    """Return this process' resident memory (proc(5), ``statm``), ``None`` if it is unreadable."""
    try:
        return int(statm.read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def enabled(device_id: str, telemetry: Telemetry, every: float) -> EnabledSource:
    """Make the source of the agent's own metrics, which the configuration cannot switch off.

    :param every: seconds between two collections.
    """
    collector = SelfMetrics(device_id, telemetry)
    source = Source("self.metrics", every, lambda *_: collector, tuple(SELF.values()))
    return EnabledSource(source, collector, every)
