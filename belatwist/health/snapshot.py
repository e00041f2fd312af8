"""The state of the agent at one moment, as plain values.

Ages are seconds on the monotonic clock: a step of the wall clock does not change them.
"""

from dataclasses import dataclass

from belatwist.collectors.state import State

MAX_LEFT_OUT = 30
"""The most items that a collector's state names as left out; one more says how many others."""


@dataclass(frozen=True, slots=True)
class CollectorState:
    """A collector.

    :ivar state: how its source is doing; ``None`` before the first collection has ended.
    :ivar age: seconds since the last collection that yielded samples; ``None`` before the first.
    :ivar collected: samples collected in this run.
    :ivar failed: collections that failed in this run.
    :ivar reason: why the state is not ok: what is absent, what hides it, or the error.
    :ivar cure: what the operator does about a source that is hidden.
    :ivar left_out: names of items that the collector does not report, such as those beyond a limit.
    """

    state: State | None
    age: float | None
    collected: int
    failed: int
    reason: str | None
    cure: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UploaderState:
    """The uploader.

    :ivar enabled: whether the configuration switches uploads on.
    :ivar endpoint: the URL of the server, without its query.
    :ivar overdue: seconds since the last upload, the start, or the last time that nothing was
        pending, whichever is the latest.
    :ivar age: seconds since the last upload; ``None`` when there was none in this run.
    :ivar uploaded: samples accepted in this run.
    :ivar failures: attempts that failed in this run.
    :ivar rejected: samples rejected in this run.
    :ivar partial: batches accepted in part in this run.
    :ivar retrying: samples of the request that waits for its next attempt.
    :ivar error: why the last attempt failed; ``None`` when it succeeded.
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

    :ivar opening: in words, the progress of opening the database, which may take minutes; ``None``
        when it is open.
    :ivar path: the database file.
    :ivar database_bytes: size of its file.
    :ivar wal_bytes: size of its write-ahead log.
    :ivar wal_blocked: whether another program prevents emptying the log.
    :ivar pending: samples that wait for their upload.
    :ivar oldest_ms: time of the oldest sample, Unix ms; ``None`` when the store is empty.
    :ivar error: why samples cannot be stored now; ``None`` when they can.
    :ivar waiting: samples in memory that are not stored yet.
    :ivar dropped: samples lost in this run before their upload.
    :ivar dropped_age: seconds since the last loss; ``None`` when no sample was lost.
    :ivar series: how many series are alive.
    :ivar max_series: how many may be. New ones beyond it are not stored.
    :ivar refused: samples that were not stored in this run, because their series were new.
    :ivar refused_age: seconds since that last happened; ``None`` when it did not.
    :ivar refused_reason: why that happened, in words; empty when it did not.
    :ivar refused_series: some of the series that were last not stored: their names and tags.
    :ivar pruned: samples deleted in this run because of their age or the size limit.
    :ivar replaced_as: the path that a damaged database was moved to in this run; ``None`` when the
        database was not damaged.
    :ivar replaced_age: seconds since the replacement.
    :ivar lock: the lock file, which prevents a second instance.
    :ivar locked: whether this process still holds that file.
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
    series: int
    max_series: int
    refused: int
    refused_age: float | None
    refused_reason: str
    refused_series: tuple[str, ...]
    pruned: int
    replaced_as: str | None
    replaced_age: float | None
    lock: str
    locked: bool


@dataclass(frozen=True, slots=True)
class TimeState:
    """The wall clock.

    :ivar skew_ms: how far the clock was ahead of the server's at the last comparison; ``None``
        before the first.
    :ivar skew_age: seconds since that comparison.
    :ivar ntp_synced: whether the kernel reports the clock as synchronised; ``None`` if it reports
        nothing.
    :ivar trusted: whether the agent trusts it.
    :ivar steps: how often the clock was stepped in this run.
    """

    skew_ms: int | None
    skew_age: float | None
    ntp_synced: bool | None
    trusted: bool
    steps: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the whole agent.

    :ivar now_ms: Unix time in milliseconds.
    :ivar uptime: seconds since the agent started, on the monotonic clock.
    :ivar pid: the process id.
    :ivar session: this run's UUID.
    :ivar collectors: the configured collectors, by name.
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
