"""The names of the host metrics: how each is stored, how uploaded, and with which tags."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Kind(StrEnum):
    """The two kinds of metric that the collectors yield, as Prometheus names them."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Entry(NamedTuple):
    """What is known of one metric."""

    uploaded: str
    """The name that PromQL sees."""
    tags: tuple[str, ...]
    kind: Kind
    unit: str
    help: str
    """One sentence."""
    collector: str
    """The configuration's name of the collector that yields it."""


def _group(
    collector: str, kind: Kind, tags: tuple[str, ...], *rows: tuple[str, str, str, str]
) -> dict[str, Entry]:
    """Spell out the entries of one collector.

    :param rows: stored name, uploaded name, unit, help.
    """
    return {
        stored: Entry(uploaded, tags, kind, unit, help_, collector)
        for stored, uploaded, unit, help_ in rows
    }


CATALOGUE: Mapping[str, Entry] = MappingProxyType(
    _group(
        "cpu.usage",
        Kind.GAUGE,
        ("core",),
        (
            "cpu.usage_percent",
            "cpu_usage_percent",
            "percent",
            "Part of the time since the last reading in which a core, or all of them, was busy.",
        ),
    )
    | _group(
        "cpu.temperature",
        Kind.GAUGE,
        (),
        ("cpu.temperature", "cpu_temperature_celsius", "celsius", "Heat of the hottest zone."),
    )
    | _group(
        "cpu.temperature",
        Kind.GAUGE,
        ("zone",),
        ("thermal.zone_temp", "thermal_zone_temp_celsius", "celsius", "Heat of a thermal zone."),
    )
    | _group(
        "memory.usage",
        Kind.GAUGE,
        (),
        ("memory.used_bytes", "memory_used_bytes", "bytes", "Total less available memory."),
        (
            "memory.available_bytes",
            "memory_available_bytes",
            "bytes",
            "Memory that can be had without swapping.",
        ),
        ("memory.total_bytes", "memory_total_bytes", "bytes", "Memory that the kernel manages."),
        ("memory.swap_used_bytes", "memory_swap_used_bytes", "bytes", "Swap in use."),
        ("memory.swap_total_bytes", "memory_swap_total_bytes", "bytes", "Swap there is."),
    )
    | _group(
        "disk.io",
        Kind.COUNTER,
        ("device",),
        ("disk.read_ops_total", "disk_read_ops_total", "operations", "Reads completed."),
        ("disk.read_bytes_total", "disk_read_bytes_total", "bytes", "Bytes read."),
        ("disk.write_ops_total", "disk_write_ops_total", "operations", "Writes completed."),
        ("disk.write_bytes_total", "disk_write_bytes_total", "bytes", "Bytes written."),
        ("disk.io_time_ms_total", "disk_io_time_ms_total", "milliseconds", "Time spent on I/O."),
        (
            "disk.weighted_io_time_ms_total",
            "disk_weighted_io_time_ms_total",
            "milliseconds",
            "Time spent on I/O, times the number of requests in progress.",
        ),
    )
    | _group(
        "network.traffic",
        Kind.COUNTER,
        ("interface",),
        ("network.rx_bytes_total", "network_rx_bytes_total", "bytes", "Bytes received."),
        ("network.tx_bytes_total", "network_tx_bytes_total", "bytes", "Bytes sent."),
        ("network.rx_packets_total", "network_rx_packets_total", "packets", "Packets received."),
        ("network.tx_packets_total", "network_tx_packets_total", "packets", "Packets sent."),
        ("network.rx_errors_total", "network_rx_errors_total", "errors", "Errors on receiving."),
        ("network.tx_errors_total", "network_tx_errors_total", "errors", "Errors on sending."),
    )
    | _group(
        "network.traffic",
        Kind.COUNTER,
        (),
        (
            "network.interfaces_dropped_total",
            "network_interfaces_dropped_total",
            "interfaces",
            "Interfaces left out because of max_interfaces, counted at each collection.",
        ),
    )
    | _group(
        "system.load",
        Kind.GAUGE,
        (),
        ("system.load_1m", "system_load_1m", "tasks", "Load average of 1 minute."),
        ("system.load_5m", "system_load_5m", "tasks", "Load average of 5 minutes."),
        ("system.load_15m", "system_load_15m", "tasks", "Load average of 15 minutes."),
    )
    | _group(
        "system.uptime",
        Kind.GAUGE,
        (),
        ("system.uptime_seconds", "system_uptime_seconds", "seconds", "Time since boot."),
    )
    | _group(
        "srt.packet_loss",
        Kind.GAUGE,
        ("source",),
        (
            "srt.packet_loss_percent",
            "srt_packet_loss_percent",
            "percent",
            "Packets lost by an SRT stream; made up where source is mock.",
        ),
    )
)
"""Stored name to entry."""
