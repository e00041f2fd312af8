"""The names of all metrics: how each is stored, how uploaded, and with which tags."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class MetricType(StrEnum):
    """The kinds of metric, as Prometheus names them.

    A histogram is stored as counters: ``_bucket`` (with the tag ``le``), ``_sum`` and ``_count``
    are appended to its name.
    """

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Entry(NamedTuple):
    """What is known of one metric."""

    prometheus_name: str
    """The name that PromQL sees."""
    tags: tuple[str, ...]
    type: MetricType
    unit: str
    help: str
    """One sentence."""
    collector: str
    """The configuration's name of the collector that yields it; :data:`AGENT` for those about the
    agent itself."""


AGENT = "always on"
"""Stands for a collector where a metric is not one's: it cannot be switched off."""


def _group(
    collector: str, type_: MetricType, tags: tuple[str, ...], *rows: tuple[str, str, str, str]
) -> dict[str, Entry]:
    """Spell out the entries of one collector.

    :param rows: stored name, Prometheus name, unit, help.
    """
    return {
        stored: Entry(prometheus_name, tags, type_, unit, help_, collector)
        for stored, prometheus_name, unit, help_ in rows
    }


HOST: Mapping[str, Entry] = MappingProxyType(
    _group(
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
    | _group(
        "cpu.temperature",
        MetricType.GAUGE,
        (),
        ("cpu.temperature", "cpu_temperature_celsius", "celsius", "Heat of the hottest zone."),
    )
    | _group(
        "cpu.temperature",
        MetricType.GAUGE,
        ("zone",),
        ("thermal.zone_temp", "thermal_zone_temp_celsius", "celsius", "Heat of a thermal zone."),
    )
    | _group(
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
    | _group(
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
    | _group(
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
    | _group(
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
    | _group(
        "system.load",
        MetricType.GAUGE,
        (),
        ("system.load_1m", "system_load_1m", "tasks", "Load average of 1 minute."),
        ("system.load_5m", "system_load_5m", "tasks", "Load average of 5 minutes."),
        ("system.load_15m", "system_load_15m", "tasks", "Load average of 15 minutes."),
    )
    | _group(
        "system.uptime",
        MetricType.GAUGE,
        (),
        ("system.uptime_seconds", "system_uptime_seconds", "seconds", "Time since boot."),
    )
    | _group(
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
"""Stored name to entry: what is measured of the machine."""

SELF: Mapping[str, Entry] = MappingProxyType(
    _group(
        AGENT,
        MetricType.COUNTER,
        ("collector",),
        (
            "collector.metrics_collected_total",
            "collector_metrics_collected_total",
            "samples",
            "Samples that a collector has yielded.",
        ),
        (
            "collector.metrics_failed_total",
            "collector_metrics_failed_total",
            "collections",
            "Collections that failed or did not end in time.",
        ),
    )
    | _group(
        AGENT,
        MetricType.HISTOGRAM,
        ("collector",),
        (
            "collector.collection_duration_seconds",
            "collector_collection_duration_seconds",
            "seconds",
            "How long a collection took.",
        ),
    )
    | _group(
        AGENT,
        MetricType.GAUGE,
        (),
        (
            "collector.memory_usage_bytes",
            "collector_memory_usage_bytes",
            "bytes",
            "Resident memory of the agent.",
        ),
        (
            "collector.cpu_usage_percent",
            "collector_cpu_usage_percent",
            "percent",
            "CPU time of the agent since the last reading, as a part of one core.",
        ),
    )
    | _group(
        AGENT,
        MetricType.COUNTER,
        (),
        (
            "uploader.metrics_uploaded_total",
            "uploader_metrics_uploaded_total",
            "samples",
            "Samples that the server has accepted.",
        ),
        (
            "uploader.upload_failures_total",
            "uploader_upload_failures_total",
            "requests",
            "Requests with samples that failed; refusals of single bodies are not counted.",
        ),
        (
            "uploader.partial_success_total",
            "uploader_partial_success_total",
            "batches",
            "Batches of which some samples were accepted and others not.",
        ),
        (
            "uploader.metrics_rejected_total",
            "uploader_metrics_rejected_total",
            "samples",
            "Samples that will not be sent, because the server refuses them or would drop them.",
        ),
    )
    | _group(
        AGENT,
        MetricType.HISTOGRAM,
        (),
        (
            "uploader.upload_duration_seconds",
            "uploader_upload_duration_seconds",
            "seconds",
            "How long a request with samples took, its answer included.",
        ),
    )
    | _group(
        AGENT,
        MetricType.GAUGE,
        (),
        (
            "storage.database_size_bytes",
            "storage_database_size_bytes",
            "bytes",
            "Size of the database's file.",
        ),
        (
            "storage.wal_size_bytes",
            "storage_wal_size_bytes",
            "bytes",
            "Size of the write-ahead log.",
        ),
        (
            "storage.metrics_pending_upload",
            "storage_metrics_pending_upload",
            "samples",
            "Samples that wait to be uploaded.",
        ),
        (
            "storage.wal_checkpoint_duration_ms",
            "storage_wal_checkpoint_duration_ms",
            "milliseconds",
            "How long the last checkpoint of the write-ahead log took.",
        ),
        (
            "storage.wal_bytes_reclaimed",
            "storage_wal_bytes_reclaimed",
            "bytes",
            "How much smaller the last checkpoint made the write-ahead log.",
        ),
    )
    | _group(
        AGENT,
        MetricType.COUNTER,
        (),
        (
            "storage.metrics_pruned_total",
            "storage_metrics_pruned_total",
            "samples",
            "Samples deleted for their age or for want of room.",
        ),
        (
            "storage.metrics_dropped_total",
            "storage_metrics_dropped_total",
            "samples",
            "Samples lost before their upload: they could not be stored, or there was no room.",
        ),
        (
            "storage.write_failures_total",
            "storage_write_failures_total",
            "transactions",
            "Attempts to store samples that failed.",
        ),
    )
    | _group(
        AGENT,
        MetricType.HISTOGRAM,
        (),
        (
            "storage.query_duration_seconds",
            "storage_query_duration_seconds",
            "seconds",
            "How long reading a batch of pending samples took.",
        ),
        (
            "storage.write_duration_seconds",
            "storage_write_duration_seconds",
            "seconds",
            "How long a transaction that stores or marks samples took.",
        ),
    )
    | _group(
        AGENT,
        MetricType.GAUGE,
        (),
        (
            "time.skew_ms",
            "time_skew_ms",
            "milliseconds",
            "How far the clock was ahead of the server's when last compared.",
        ),
    )
    | _group(
        AGENT,
        MetricType.COUNTER,
        (),
        (
            "time.clock_steps_total",
            "time_clock_steps_total",
            "steps",
            "How often the wall clock was stepped.",
        ),
    )
)
"""Stored name to entry: what the agent says of itself."""

CATALOGUE: Mapping[str, Entry] = MappingProxyType({**HOST, **SELF})
"""Stored name to entry, all of them."""
