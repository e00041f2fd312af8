"""The catalogue of the agent's own metrics."""

from collections.abc import Mapping
from types import MappingProxyType

from belatwist.metrics.entry import AGENT, Entry, MetricType, group

SELF: Mapping[str, Entry] = MappingProxyType(
    group(
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
    | group(
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
    | group(
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
    | group(
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
    | group(
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
    | group(
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
    | group(
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
    | group(
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
    | group(
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
    | group(
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
"""Stored name to entry: the agent's own metrics."""
