"""Takes a snapshot of the agent: reads the state of every part, from memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from belatwist import __version__
from belatwist.clock.sources import Clocks
from belatwist.clock.timekeeper import Timekeeper
from belatwist.health.snapshot import (
    MAX_LEFT_OUT,
    CollectorState,
    Snapshot,
    StorageState,
    TimeState,
    UploaderState,
)
from belatwist.metrics.telemetry import Labels, Telemetry
from belatwist.model import Sample
from belatwist.runtime.lockfile import ProcessLock
from belatwist.scheduler.jobs import Job
from belatwist.scheduler.service import CollectorScheduler
from belatwist.store.buffer import WriteBuffer
from belatwist.store.checkpointer import Checkpointer
from belatwist.store.pruner import Pruner
from belatwist.store.sqlite import SQLiteStore
from belatwist.text import first_of
from belatwist.upload.progress import Progress

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

Totals = dict[tuple[str, Labels], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentParts:
    """The parts of an agent whose state the snapshot has.

    :ivar started: when the agent was made, on the reactor's clock.
    :ivar collectors: the names of the configured collectors. The scheduler also runs a collector of
        the agent's own metrics.
    :ivar progress: the state of uploads; ``None`` when the configuration switches them off.
    """

    device_id: str
    session_id: str
    started: float
    reactor: "IReactorTime"
    clocks: Clocks
    collectors: frozenset[str]
    endpoint: str
    telemetry: Telemetry
    lock: ProcessLock
    scheduler: CollectorScheduler
    store: SQLiteStore
    buffer: WriteBuffer
    checkpointer: Checkpointer
    pruner: Pruner
    progress: Progress | None
    timekeeper: Timekeeper

    def snapshot(self) -> Snapshot:
        """Take a snapshot, without waiting for the database or its thread."""
        now = self.reactor.seconds()
        totals: Totals = {(name, labels): value for name, labels, value in self.telemetry.values()}
        return Snapshot(
            version=__version__,
            device_id=self.device_id,
            now_ms=self.clocks.wall_ms(),
            uptime=now - self.started,
            pid=os.getpid(),
            session=self.session_id,
            collectors={
                job.name: _collector(job, now, totals)
                for job in self.scheduler.jobs
                if job.name in self.collectors
            },
            uploader=self._uploader(now, totals),
            storage=self._storage(now, totals),
            time=self._time(now),
        )

    def samples(self) -> Iterator[Sample]:
        """Yield the last samples of each collector, without the agent's own metrics."""
        for job in self.scheduler.jobs:
            if job.name in self.collectors:
                yield from job.samples

    def last_runs(self) -> Iterator[tuple[float | None, float]]:
        """Yield when each collector's last run ended, and its interval.

        The collector of the agent's own metrics does not count: it reads nothing, so it cannot
        hang.
        """
        for job in self.scheduler.jobs:
            if job.name in self.collectors:
                yield job.ended_at, job.interval

    def _uploader(self, now: float, totals: Totals) -> UploaderState:
        progress = self.progress
        last = None if progress is None else progress.last_upload_at
        caught_up = now if progress is None else progress.caught_up_at
        return UploaderState(
            enabled=progress is not None,
            endpoint=self.endpoint,
            overdue=now - max(caught_up, last or 0.0),
            age=_since(last, now),
            uploaded=_count(totals, "uploader_metrics_uploaded_total"),
            failures=_count(totals, "uploader_upload_failures_total"),
            rejected=_count(totals, "uploader_metrics_rejected_total"),
            partial=_count(totals, "uploader_partial_success_total"),
            retrying=0 if progress is None else progress.retrying,
            error=None if progress is None else progress.error,
            misconfigured=progress is not None and progress.misconfigured,
        )

    def _storage(self, now: float, totals: Totals) -> StorageState:
        store, buffer = self.store, self.buffer
        times = buffer.lost_at, self.pruner.lost_at, store.lost_at
        lost = [at for at in times if at is not None]
        replaced = store.lifecycle.salvaged
        return StorageState(
            opening=store.database.opening,
            path=str(store.database.path),
            database_bytes=store.database.database_bytes,
            wal_bytes=store.database.wal_bytes,
            wal_blocked=self.checkpointer.blocked,
            pending=store.pending,
            oldest_ms=store.database.oldest_ms,
            error=buffer.error,
            waiting=buffer.waiting,
            dropped=_count(totals, "storage_metrics_dropped_total"),
            dropped_age=_since(max(lost, default=None), now),
            series=store.alive,
            max_series=store.refused.limit,
            refused=_count(totals, "storage_metrics_refused_total"),
            refused_age=_since(store.refused.at, now),
            refused_reason=store.refused.reason,
            refused_series=store.refused.names,
            pruned=_count(totals, "storage_metrics_pruned_total"),
            replaced_as=None if replaced is None else str(replaced.backup_path),
            replaced_age=_since(store.lifecycle.salvaged_at, now),
            lock=str(self.lock.path),
            locked=self.lock.held(),
        )

    def _time(self, now: float) -> TimeState:
        timekeeper = self.timekeeper
        return TimeState(
            skew_ms=timekeeper.skew,
            skew_age=_since(timekeeper.skew_at, now),
            ntp_synced=self.clocks.synchronised(),
            trusted=timekeeper.trusted,
            steps=timekeeper.steps,
        )


def _collector(job: Job, now: float, totals: Totals) -> CollectorState:
    labels = (("collector", job.name),)
    return CollectorState(
        state=job.state,
        age=_since(job.collected_at, now),
        collected=_count(totals, "collector_metrics_collected_total", labels),
        failed=_count(totals, "collector_metrics_failed_total", labels),
        reason=job.error,
        cure=job.cure,
        left_out=first_of(job.left_out, MAX_LEFT_OUT),
    )


def _count(totals: Totals, name: str, labels: Labels = ()) -> int:
    return int(totals[name, labels])


def _since(at: float | None, now: float) -> float | None:
    return None if at is None else now - at
