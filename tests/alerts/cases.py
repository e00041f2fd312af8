"""What can happen to a device, and which alerts it must raise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.alerts.simulated_devices import Changes, Curve

HOUR = 3600
TROUBLE = 2 * HOUR
"""When it begins, in seconds since the start."""
OVER = 4 * HOUR
"""When it has passed, unless a case says otherwise."""


@dataclass(frozen=True)
class Case:
    """A device with a fate.

    :ivar name: its ``device_id``.
    :ivar fires: the alerts that it must raise and no others, each with the most minutes from
        :data:`TROUBLE` to its firing.
    :ivar spares: the alert that it comes close to.
    :ivar labels: what its alerts name besides the device.
    :ivar changes: how it differs from an ordinary one.
    :ivar gone: when nothing of it arrives, not even later.
    """

    name: str
    changes: Changes = field(default_factory=dict)
    fires: Mapping[str, int] = field(default_factory=dict)
    spares: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    gone: Callable[[float], bool] = lambda t: False


def troubled(bad: Curve | float | None, well: Curve | float, over: float = OVER) -> Curve:
    """Be one thing while there is trouble, and another one before and after."""

    def curve(t: float) -> float | None:
        value = bad if TROUBLE <= t < over else well
        return value(t) if callable(value) else value

    return curve


def counted(rate: float, over: float = OVER) -> Curve:
    """Count up by so many a second while there is trouble."""
    return lambda t: rate * min(max(t - TROUBLE, 0), over - TROUBLE) // 1


def stuck(rate: float, over: float = OVER) -> Curve:
    """Count up by so many a second, but not while there is trouble."""
    return lambda t: rate * (min(t, TROUBLE) + max(t - over, 0))


def restarted(rate: float, every: float, until: float = OVER) -> Curve:
    """Count from 0 again at times while there is trouble."""
    last = until - every

    def curve(t: float) -> float:
        if t < TROUBLE:
            return rate * (t + HOUR)
        return rate * ((t - TROUBLE) % every if t < last else t - last)

    return curve


def gone(minutes: float) -> Callable[[float], bool]:
    """Say nothing for so long."""
    return lambda t: TROUBLE <= t < TROUBLE + 60 * minutes


GIB = 2.0**30
TX, RX = "network_tx_bytes_total", "network_rx_bytes_total"
UPLINKS = ("wlan0", "usb0", "eth2", "wwan0", "eth1")
PENDING = "storage_metrics_pending_upload"
FAILED, SENT = "uploader_upload_failures_total", "uploader_metrics_uploaded_total"
DURATIONS = "collector_collection_duration_seconds_sum"
UPTIME = "system_uptime_seconds"
BYTES = 200_000
ROOT = "//"  # The value of the tag mountpoint.

CASES = [
    Case("well"),
    Case("off-40-minutes", gone=gone(40), fires={"DeviceSilent": 18}),
    Case("off-7-hours", gone=gone(420), fires={"DeviceSilent": 18, "DeviceLost": 367}),
    Case("off-12-minutes", gone=gone(12), spares="DeviceSilent"),
    Case("off-5-hours", gone=gone(300), fires={"DeviceSilent": 18}, spares="DeviceLost"),
    Case(
        "hot",
        {"cpu_temperature_celsius": troubled(88, 60)},
        fires={"DeviceHot": 16},
    ),
    Case(
        "overheated",
        {"cpu_temperature_celsius": troubled(97, 60)},
        fires={"DeviceHot": 16, "DeviceOverheated": 13},
    ),
    Case("warm", {"cpu_temperature_celsius": troubled(84, 60)}, spares="DeviceHot"),
    Case(
        "hot-for-a-moment",
        {"cpu_temperature_celsius": troubled(99, 60, TROUBLE + 180)},
        spares="DeviceOverheated",
    ),
    Case(
        "short-of-memory",
        {"memory_available_bytes": troubled(0.07, 0.5), "memory_total_bytes": lambda t: 1.0},
        fires={"MemoryLow": 20},
    ),
    Case(
        "some-memory",
        {"memory_available_bytes": troubled(0.12, 0.5), "memory_total_bytes": lambda t: 1.0},
        spares="MemoryLow",
    ),
    Case(
        "disk-fills",
        {
            f"filesystem_available_bytes{ROOT}": troubled(
                lambda t: 0.35 - 0.02 * (t - TROUBLE) / HOUR, 0.39
            ),
            f"filesystem_size_bytes{ROOT}": lambda t: 1.0,
        },
        fires={"FilesystemFilling": 90},
        labels={"mountpoint": "/"},
    ),
    Case(
        "disk-with-room-fills",
        {
            f"filesystem_available_bytes{ROOT}": troubled(
                lambda t: 0.9 - 0.1 * (t - TROUBLE) / HOUR, 0.9
            ),
            f"filesystem_size_bytes{ROOT}": lambda t: 1.0,
        },
        spares="FilesystemFilling",
    ),
    Case(
        "disk-is-full",
        {
            f"filesystem_available_bytes{ROOT}": lambda t: 0.04,
            f"filesystem_size_bytes{ROOT}": troubled(1.0, 0.5),
        },
        fires={"FilesystemFull": 15},
        labels={"mountpoint": "/"},
    ),
    Case(
        "disk-is-nearly-full",
        {
            f"filesystem_available_bytes{ROOT}": lambda t: 0.06,
            f"filesystem_size_bytes{ROOT}": lambda t: 1.0,
        },
        spares="FilesystemFull",
    ),
    Case(
        "card-is-worn",
        {f"filesystem_readonly{ROOT}": troubled(1, 0)},
        fires={"FilesystemReadOnly": 8},
        labels={"mountpoint": "/"},
    ),
    Case(
        "always-read-only",
        {f"filesystem_readonly{ROOT}": lambda t: 1},
        spares="FilesystemReadOnly",
    ),
    Case(
        "dead-uplink",
        {f"{TX}/usb0": stuck(BYTES), f"{RX}/usb0": stuck(BYTES)},
        fires={"UplinkDown": 8},
        labels={"interface": "usb0"},
    ),
    Case(
        "deaf-uplink",
        {f"{TX}/usb0": lambda t: 4000 * t, f"{RX}/usb0": stuck(BYTES)},
        fires={"UplinkDown": 8},
        labels={"interface": "usb0"},
    ),
    Case(
        "vanished-uplink",
        {
            f"{name}/wwan0": troubled(None, lambda t: BYTES * t if t < OVER else 0)
            for name in (TX, RX)
        },
        fires={"UplinkDown": 8},
        labels={"interface": "wwan0"},
    ),
    Case(
        "uplink-back-soon",
        {f"{TX}/usb0": stuck(BYTES, TROUBLE + 180), f"{RX}/usb0": stuck(BYTES, TROUBLE + 180)},
        spares="UplinkDown",
    ),
    Case(
        "unused-interface-unplugged",
        {f"{name}/usb0": stuck(2000) for name in (TX, RX)},
        spares="UplinkDown",
    ),
    Case(
        "no-stream",
        {
            **{f"{name}/{uplink}": stuck(BYTES) for name in (TX, RX) for uplink in UPLINKS},
            f"{TX}/wlan0": lambda t: 8000 * t,
        },
        spares="UplinkDown",
    ),
    Case(
        "reboots",
        {
            UPTIME: restarted(1, 600),
            DURATIONS: restarted(0.001, 600),
            SENT: restarted(8, 600),
        },
        fires={"DeviceRebootsOften": 35},
        spares="AgentRestartsOften",
    ),
    Case(
        "two-reboots",
        {
            UPTIME: restarted(1, 1200, TROUBLE + 2400),
            DURATIONS: restarted(0.001, 1200, TROUBLE + 2400),
        },
        spares="DeviceRebootsOften",
    ),
    Case(
        "agent-restarts",
        {DURATIONS: restarted(0.001, 600), SENT: restarted(8, 600)},
        fires={"AgentRestartsOften": 35},
    ),
    Case(
        "agent-restarts-twice",
        {DURATIONS: restarted(0.001, 1200, TROUBLE + 2400)},
        spares="AgentRestartsOften",
    ),
    Case(
        "backlog-grows",
        {PENDING: troubled(lambda t: 6000 + (t - TROUBLE), 300)},
        fires={"BacklogGrowing": 35},
    ),
    Case(
        "backlog-shrinks",
        {PENDING: troubled(lambda t: 20_000 - (t - TROUBLE), 300)},
        spares="BacklogGrowing",
    ),
    Case(
        "small-backlog-grows",
        {PENDING: troubled(lambda t: 300 + 0.6 * (t - TROUBLE), 300)},
        spares="BacklogGrowing",
    ),
    Case(
        "uploads-fail",
        {FAILED: counted(0.03), SENT: stuck(8)},
        fires={"UploadsFailing": 30},
    ),
    Case("some-uploads-fail", {FAILED: counted(0.03)}, spares="UploadsFailing"),
    Case(
        "uploads-fail-for-a-while",
        {FAILED: counted(0.03, TROUBLE + 1080), SENT: stuck(8, TROUBLE + 1080)},
        spares="UploadsFailing",
    ),
    Case("nothing-to-upload", {SENT: stuck(8)}, spares="UploadsFailing"),
    Case(
        "loses-samples",
        {"storage_metrics_dropped_total": counted(100, TROUBLE + 60)},
        fires={"SamplesLost": 5},
    ),
    Case(
        "prunes-what-is-uploaded",
        {"storage_metrics_pruned_total": counted(100)},
        spares="SamplesLost",
    ),
    Case(
        "too-many-series",
        {"storage_metrics_refused_total": counted(100, TROUBLE + 60)},
        fires={"SeriesRefused": 5},
    ),
    Case(
        "prunes-old-series",
        {"storage_metrics_pruned_total": counted(100, TROUBLE + 60)},
        spares="SeriesRefused",
    ),
    Case(
        "samples-rejected",
        {"uploader_metrics_rejected_total": counted(0.1, TROUBLE + 60)},
        fires={"SamplesRejected": 5},
    ),
    Case(
        "partial-success",
        {"uploader_partial_success_total": counted(0.1, TROUBLE + 60)},
        spares="SamplesRejected",
    ),
    Case(
        "large-database",
        {
            "storage_database_size_bytes": troubled(0.85 * GIB, 4e7),
            "storage_wal_size_bytes": troubled(0.1 * GIB, 2e6),
        },
        fires={"DatabaseNearLimit": 15},
    ),
    Case(
        "fairly-large-database",
        {"storage_database_size_bytes": troubled(0.85 * GIB, 4e7)},
        spares="DatabaseNearLimit",
    ),
    Case(
        "cannot-store",
        {"storage_write_failures_total": counted(0.1, TROUBLE + 60)},
        fires={"StorageFailing": 5},
    ),
    Case(
        "slow-to-store",
        {"storage_write_duration_seconds_sum": counted(1)},
        spares="StorageFailing",
    ),
    Case("clock-ahead", {"time_skew_ms": troubled(2500, 100)}, fires={"ClockSkew": 15}),
    Case("clock-behind", {"time_skew_ms": troubled(-2500, 100)}, fires={"ClockSkew": 15}),
    Case("clock-a-little-ahead", {"time_skew_ms": troubled(1900, 100)}, spares="ClockSkew"),
    Case("clock-a-little-behind", {"time_skew_ms": troubled(-1900, 100)}, spares="ClockSkew"),
    Case(
        "dead-sensor",
        {"collector_metrics_failed_total/cpu.temperature": counted(1 / 240)},
        fires={"CollectorFailing": 25},
        labels={"collector": "cpu.temperature"},
    ),
    Case(
        "sensor-failed-twice",
        {"collector_metrics_failed_total/cpu.temperature": counted(1 / 60, TROUBLE + 120)},
        spares="CollectorFailing",
    ),
]
