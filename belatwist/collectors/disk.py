"""What each disk has read and written."""

import re
from dataclasses import dataclass
from functools import lru_cache

from twisted.logger import Logger

from belatwist.collectors.skipped import SkippedLines
from belatwist.errors import BelaError
from belatwist.model import Sample, Series, sample
from belatwist.procfs import diskstats
from belatwist.procfs.reader import MissingError, Reader

DEFAULT_DEVICES = r"^(sd[a-z]+|nvme\d+n\d+|mmcblk\d+)$"
"""Whole disks, without their partitions, boot areas, loop devices and compressed memory."""

_NAMES = 256

_METRICS = (
    "disk.read_ops_total",
    "disk.read_bytes_total",
    "disk.write_ops_total",
    "disk.write_bytes_total",
    "disk.io_time_ms_total",
    "disk.weighted_io_time_ms_total",
)


@dataclass(frozen=True, slots=True)
class _Device:
    series: tuple[Series, ...]
    sector_size: int


class DiskIO:
    """``disk.*_total`` of each device that is allowed.

    :param device_id: the device that measures.
    :param procfs: the reader of ``/proc``.
    :param sysfs: the reader of ``/sys``.
    :param allowed_devices: a regular expression that matches whole device names; empty means
        :data:`DEFAULT_DEVICES`.
    :param sector_size: ``kernel``, the 512 bytes that ``/proc/diskstats`` counts in, or
        ``logical``, the device's logical block size, which over-reports any other than 512.
    """

    name = "disk.io"
    _log = Logger()

    def __init__(
        self,
        device_id: str,
        procfs: Reader,
        sysfs: Reader,
        *,
        allowed_devices: str = "",
        sector_size: str = "kernel",
    ) -> None:
        self._device_id = device_id
        self._procfs = procfs
        self._sysfs = sysfs
        allowed = re.compile(allowed_devices or DEFAULT_DEVICES)
        # The names are nearly always those of the last reading.
        self._wants = lru_cache(_NAMES)(lambda name: allowed.fullmatch(name) is not None)
        self._logical = sector_size == "logical"
        self._devices: dict[str, _Device] = {}
        self._skipped = SkippedLines(self._log)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/diskstats``; where it does not exist (a container) there is nothing to say.

        :raises BelaError: when it cannot be read.
        """
        try:
            content = self._procfs.read("diskstats")
        except MissingError:
            return []
        reading = diskstats.parse(content, self._wants)
        self._skipped.report(reading.skipped)
        # What went away is forgotten: another disk may come back under its name.
        devices: dict[str, _Device] = {}
        samples: list[Sample] = []
        for name, counters in reading.devices.items():
            device = devices[name] = self._devices.get(name) or self._register(name)
            values = (
                counters.reads,
                counters.sectors_read * device.sector_size,
                counters.writes,
                counters.sectors_written * device.sector_size,
                counters.io_time_ms,
                counters.weighted_io_time_ms,
            )
            samples.extend(
                sample(series, now_ms, value)
                for series, value in zip(device.series, values, strict=True)
            )
        self._devices = devices
        return samples

    def _register(self, name: str) -> _Device:
        tags = {"device": name}
        series = tuple(Series.of(metric, self._device_id, tags) for metric in _METRICS)
        size = self._logical_block_size(name) if self._logical else diskstats.SECTOR_SIZE
        return _Device(series, size)

    def _logical_block_size(self, name: str) -> int:
        # In sysfs a slash within a name (cciss/c0d0) is written as an exclamation mark.
        path = f"block/{name.replace('/', '!')}/queue/logical_block_size"
        try:
            return diskstats.parse_block_size(self._sysfs.read(path), self._sysfs.locate(path))
        except BelaError as error:
            self._log.warn(
                "{device} is counted in sectors of {size} bytes: {error}",
                device=name,
                size=diskstats.SECTOR_SIZE,
                error=error,
            )
            return diskstats.SECTOR_SIZE
