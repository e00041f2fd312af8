"""The catalogue of all metrics: how each is stored, how it is uploaded, and with which tags."""

from collections.abc import Mapping
from types import MappingProxyType

from belatwist.metrics.agent import SELF
from belatwist.metrics.entry import Entry, MetricType, group

HOST: Mapping[str, Entry] = MappingProxyType(
    group(
        "cpu.usage",
        MetricType.GAUGE,
        ("core",),
        (
            "cpu.usage_percent",
            "cpu_usage_percent",
            "percent",
            "Part of the time since the last reading in which a core, or all of them, was busy.",
        ),
    )
    | group(
        "cpu.temperature",
        MetricType.GAUGE,
        (),
        ("cpu.temperature", "cpu_temperature_celsius", "celsius", "Heat of the hottest zone."),
    )
    | group(
        "cpu.temperature",
        MetricType.GAUGE,
        ("zone",),
        ("thermal.zone_temp", "thermal_zone_temp_celsius", "celsius", "Heat of a thermal zone."),
    )
    | group(
        "memory.usage",
        MetricType.GAUGE,
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
    | group(
        "disk.io",
        MetricType.COUNTER,
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
    | group(
        "network.traffic",
        MetricType.COUNTER,
        ("interface",),
        ("network.rx_bytes_total", "network_rx_bytes_total", "bytes", "Bytes received."),
        ("network.tx_bytes_total", "network_tx_bytes_total", "bytes", "Bytes sent."),
        ("network.rx_packets_total", "network_rx_packets_total", "packets", "Packets received."),
        ("network.tx_packets_total", "network_tx_packets_total", "packets", "Packets sent."),
        ("network.rx_errors_total", "network_rx_errors_total", "errors", "Errors on receiving."),
        ("network.tx_errors_total", "network_tx_errors_total", "errors", "Errors on sending."),
    )
    | group(
        "network.traffic",
        MetricType.COUNTER,
        (),
        (
            "network.interfaces_dropped_total",
            "network_interfaces_dropped_total",
            "interfaces",
            "Interfaces left out because of max_interfaces, counted at each collection.",
        ),
    )
    | group(
        "system.load",
        MetricType.GAUGE,
        (),
        ("system.load_1m", "system_load_1m", "tasks", "Load average of 1 minute."),
        ("system.load_5m", "system_load_5m", "tasks", "Load average of 5 minutes."),
        ("system.load_15m", "system_load_15m", "tasks", "Load average of 15 minutes."),
    )
    | group(
        "system.uptime",
        MetricType.GAUGE,
        (),
        ("system.uptime_seconds", "system_uptime_seconds", "seconds", "Time since boot."),
    )
    | group(
        "srt.packet_loss",
        MetricType.GAUGE,
        ("source",),
        (
            "srt.packet_loss_percent",
            "srt_packet_loss_percent",
            "percent",
            "Packets lost by an SRT stream; made up where source is mock.",
        ),
    )
)
"""Stored name to entry: the metrics of the machine."""

CATALOGUE: Mapping[str, Entry] = MappingProxyType({**HOST, **SELF})
"""Stored name to entry, all of them."""
