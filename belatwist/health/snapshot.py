"""What the health of the agent is judged by: plain values, as of one moment.

Ages are seconds on the monotonic clock: a step of the wall clock does not make an upload old.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CollectorState:
    """A collector.

    :ivar failing: whether its last run failed or did not end in time; ``None`` before the first.
    :ivar age: seconds since samples were last collected; ``None`` when there were none yet.
    :ivar collected: samples in this run.
    :ivar failed: collections that failed in this run.
    :ivar error: why the last run failed; ``None`` when it did not.
    """

    failing: bool | None
    age: float | None
    collected: int
    failed: int
    error: str | None


@dataclass(frozen=True, slots=True)
class UploaderState:
    """The uploader.

    :ivar enabled: whether the configuration wants uploads.
    :ivar endpoint: where samples go, without a query.
    :ivar overdue: seconds since the last upload, the start, or the last time that nothing was
        pending, whichever is the latest.
    :ivar age: seconds since the last upload; ``None`` when there was none in this run.
    :ivar uploaded: samples accepted in this run.
    :ivar failures: tries that failed in this run.
    :ivar rejected: samples rejected in this run.
    :ivar partial: batches accepted in part in this run.
    :ivar retrying: samples of the request that waits for its next try.
    :ivar error: why the last try failed; ``None`` when it did not.
    :ivar misconfigured: whether the server's answer says that the configuration is wrong.
    """

    enabled: bool
    endpoint: str
    overdue: float
    age: float | None
    uploaded: int
    failures: int
    rejected: int
    partial: int
    retrying: int
    error: str | None
    misconfigured: bool


@dataclass(frozen=True, slots=True)
class StorageState:
    """The store.

    :ivar opening: what it does before it can be used (a migration may take minutes); ``None`` when
        it is open.
    :ivar path: the database.
    :ivar database_bytes: size of its file.
    :ivar wal_bytes: size of its write-ahead log.
    :ivar wal_blocked: whether another program keeps the log from being emptied.
    :ivar pending: samples that wait to be uploaded.
    :ivar oldest_ms: time of the oldest sample; ``None`` when there is none.
    :ivar error: why samples cannot be stored now; ``None`` when they can.
    :ivar waiting: samples in memory that are not stored yet.
    :ivar dropped: samples lost in this run before their upload.
    :ivar dropped_age: seconds since the last of them was lost; ``None`` when none was.
    :ivar pruned: samples deleted in this run for their age or for want of room.
    :ivar replaced_as: where a damaged database was put aside in this run; ``None`` when none was.
    :ivar replaced_age: seconds since then.
    :ivar lock: the file by which a second instance is kept off.
    :ivar locked: whether it still does that.
    """

    opening: str | None
    path: str
    database_bytes: int
    wal_bytes: int
    wal_blocked: bool
    pending: int
    oldest_ms: int | None
    error: str | None
    waiting: int
    dropped: int
    dropped_age: float | None
    pruned: int
    replaced_as: str | None
    replaced_age: float | None
    lock: str
    locked: bool


@dataclass(frozen=True, slots=True)
class TimeState:
    """The wall clock.

    :ivar skew_ms: how far it was ahead of the server's when last compared; ``None`` before that.
    :ivar skew_age: seconds since then.
    :ivar ntp_synced: what the kernel says; ``None`` where it does not say.
    :ivar trusted: whether it is known to be good.
    :ivar steps: how often it was stepped in this run.
    """

    skew_ms: int | None
    skew_age: float | None
    ntp_synced: bool | None
    trusted: bool
    steps: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, as of one moment.

    :ivar now_ms: Unix time in milliseconds.
    :ivar uptime: seconds since the agent started, on the monotonic clock.
    :ivar pid: the process.
    :ivar session: this run's UUID.
    :ivar collectors: by name; those that the configuration enables.
    """

    version: str
    device_id: str
    now_ms: int
    uptime: float
    pid: int
    session: str
    collectors: dict[str, CollectorState]
    uploader: UploaderState
    storage: StorageState
    time: TimeState
