"""The agent's own metrics."""

from collections.abc import Mapping
from types import MappingProxyType

from belatwist.metrics.metric import COUNTER, GAUGE, HISTOGRAM, Metric

_SELF = (
    Metric(
        "collector.metrics_collected_total",
        COUNTER,
        "samples",
        "Samples that a collector has yielded.",
        tags=("collector",),
    ),
    Metric(
        "collector.metrics_failed_total",
        COUNTER,
        "collections",
        "Collections that failed or did not end in time.",
        tags=("collector",),
    ),
    Metric(
        "collector.collection_duration_seconds",
        HISTOGRAM,
        "seconds",
        "How long a collection took.",
        tags=("collector",),
    ),
    Metric("collector.memory_usage_bytes", GAUGE, "bytes", "Resident memory of the agent."),
    Metric(
        "collector.cpu_usage_percent",
        GAUGE,
        "percent",
        "CPU time of the agent since the last reading, as a part of one core.",
    ),
    Metric(
        "uploader.metrics_uploaded_total",
        COUNTER,
        "samples",
        "Samples that the server has accepted.",
    ),
    Metric(
        "uploader.upload_failures_total",
        COUNTER,
        "requests",
        "Requests with samples that failed; refusals of single bodies are not counted.",
    ),
    Metric(
        "uploader.partial_success_total",
        COUNTER,
        "batches",
        "Batches of which some samples were accepted and others not.",
    ),
    Metric(
        "uploader.metrics_rejected_total",
        COUNTER,
        "samples",
        "Samples that will not be sent, because the server refuses them or would drop them.",
    ),
    Metric(
        "uploader.upload_duration_seconds",
        HISTOGRAM,
        "seconds",
        "How long a request with samples took, its answer included.",
    ),
    Metric("storage.database_size_bytes", GAUGE, "bytes", "Size of the database's file."),
    Metric("storage.wal_size_bytes", GAUGE, "bytes", "Size of the write-ahead log."),
    Metric("storage.metrics_pending_upload", GAUGE, "samples", "Samples that wait to be uploaded."),
    Metric(
        "storage.wal_checkpoint_duration_ms",
        GAUGE,
        "milliseconds",
        "How long the last checkpoint of the write-ahead log took.",
    ),
    Metric(
        "storage.wal_bytes_reclaimed",
        GAUGE,
        "bytes",
        "How much smaller the last checkpoint made the write-ahead log.",
    ),
    Metric(
        "storage.metrics_pruned_total",
        COUNTER,
        "samples",
        "Samples deleted for their age or for want of room.",
    ),
    Metric(
        "storage.metrics_dropped_total",
        COUNTER,
        "samples",
        "Samples lost before their upload: they could not be stored, or there was no room.",
    ),
    Metric(
        "storage.metrics_refused_total",
        COUNTER,
        "samples",
        "Samples not stored: their series is new, and as many as storage.max_series are alive.",
    ),
    Metric(
        "storage.write_failures_total",
        COUNTER,
        "transactions",
        "Attempts to store samples that failed.",
    ),
    Metric(
        "storage.query_duration_seconds",
        HISTOGRAM,
        "seconds",
        "How long reading a batch of pending samples took.",
    ),
    Metric(
        "storage.write_duration_seconds",
        HISTOGRAM,
        "seconds",
        "How long a transaction that stores or marks samples took.",
    ),
    Metric(
        "time.skew_ms",
        GAUGE,
        "milliseconds",
        "How far the clock was ahead of the server's when last compared.",
    ),
    Metric("time.clock_steps_total", COUNTER, "steps", "How often the wall clock was stepped."),
)

SELF: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _SELF})
"""What the agent says of itself, by its stored name. It cannot be switched off."""
