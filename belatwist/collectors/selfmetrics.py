"""The agent's own metrics as samples, like any others."""

import math
import os
import time
from pathlib import Path

from belatwist.metrics.agent import SELF
from belatwist.metrics.entry import MetricType
from belatwist.metrics.telemetry import Labels, Telemetry
from belatwist.model import Sample, Series, sample

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_HISTOGRAM = ("_bucket", "_sum", "_count")

_STORED = {
    f"{entry.prometheus_name}{suffix}": f"{stored}{suffix}"
    for stored, entry in SELF.items()
    for suffix in (_HISTOGRAM if entry.type is MetricType.HISTOGRAM else ("",))
}


class SelfMetrics:
    """All metrics of the telemetry, and the memory and CPU time of this process.

    :param device_id: the device that measures.
    """

    name = "self.metrics"

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
