"""The sections of the configuration as frozen, typed values, and the collectors by name.

The types say what is allowed (see :mod:`belatwist.config.values`); the descriptions are those of
the documentation.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from belatwist.config.values import (
    Backoff,
    DeviceId,
    FilePath,
    HealthPath,
    Host,
    HostName,
    LongSeconds,
    NamePattern,
    Output,
    Pattern,
    Seconds,
    SecretPath,
    Url,
)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the configuration file."""


class Device(Section, frozen=True, kw_only=True):
    """Who measures."""

    id: Annotated[
        DeviceId, Meta(description="The device's name: the label `device_id` of every series.")
    ]


class Retention(Section, frozen=True, kw_only=True):
    """What is kept, and for how long."""

    uploaded: Annotated[
        LongSeconds,
        Meta(
            description="How long a sample is kept after its upload, or after it was rejected; "
            "up to 1/24 longer. A sample that waits for its upload is never deleted for its age."
        ),
    ] = 24 * 3600.0
    max_size_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1_048_576,
            description="The largest size of the database with its write-ahead log in MiB; the "
            "oldest uploaded samples go first and then, only if it must be, pending ones: the "
            "oldest of the lowest priority.",
        ),
    ] = 1024


class Storage(Section, frozen=True, kw_only=True):
    """The database.

    The memory defaults are below the 64 and 256 MB that a larger machine could spare: the
    service's limit is 200 MB. Nothing is mapped, because an I/O error in a mapped page is a
    signal that ends the process (https://www.sqlite.org/mmap.html), and a worn card has them.
    """

    path: Annotated[
        FilePath, Meta(description="The database file; its folder must be writable.")
    ] = "/var/lib/belabox-metrics/metrics.db"
    wal_checkpoint_interval: Annotated[
        Seconds, Meta(description="How often the write-ahead log is emptied into the database.")
    ] = 3600.0
    wal_checkpoint_size_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=4096,
            description="The write-ahead log is also emptied at this size in MiB, looked at after "
            "each write.",
        ),
    ] = 64
    synchronous: Annotated[
        Literal["full", "normal"],
        Meta(
            description="`full` loses nothing in a power cut; `normal` writes less and may lose "
            "everything since the last checkpoint."
        ),
    ] = "full"
    cache_mb: Annotated[
        int, Meta(ge=1, le=1024, description="SQLite's page cache in MiB, at most.")
    ] = 2
    mmap_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=2047,
            description="How much of the database SQLite maps into memory, in MiB. 0 maps nothing: "
            "an I/O error in a mapped page would end the process.",
        ),
    ] = 0
    retention: Retention = Retention()


class Retry(Section, frozen=True, kw_only=True):
    """What happens after an upload that failed for now."""

    enabled: Annotated[
        bool, Meta(description="Off: one try; what failed waits for the next interval.")
    ] = True
    max_attempts: Annotated[
        int, Meta(ge=1, le=20, description="Tries of one chunk, the first included.")
    ] = 3
    initial_backoff: Annotated[Backoff, Meta(description="The wait after the first try.")] = 5.0
    max_backoff: Annotated[Backoff, Meta(description="The longest wait.")] = 60.0
    backoff_multiplier: Annotated[
        float, Meta(ge=1, le=100, description="Each wait is this many times the one before.")
    ] = 3.0
    jitter_percent: Annotated[
        int, Meta(ge=0, le=100, description="Each wait varies at random by ± this much.")
    ] = 20


class Remote(Section, frozen=True, kw_only=True):
    """Where samples go."""

    url: Annotated[
        Url,
        Meta(
            description="The import endpoint of VictoriaMetrics; a query (`?extra_label=…`) stays."
        ),
    ] = "http://localhost:8428/api/v1/import"
    enabled: Annotated[
        bool, Meta(description="Off: samples are collected and kept, nothing is sent.")
    ] = True
    upload_interval: Annotated[Seconds, Meta(description="How often pending samples are sent.")] = (
        30.0
    )
    timeout: Annotated[Seconds, Meta(description="The time one request has, answer included.")] = (
        30.0
    )
    reconnect_interval: Annotated[
        Seconds,
        Meta(
            description="How often to try to connect while the server is unreachable; each wait "
            "is up to a fifth shorter, at random. Thousands of devices on one server need more."
        ),
    ] = 4.5
    compression: Annotated[bool, Meta(description="Whether bodies are sent with gzip.")] = True
    compression_level: Annotated[
        int, Meta(ge=1, le=9, description="gzip's level; 9 is the smallest and the slowest.")
    ] = 6
    batch_size: Annotated[
        int, Meta(ge=1, le=10_000, description="The most samples of one batch, and of one chunk.")
    ] = 2500
    chunk_size: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="Samples of the first chunk (one request); after each success the next "
            "may double, up to `batch_size`.",
        ),
    ] = 50
    auth_token_file: Annotated[
        SecretPath | None,
        Meta(
            description="A file with the bearer token: one line, readable by its owner only "
            "(`chmod 600`)."
        ),
    ] = None
    tls_ca_file: Annotated[
        FilePath | None,
        Meta(description="PEM certificates to trust instead of the system's, for `https`."),
    ] = None
    retry: Retry = Retry()


class Threshold(Section, frozen=True, kw_only=True):
    """From where on the backlog is a matter of health."""

    pending_metrics: Annotated[
        int, Meta(ge=1, le=10**9, description="Samples that wait to be sent.")
    ]
    upload_age_seconds: Annotated[
        int,
        Meta(
            ge=1,
            le=10**9,
            description="Seconds since the last successful upload. Not given: as here, but at "
            "least 2 (degraded) or 20 (error) times `remote.upload_interval`.",
        ),
    ]


class Health(Section, frozen=True, kw_only=True):
    """The health endpoint."""

    enabled: Annotated[bool, Meta(description="Whether the endpoint listens.")] = True
    host: Annotated[
        Host, Meta(description="Where it listens; `0.0.0.0` opens it to every network.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="The TCP port.")] = 9100
    path: Annotated[
        HealthPath,
        Meta(description="The status; `/live` and `/ready` are below it."),
    ] = "/health"
    basic_auth_file: Annotated[
        SecretPath | None,
        Meta(
            description="A file with logins, `user:password` a line, readable by its owner only "
            "(`chmod 600`): who asks for anything but `/health/live` needs one of them."
        ),
    ] = None
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Meta(
            max_length=64,
            description="Further names by which it may be asked, such as that which a scraper has "
            "of the device; addresses, `localhost` and the device's own host name always work.",
        ),
    ] = ()
    degraded_threshold: Threshold = Threshold(pending_metrics=5000, upload_age_seconds=60)
    error_threshold: Threshold = Threshold(pending_metrics=10000, upload_age_seconds=600)


class Logging(Section, frozen=True, kw_only=True):
    """The log."""

    level: Annotated[
        Literal["debug", "info", "warn", "error"], Meta(description="The least that is logged.")
    ] = "info"
    format: Annotated[
        Literal["json", "console"],
        Meta(description="`json`: one object a line; `console`: for a reader."),
    ] = "json"
    output: Annotated[Output, Meta(description="Where the log goes.")] = "stdout"
    max_size_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="The size in MiB at which a log file is put aside and a new one begun; the "
            "last three are kept beside it.",
        ),
    ] = 10


class Monitoring(Section, frozen=True, kw_only=True):
    """Watching the clock, and the agent itself."""

    clock_skew_check_interval: Annotated[
        Seconds, Meta(description="How often the clock is compared with the server's.")
    ] = 300.0
    clock_skew_warn_threshold_ms: Annotated[
        int, Meta(ge=1, le=86_400_000, description="A larger difference is logged as a warning.")
    ] = 2000
    clock_skew_url: Annotated[
        Url,
        Meta(
            description="A cheap address whose answers carry a `Date`. Not given: `/health` on "
            "the server of `remote.url`."
        ),
    ] = "http://localhost:8428/health"
    clock_hold: Annotated[
        Seconds,
        Meta(
            description="How long samples wait at most for a clock that is known to be good. One "
            "that is days away from the server's is waited for without end."
        ),
    ] = 600.0
    self_metrics_interval: Annotated[
        Seconds, Meta(description="How often the agent's own metrics are stored.")
    ] = 120.0


class Paths(Section, frozen=True, kw_only=True):
    """Where the kernel's files are; a container mounts the host's elsewhere."""

    procfs: Annotated[FilePath, Meta(description="The root of procfs.")] = "/proc"
    sysfs: Annotated[FilePath, Meta(description="The root of sysfs.")] = "/sys"


class DiskIOOptions(Section, frozen=True, kw_only=True):
    """The options of ``disk.io``."""

    allowed_devices: Annotated[
        Pattern,
        Meta(description="Devices to report; empty: whole SATA/USB disks, NVMe, eMMC and SD."),
    ] = ""
    sector_size: Annotated[
        Literal["kernel", "logical"],
        Meta(
            description="Bytes of a sector in `/proc/diskstats`: `kernel` is 512, as the kernel "
            "counts on every device; `logical` is the device's block size, which over-reports a "
            "4096-byte device eightfold."
        ),
    ] = "kernel"


class NetworkTrafficOptions(Section, frozen=True, kw_only=True):
    """The options of ``network.traffic``."""

    include_ifaces: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=64, description="Interfaces to report; empty: all that are not excluded."),
    ] = ()
    exclude_ifaces: Annotated[
        tuple[NamePattern, ...] | None,
        Meta(
            max_length=64,
            description="Interfaces not to report. Not given (or null): loopback, container, "
            "bridge, tunnel and monitor interfaces; a list replaces those.",
        ),
    ] = None
    max_interfaces: Annotated[
        int,
        Meta(ge=1, le=1000, description="The most interfaces reported; each is six series."),
    ] = 32


class NoOptions(Section, frozen=True, kw_only=True):
    """A collector without options of its own."""


class CollectorEntry(Section, frozen=True, kw_only=True):
    """One entry of ``metrics``, its ``config`` already of the collector's own type."""

    name: Annotated[str, Meta(description="A collector, once; see the table of collectors.")]
    interval: Annotated[
        Seconds, Meta(description="How often it collects. Not given: the collector's default.")
    ]
    enabled: Annotated[bool, Meta(description="Whether it runs.")] = True
    config: Annotated[
        DiskIOOptions | NetworkTrafficOptions | NoOptions,
        Meta(description="The collector's own options."),
    ] = NoOptions()


class KnownCollector(NamedTuple):
    """What the configuration knows of a collector."""

    interval: float
    """Seconds between two collections when none are given."""
    options: type[DiskIOOptions | NetworkTrafficOptions | NoOptions] = NoOptions
    default: bool = True
    """Whether it runs when the file has no ``metrics`` at all."""


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
            description="The collectors that run. Not given: all of the host's, at their defaults.",
        ),
    ] = DEFAULT_METRICS
