"""The table of all collectors, and how a configuration picks from it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from belatwist.collectors import Collector
from belatwist.collectors.cpu import CpuUsage
from belatwist.collectors.disk import DiskIO
from belatwist.collectors.load import SystemLoad
from belatwist.collectors.memory import MemoryUsage
from belatwist.collectors.network import NetworkTraffic
from belatwist.collectors.srt import SrtPacketLoss
from belatwist.collectors.thermal import CpuTemperature
from belatwist.collectors.uptime import SystemUptime
from belatwist.config import CollectorEntry, DiskIOOptions, NetworkTrafficOptions
from belatwist.procfs.reader import Reader


@dataclass(frozen=True, slots=True)
class Sources:
    """What collectors are made of.

    :ivar device_id: the device that measures.
    :ivar procfs: the reader of ``/proc``.
    :ivar sysfs: the reader of ``/sys``.
    :ivar rng: where made-up numbers come from.
    """

    device_id: str
    procfs: Reader
    sysfs: Reader
    rng: random.Random


def _disk_io(metric: CollectorEntry, of: Sources) -> Collector:
    options = metric.config if isinstance(metric.config, DiskIOOptions) else DiskIOOptions()
    return DiskIO(
        of.device_id,
        of.procfs,
        of.sysfs,
        allowed_devices=options.allowed_devices,
        sector_size=options.sector_size,
    )


def _network_traffic(metric: CollectorEntry, of: Sources) -> Collector:
    options = metric.config
    if not isinstance(options, NetworkTrafficOptions):
        options = NetworkTrafficOptions()
    return NetworkTraffic(
        of.device_id,
        of.procfs,
        include=options.include_ifaces,
        exclude=options.exclude_ifaces,
        max_interfaces=options.max_interfaces,
    )


COLLECTORS: Mapping[str, Callable[[CollectorEntry, Sources], Collector]] = MappingProxyType(
    {
        "cpu.usage": lambda _, of: CpuUsage(of.device_id, of.procfs),
        "cpu.temperature": lambda _, of: CpuTemperature(of.device_id, of.sysfs),
        "memory.usage": lambda _, of: MemoryUsage(of.device_id, of.procfs),
        "disk.io": _disk_io,
        "network.traffic": _network_traffic,
        "system.load": lambda _, of: SystemLoad(of.device_id, of.procfs),
        "system.uptime": lambda _, of: SystemUptime(of.device_id, of.procfs),
        "srt.packet_loss": lambda _, of: SrtPacketLoss(of.device_id, of.rng),
    }
)
"""The configuration's name of each collector, and what makes it."""


def build(
    metrics: Sequence[CollectorEntry],
    *,
    device_id: str,
    procfs: Reader,
    sysfs: Reader,
    rng: random.Random,
) -> list[tuple[Collector, float]]:
    """Make the collectors that a configuration enables.

    :param metrics: validated entries; each name is in :data:`COLLECTORS`.
    :return: each collector with its interval in seconds.
    """
    sources = Sources(device_id, procfs, sysfs, rng)
    return [
        (COLLECTORS[metric.name](metric, sources), metric.interval)
        for metric in metrics
        if metric.enabled
    ]
