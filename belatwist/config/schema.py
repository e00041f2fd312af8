"""The sections of the configuration as frozen, typed values."""

from typing import Annotated, Literal

from msgspec import Meta

from belatwist.config.collectors import CollectorEntry
from belatwist.config.section import Section
from belatwist.config.values import (
    Backoff,
    DeviceId,
    FilePath,
    HealthPath,
    Host,
    HostName,
    ImportUrl,
    LongSeconds,
    Output,
    Seconds,
    SecretPath,
    Url,
)


class Device(Section, frozen=True, kw_only=True):
    """The device that the agent measures."""

    id: Annotated[
        DeviceId, Meta(description="Name of the device: the label `device_id` of every series.")
    ]


class Retention(Section, frozen=True, kw_only=True):
    """How long the database keeps samples, and how large it may become."""

    uploaded: Annotated[
        LongSeconds,
        Meta(
            description="Time to keep a sample after it was uploaded or rejected; up to 1/24 "
            "longer. A pending sample is never deleted because of its age."
        ),
    ] = 24 * 3600.0
    max_size_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1_048_576,
            description="Maximum size in MiB of the database with its write-ahead log. At the "
            "limit the oldest uploaded samples are deleted first, then pending ones: the oldest of "
            "the lowest priority.",
        ),
    ] = 1024


class Storage(Section, frozen=True, kw_only=True):
    """The database.

    The cache is small because the service's memory is limited to 200 MB. SQLite maps nothing,
    because an I/O error in a mapped page kills the process (https://www.sqlite.org/mmap.html), and
    a worn card has such errors.
    """

    path: Annotated[
        FilePath, Meta(description="The database file. The agent needs write access to its folder.")
    ] = "/var/lib/belabox-metrics/metrics.db"
    wal_checkpoint_interval: Annotated[
        Seconds, Meta(description="How often to move the write-ahead log into the database.")
    ] = 3600.0
    wal_checkpoint_size_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=4096,
            description="Size in MiB at which the agent also moves the write-ahead log into the "
            "database, checked after each write.",
        ),
    ] = 64
    synchronous: Annotated[
        Literal["full", "normal"],
        Meta(
            description="`full` loses nothing in a power cut. `normal` writes less, and a power "
            "cut may lose everything since the last WAL checkpoint."
        ),
    ] = "full"
    cache_mb: Annotated[
        int, Meta(ge=1, le=1024, description="Maximum size of SQLite's page cache in MiB.")
    ] = 2
    mmap_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=2047,
            description="MiB of the database that SQLite maps into memory. 0 maps nothing: an I/O "
            "error in a mapped page kills the process.",
        ),
    ] = 0
    max_series: Annotated[
        int,
        Meta(
            ge=100,
            le=100_000,
            description="Maximum number of series (a metric with its tags) that are alive: stored "
            "within the last hour, or twice the longest interval. The agent stores no new series "
            "beyond it. Each takes some 1.2 kB of memory; a device has about 200.",
        ),
    ] = 10_000
    retention: Retention = Retention()


class Retry(Section, frozen=True, kw_only=True):
    """How the agent retries an upload."""

    enabled: Annotated[
        bool, Meta(description="`false`: no retries; the samples wait for the next interval.")
    ] = True
    max_attempts: Annotated[
        int, Meta(ge=1, le=20, description="Attempts for one chunk, including the first.")
    ] = 3
    initial_backoff: Annotated[Backoff, Meta(description="Wait after the first attempt.")] = 5.0
    max_backoff: Annotated[Backoff, Meta(description="Longest wait.")] = 60.0
    backoff_multiplier: Annotated[
        float, Meta(ge=1, le=100, description="Factor by which each wait exceeds the one before.")
    ] = 3.0
    jitter_percent: Annotated[
        int, Meta(ge=0, le=100, description="Each wait varies at random by ± this percentage.")
    ] = 20


class Remote(Section, frozen=True, kw_only=True):
    """The server that gets the samples."""

    url: Annotated[
        ImportUrl,
        Meta(
            description="VictoriaMetrics' import endpoint, whose path ends in `/api/v1/import`. "
            "The agent refuses other paths of VictoriaMetrics. A query (`?extra_label=…`) is sent "
            "along."
        ),
    ] = "http://localhost:8428/api/v1/import"
    enabled: Annotated[
        bool, Meta(description="`false`: the agent collects and stores samples, and sends nothing.")
    ] = True
    upload_interval: Annotated[Seconds, Meta(description="How often to send pending samples.")] = (
        30.0
    )
    timeout: Annotated[
        Seconds, Meta(description="Maximum time for one request, including its answer.")
    ] = 30.0
    reconnect_interval: Annotated[
        Seconds,
        Meta(
            description="How often to try to connect while the server is unreachable. Each wait "
            "is up to a fifth shorter, at random. Choose more where thousands of devices share a "
            "server."
        ),
    ] = 4.5
    compression: Annotated[
        bool, Meta(description="Whether to compress request bodies with gzip.")
    ] = True
    compression_level: Annotated[
        int, Meta(ge=1, le=9, description="Level of gzip: 1 is fastest, 9 is smallest.")
    ] = 6
    batch_size: Annotated[
        int,
        Meta(ge=1, le=10_000, description="Maximum number of samples in a batch, and in a chunk."),
    ] = 2500
    chunk_size: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Number of samples in the first chunk (one request). After each success "
            "the next chunk may double, up to `batch_size`.",
        ),
    ] = 50
    auth_token_file: Annotated[
        SecretPath | None,
        Meta(
            description="File with the bearer token: one line, readable only by its owner "
            "(`chmod 600`)."
        ),
    ] = None
    tls_ca_file: Annotated[
        FilePath | None,
        Meta(
            description="PEM file of the certificates to trust for `https`, instead of the "
            "system's."
        ),
    ] = None
    retry: Retry = Retry()


class Threshold(Section, frozen=True, kw_only=True):
    """Limits of the backlog. A value above a limit changes the status."""

    pending_metrics: Annotated[int, Meta(ge=1, le=10**9, description="Number of pending samples.")]
    upload_age_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=10**9,
            description="Seconds since the last successful upload. The default is never below 2 "
            "(degraded) or 20 (error) times `remote.upload_interval`.",
        ),
    ]


class Health(Section, frozen=True, kw_only=True):
    """The health endpoint."""

    enabled: Annotated[bool, Meta(description="Whether the agent serves the health endpoint.")] = (
        True
    )
    host: Annotated[
        Host,
        Meta(description="Address to listen on; `0.0.0.0` opens the endpoint to every network."),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port to listen on.")] = 9100
    path: Annotated[
        HealthPath,
        Meta(description="Path of the status; `/live` and `/ready` are below it."),
    ] = "/health"
    basic_auth_file: Annotated[
        SecretPath | None,
        Meta(
            description="File with logins, one `user:password` per line, readable only by its "
            "owner (`chmod 600`). Every request except `/health/live` then needs one of these "
            "logins."
        ),
    ] = None
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Meta(
            max_length=64,
            description="Further host names that requests may use, such as a scraper's name for "
            "the device. Addresses, `localhost` and the device's own host name always work.",
        ),
    ] = ()
    degraded_threshold: Threshold = Threshold(pending_metrics=5000, upload_age_seconds=60)
    error_threshold: Threshold = Threshold(pending_metrics=10000, upload_age_seconds=600)


class Logging(Section, frozen=True, kw_only=True):
    """The log."""

    level: Annotated[
        Literal["debug", "info", "warn", "error"], Meta(description="Lowest level that is logged.")
    ] = "info"
    format: Annotated[
        Literal["json", "console"],
        Meta(description="`json`: one object per line, for programs; `console`: text for people."),
    ] = "json"
    output: Annotated[Output, Meta(description="Destination of the log.")] = "stdout"
    max_size_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="Size in MiB at which the agent rotates a log file. It keeps the last "
            "three old files.",
        ),
    ] = 10


class Monitoring(Section, frozen=True, kw_only=True):
    """How the agent checks the clock and measures itself."""

    clock_skew_check_interval: Annotated[
        Seconds, Meta(description="How often to compare the clock with the server's.")
    ] = 300.0
    clock_skew_warn_threshold_ms: Annotated[
        int,
        Meta(ge=1, le=86_400_000, description="Difference above which the agent logs a warning."),
    ] = 2000
    clock_skew_url: Annotated[
        Url,
        Meta(
            description="Address whose answers carry a `Date`, and cost the server little. By "
            "default `/health` on the server of `remote.url`."
        ),
    ] = "http://localhost:8428/health"
    clock_hold: Annotated[
        Seconds,
        Meta(
            description="Maximum time to hold samples until the clock is trusted. If it differs "
            "from the server's by more than two days, the agent holds them indefinitely."
        ),
    ] = 600.0
    self_metrics_interval: Annotated[
        Seconds, Meta(description="How often to store the agent's own metrics.")
    ] = 120.0


class Paths(Section, frozen=True, kw_only=True):
    """The folders of the kernel's files. In a container the host's are mounted elsewhere."""

    procfs: Annotated[FilePath, Meta(description="Root of procfs.")] = "/proc"
    sysfs: Annotated[FilePath, Meta(description="Root of sysfs.")] = "/sys"


class Config(Section, frozen=True, kw_only=True):
    """A whole configuration. Equal and hashable by value; relative paths are resolved."""

    device: Device
    storage: Storage = Storage()
    remote: Remote = Remote()
    health: Health = Health()
    logging: Logging = Logging()
    monitoring: Monitoring = Monitoring()
    paths: Paths = Paths()
    metrics: Annotated[
        tuple[CollectorEntry, ...],
        Meta(
            max_length=100,
            description="The collectors to run. By default all that measure this machine, at their "
            "default intervals.",
        ),
    ] = ()
