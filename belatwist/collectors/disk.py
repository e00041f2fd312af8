"""The bytes, operations and times of each disk.

Source: ``/proc/diskstats``, what each block device has done
(Documentation/admin-guide/iostats.rst).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta
from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import COUNTER, Machine, Metric, Options, Source
from belatwist.collectors.skipped import SkippedLines
from belatwist.config.values import Pattern
from belatwist.errors import AbsentError, BelaError, ParseError
from belatwist.log.events import Event
from belatwist.log.throttle import ItemFailureLog, kind_of
from belatwist.model import Sample, Series, sample
from belatwist.procfs import text
from belatwist.procfs.reader import MissingError, why_missing

DEFAULT_DEVICES = r"^(sd[a-z]+|nvme\d+(c\d+)?n\d+|mmcblk\d+)$"
"""Whole disks, without their partitions, boot areas, loop devices and compressed memory."""

_NVME_PATH = re.compile(r"(nvme\d+)c\d+(n\d+)", re.ASCII)
"""A path to a namespace with several, which the kernel shows as one disk: ``nvme0c1n1`` leads to
``nvme0n1`` (drivers/nvme/host/multipath.c)."""

BLOCK_SIZE_FAILED = Event(
    "disk.block_size_failed",
    LogLevel.warn,
    "Disk {device} is counted in sectors of {size} bytes: {error}",
    cure="Set sector_size of disk.io to kernel, which needs no block size.",
)
BLOCK_SIZE_READ = Event(
    "disk.block_size_read", LogLevel.debug, "The block size of disk {device} was read"
)
DISK_REMOVED = Event("disk.removed", LogLevel.debug, "Disk {device} was removed")

_NAMES = 256

METRICS = (
    Metric("disk.read_ops_total", COUNTER, "operations", "Reads completed.", tags=("device",)),
    Metric("disk.read_bytes_total", COUNTER, "bytes", "Bytes read.", tags=("device",)),
    Metric("disk.write_ops_total", COUNTER, "operations", "Writes completed.", tags=("device",)),
    Metric("disk.write_bytes_total", COUNTER, "bytes", "Bytes written.", tags=("device",)),
    Metric(
        "disk.io_time_ms_total", COUNTER, "milliseconds", "Time spent on I/O.", tags=("device",)
    ),
    Metric(
        "disk.weighted_io_time_ms_total",
        COUNTER,
        "milliseconds",
        "Time spent on I/O, times the number of requests in progress.",
        tags=("device",),
    ),
)
"""In the order in which :meth:`DiskIO.collect` yields them."""

SECTOR_SIZE = 512
"""Bytes of one sector of ``/proc/diskstats``, independent of the device's block size
(Documentation/block/stat.rst)."""

# Eleven statistics before Linux 4.18, then fifteen (discards), then seventeen since 5.5 (flushes);
# the kernel adds new ones at the end. The parser checks merges, the times of reads and writes and
# the requests in flight, and drops them. Drivers that count badly make the last of them negative.
_DEVICE = re.compile(
    (
        rb" *N +N +([^\s\0]{1,64}) +(N) +N +(N) +N +(N) +N +(N) +N +-?N +(N) +(N)"
        rb"(?: +N +N +N +N(?: +N +N(?: +N)*)?)?"
    ).replace(b"N", text.DIGITS)
)
_BLOCK_SIZE = re.compile(rb"([0-9]{1,7})\n")


class DiskCounters(NamedTuple):
    """The counters of one device since boot; times in milliseconds."""

    reads: int
    sectors_read: int
    writes: int
    sectors_written: int
    io_time_ms: int
    weighted_io_time_ms: int


class DiskIOOptions(Options, frozen=True, kw_only=True):
    """The options of ``disk.io``."""

    allowed_devices: Annotated[
        Pattern,
        Meta(description="Disks to report. Empty: whole SATA, USB, NVMe, eMMC and SD disks."),
    ] = ""
    sector_size: Annotated[
        Literal["kernel", "logical"],
        Meta(
            description="Bytes per sector in `/proc/diskstats`. `kernel`: 512, which the kernel "
            "uses for every disk. `logical`: the disk's block size, which reports eight times too "
            "much for a 4096-byte disk."
        ),
    ] = "kernel"


@dataclass(frozen=True, slots=True)
class Diskstats:
    """The block devices that were wanted.

    :ivar devices: device name to its counters.
    :ivar skipped: quotations of the lines that could not be used.
    """

    devices: Mapping[str, DiskCounters]
    skipped: tuple[str, ...] = ()


def parse(content: bytes, wanted: Callable[[str], bool] | None = None) -> Diskstats:
    """Parse ``/proc/diskstats``. An empty file is legal: there is no block device.

    Of a device listed twice the first line counts.

    :param wanted: decides by a device's name. The parser does not look at the lines of other
        devices, which may be many (partitions, loop devices). ``None`` wants all.
    :raises ParseError: when no line of a wanted device can be read, and there are some.
    """
    complete, unusable = text.lines(content)
    if wanted is not None:
        complete = [line for line in complete if _may_be(line, wanted)]
    devices = text.table(_DEVICE, complete, DiskCounters._make, unusable)
    if unusable and not devices:
        raise ParseError("/proc/diskstats", f"no line of a device in '{text.quote(content)}'")
    return Diskstats(devices, text.quote_lines(unusable))


def _may_be(line: bytes, wanted: Callable[[str], bool]) -> bool:
    """Return whether a line is of a wanted device; a line without a name may be of any device."""
    fields = line.split(None, 3)
    return len(fields) < 3 or wanted(text.name(fields[2]))


def parse_block_size(content: bytes, source: str) -> int:
    """Parse ``queue/logical_block_size`` (Documentation/ABI/stable/sysfs-block).

    :param source: the file's path, for the error.
    :return: bytes; a power of two, 512 or more.
    :raises ParseError: for anything else.
    """
    match = _BLOCK_SIZE.fullmatch(content)
    size = int(match[1]) if match else 0
    if size < SECTOR_SIZE or size.bit_count() != 1:
        raise ParseError(source, f"'{text.quote(content)}' is not a block size")
    return size


@dataclass(frozen=True, slots=True)
class _Device:
    series: tuple[Series, ...]
    sector_size: int


def working(devices: Mapping[str, DiskCounters]) -> Mapping[str, DiskCounters]:
    """Choose between NVMe disks with several paths and those paths.

    Since Linux 6.4 such a disk counts what its paths carry. Before, it counted nothing, and the
    paths did. Either way the same bytes are reported once.
    """
    heads = {name: m[1] + m[2] for name in devices if (m := _NVME_PATH.fullmatch(name))}
    idle = {head for head in heads.values() if not any(devices.get(head, ()))}
    return {
        name: counters
        for name, counters in devices.items()
        if (heads[name] in idle if name in heads else name not in idle)
    }


class DiskIO:
    """``disk.*_total`` of each device that is allowed.

    By default only what does the work is reported, and nothing that is stacked on it (``dm``,
    ``md``). Of an NVMe disk with several paths it is the disk where the kernel counts for it, and
    its paths otherwise.

    :param machine: the machine to measure.
    :param options: which devices to report, and how to count them.
    """

    _log = Logger()

    def __init__(self, machine: Machine, options: DiskIOOptions) -> None:
        self._machine = machine
        self._procfs = machine.procfs
        self._sysfs = machine.sysfs
        allowed = re.compile(options.allowed_devices or DEFAULT_DEVICES)
        # The names are nearly always those of the last reading.
        self._wants = lru_cache(_NAMES)(lambda name: allowed.fullmatch(name) is not None)
        self._default = not options.allowed_devices
        self._logical = options.sector_size == "logical"
        self._devices: dict[str, _Device] = {}
        self._skipped = SkippedLines("/proc/diskstats", self._log, machine.seconds)
        self._failures = ItemFailureLog(self._log, machine.seconds, "device")

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/diskstats``.

        :raises AbsentError: when there is no such file, as in some containers, or no allowed disk.
        :raises BelaError: when it cannot be read.
        """
        try:
            content = self._procfs.read("diskstats")
        except MissingError as error:
            raise why_missing(self._procfs.read, "stat", str(error)) from error
        reading = parse(content, self._wants)
        self._skipped.report(reading.skipped)
        # A disk that is gone is forgotten: another one may come back under its name.
        devices: dict[str, _Device] = {}
        samples: list[Sample] = []
        found = working(reading.devices) if self._default else reading.devices
        for name, counters in found.items():
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
        self._failures.removed(devices, DISK_REMOVED)
        if not devices:
            raise AbsentError("/proc/diskstats has no disk that allowed_devices allows")
        return samples

    def _register(self, name: str) -> _Device:
        series = tuple(self._machine.series(metric, device=name) for metric in METRICS)
        size = self._logical_block_size(name) if self._logical else SECTOR_SIZE
        return _Device(series, size)

    def _logical_block_size(self, name: str) -> int:
        # In sysfs a slash within a name (cciss/c0d0) is written as an exclamation mark.
        path = f"block/{name.replace('/', '!')}/queue/logical_block_size"
        try:
            size = parse_block_size(self._sysfs.read(path), self._sysfs.locate(path))
        except BelaError as error:
            self._failures.failed(
                name, BLOCK_SIZE_FAILED, kind_of(error), size=SECTOR_SIZE, error=str(error)
            )
            return SECTOR_SIZE
        self._failures.recovered(name, BLOCK_SIZE_READ)
        return size


SOURCE = Source("disk.io", 30.0, DiskIO, METRICS, options=DiskIOOptions)
