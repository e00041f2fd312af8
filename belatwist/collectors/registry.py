"""The registry of all collectors, and how a configuration picks from it."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from belatwist.collectors.contract import Collector, Machine
from belatwist.collectors.cpu import CpuUsage
from belatwist.collectors.disk import DiskIO
from belatwist.collectors.load import SystemLoad
from belatwist.collectors.memory import MemoryUsage
from belatwist.collectors.network import NetworkTraffic
from belatwist.collectors.srt import SrtPacketLoss
from belatwist.collectors.thermal import CpuTemperature
from belatwist.collectors.uptime import SystemUptime
from belatwist.config import CollectorEntry, DiskIOOptions, NetworkTrafficOptions


def _disk_io(metric: CollectorEntry, machine: Machine) -> Collector:
    options = metric.config if isinstance(metric.config, DiskIOOptions) else DiskIOOptions()
    return DiskIO(
        machine,
        allowed_devices=options.allowed_devices,
        sector_size=options.sector_size,
    )


def _network_traffic(metric: CollectorEntry, machine: Machine) -> Collector:
    options = metric.config
    if not isinstance(options, NetworkTrafficOptions):
        options = NetworkTrafficOptions()
    return NetworkTraffic(
        machine,
        include=options.include_ifaces,
        exclude=options.exclude_ifaces,
        max_interfaces=options.max_interfaces,
    )


COLLECTORS: Mapping[str, Callable[[CollectorEntry, Machine], Collector]] = MappingProxyType(
    {
        "cpu.usage": lambda _, machine: CpuUsage(machine),
        "cpu.temperature": lambda _, machine: CpuTemperature(machine),
        "memory.usage": lambda _, machine: MemoryUsage(machine),
        "disk.io": _disk_io,
        "network.traffic": _network_traffic,
        "system.load": lambda _, machine: SystemLoad(machine),
        "system.uptime": lambda _, machine: SystemUptime(machine),
        "srt.packet_loss": lambda _, machine: SrtPacketLoss(machine),
    }
)
"""The configuration's name of each collector, and what makes it."""


def build(metrics: Sequence[CollectorEntry], machine: Machine) -> list[tuple[Collector, float]]:
    """Make the collectors that a configuration enables.

    :param metrics: validated entries; each name is in :data:`COLLECTORS`.
    :return: each collector with its interval in seconds.
    """
    return [
        (COLLECTORS[metric.name](metric, machine), metric.interval)
        for metric in metrics
        if metric.enabled
    ]
