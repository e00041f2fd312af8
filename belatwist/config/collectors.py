"""The collectors that a configuration may name, with their intervals and options."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from belatwist.config.section import Section
from belatwist.config.values import NamePattern, Pattern, Seconds


class DiskIOOptions(Section, frozen=True, kw_only=True):
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


class NetworkTrafficOptions(Section, frozen=True, kw_only=True):
    """The options of ``network.traffic``."""

    include_ifaces: Annotated[
        tuple[NamePattern, ...],
        Meta(
            max_length=64, description="Interfaces to report. Empty: all except the excluded ones."
        ),
    ] = ()
    exclude_ifaces: Annotated[
        tuple[NamePattern, ...] | None,
        Meta(
            max_length=64,
            description="Interfaces not to report. `null`: loopback, container, bridge, tunnel and "
            "monitor interfaces. A list replaces these.",
        ),
    ] = None
    max_interfaces: Annotated[
        int,
        Meta(ge=1, le=1000, description="Maximum number of interfaces; each has six series."),
    ] = 32


class NoOptions(Section, frozen=True, kw_only=True):
    """A collector without options of its own."""


class CollectorEntry(Section, frozen=True, kw_only=True):
    """An entry of ``metrics``. Its ``config`` has the type of the collector's options."""

    name: Annotated[
        str, Meta(description="Name of a collector, at most once; see the table of collectors.")
    ]
    interval: Annotated[
        Seconds, Meta(description="How often to collect. By default the collector's own interval.")
    ]
    enabled: Annotated[bool, Meta(description="Whether to run the collector.")] = True
    config: Annotated[
        DiskIOOptions | NetworkTrafficOptions | NoOptions,
        Meta(description="Options of the collector."),
    ] = NoOptions()


class KnownCollector(NamedTuple):
    """The defaults of a collector that a configuration may name."""

    interval: float
    """Seconds between two collections, unless the file has others."""
    options: type[DiskIOOptions | NetworkTrafficOptions | NoOptions] = NoOptions
    default: bool = True
    """Whether the collector runs when the file has no ``metrics``."""


COLLECTORS: Mapping[str, KnownCollector] = MappingProxyType(
    {
        "cpu.temperature": KnownCollector(30.0),
        "cpu.usage": KnownCollector(10.0),
        "memory.usage": KnownCollector(30.0),
        "disk.io": KnownCollector(30.0, DiskIOOptions),
        "network.traffic": KnownCollector(10.0, NetworkTrafficOptions),
        "system.load": KnownCollector(30.0),
        "system.uptime": KnownCollector(60.0),
        "srt.packet_loss": KnownCollector(5.0, default=False),  # made-up numbers, for development
    }
)
"""Every collector that a configuration may name."""

DEFAULT_METRICS = tuple(
    CollectorEntry(name=name, interval=known.interval, config=known.options())
    for name, known in COLLECTORS.items()
    if known.default
)
