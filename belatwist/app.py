"""The composition root: a configuration becomes the tree of services, in their order."""

import os
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from belatwist import __version__
from belatwist.clock import Clocks, WallClock
from belatwist.collectors import table
from belatwist.collectors.scheduler import CollectorScheduler
from belatwist.collectors.selfmetrics import SelfMetrics
from belatwist.config import Config, Storage, read_token
from belatwist.errors import BelaError
from belatwist.listen import Listener
from belatwist.lockfile import ProcessLock
from belatwist.procfs.reader import Reader
from belatwist.store.intake import Intake
from belatwist.store.maintenance import Checkpointer
from belatwist.store.pruner import Pruner
from belatwist.store.sqlite import SQLiteStore
from belatwist.telemetry import Telemetry
from belatwist.timekeeper import Timekeeper
from belatwist.upload.chain import RetryChain
from belatwist.upload.client import HTTPImportClient
from belatwist.upload.delivery import Delivery
from belatwist.upload.policy import Backoff
from belatwist.upload.service import Uploader


class Agent(MultiService):
    """The whole agent. What it runs starts once the database is open, and stops before it closes.

    A plain ``MultiService`` stops all of its children at once; here each waits for the one before.

    :param session_id: a UUID for this run.
    :param lock: held as long as the agent runs.
    :param services: what runs on the store, in the order of starting and of stopping.
    :param listeners: ports to open before the database, which may take minutes.
    :param failed: called with one line when the agent cannot start.
    """

    log = Logger()

    def __init__(
        self,
        *,
        session_id: str,
        lock: ProcessLock,
        store: SQLiteStore,
        listeners: Sequence[Listener],
        services: Sequence[Service],
        wall_ms: WallClock,
        failed: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._session_id = session_id
        self._lock = lock
        self._store = store
        self._listeners = listeners
        self._wall_ms = wall_ms
        self._failed = failed
        self._starting: Deferred[None] | None = None
        for service in (*listeners, *services):
            service.setServiceParent(self)

    def startService(self) -> None:
        """Begin to start; ``failed`` is called if that comes to nothing."""
        Service.startService(self)
        self._starting = Deferred.fromCoroutine(self._start())

    def stopService(self) -> "Deferred[None]":
        """Stop everything, in order; fires when the database is closed."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        try:
            self._lock.acquire()
            self.log.info(
                "this is the only instance: process {pid} holds {lock}",
                pid=os.getpid(),
                lock=str(self._lock.path),
            )
            for listener in self._listeners:
                listener.open()
            await self._store.open(self._session_id, self._wall_ms())
        except BelaError as error:
            self._failed(str(error))
            return
        except Exception:  # noqa: BLE001 - a start that fails in any way must end in an exit, not in an idle process
            self.log.failure("cannot start")
            self._failed("cannot start: an unexpected error, see the log")
            return
        if not self.running:
            return
        self.log.info(
            "belatwist {version}: session {session_id}, database {path}, {pending} samples pending",
            version=__version__,
            session_id=self._session_id,
            path=str(self._store.path),
            pending=self._store.pending,
        )
        for service in self.services:
            service.startService()

    async def _stop(self) -> None:
        if self._starting is not None:
            self._store.interrupt()
            await self._starting
        for service in self.services:
            if service.running:
                try:
                    await maybeDeferred(service.stopService)
                except Exception:  # noqa: BLE001 - the database must be closed whatever a part does
                    self.log.failure("cannot stop {part} cleanly", part=service.name)
        try:
            completed = await self._store.close(self._wall_ms())
        finally:
            self._lock.release()
        self.log.info("stopped: session completed" if completed else "stopped")


def build(
    config: Config,
    *,
    reactor: Any,
    clocks: Clocks,
    failed: Callable[[str], None],
    listeners: Sequence[Listener] = (),
) -> Agent:
    """Make the agent that a configuration describes; nothing is opened or started yet.

    :param reactor: the reactor; its ``seconds`` must be monotonic.
    :param failed: called with one line when the agent cannot start.
    :param listeners: ports to serve besides.
    """
    path = Path(config.storage.path)
    session_id = str(uuid4())
    telemetry = Telemetry()
    store = SQLiteStore(
        path,
        reactor,
        synchronous=config.storage.synchronous,
        cache_mb=config.storage.cache_mb,
        mmap_mb=config.storage.mmap_mb,
    )
    jobs = table.build(
        config.metrics,
        device_id=config.device.id,
        procfs=Reader(config.paths.procfs),
        sysfs=Reader(config.paths.sysfs),
        rng=random.Random(),  # noqa: S311 - mock values
    )
    own = SelfMetrics(config.device.id, telemetry), config.monitoring.self_metrics_interval
    intake = Intake(store, seconds=reactor.seconds)
    client = _client(config, reactor)
    monitoring = config.monitoring
    timekeeper = Timekeeper(
        intake,
        clocks,
        reactor=reactor,
        date_of=client.date_of if config.remote.enabled else None,
        url=monitoring.clock_skew_url,
        ingest_url=client.endpoint,
        limit_ms=monitoring.clock_skew_warn_threshold_ms,
        interval=monitoring.clock_skew_check_interval,
        hold=monitoring.clock_hold,
    )
    services: list[Service] = [
        timekeeper,
        CollectorScheduler(
            [*jobs, own],
            reactor=reactor,
            wall_ms=timekeeper.now_ms,
            sink=intake.add,
            telemetry=telemetry,
            session_id=session_id,
            verbose=config.logging.level == "debug",
        ),
        intake,
    ]
    if config.remote.enabled:
        services.append(_uploader(config, store, client, timekeeper, reactor))
    services += _maintenance(config.storage, store, timekeeper, reactor)
    return Agent(
        session_id=session_id,
        lock=ProcessLock(Path(f"{path}.lock")),
        store=store,
        listeners=listeners,
        services=services,
        wall_ms=clocks.wall_ms,
        failed=failed,
    )


def _maintenance(
    storage: Storage, store: SQLiteStore, timekeeper: Timekeeper, reactor: Any
) -> tuple[Pruner, Checkpointer]:
    checkpointer = Checkpointer(
        store,
        reactor=reactor,
        interval=storage.wal_checkpoint_interval,
        limit=storage.wal_checkpoint_size_mb << 20,
    )
    pruner = Pruner(
        store,
        checkpointer,
        reactor=reactor,
        wall_ms=timekeeper.now_ms,
        keep=storage.retention.uploaded,
        limit=storage.retention.max_size_mb << 20,
    )
    return pruner, checkpointer


def _client(config: Config, reactor: Any) -> HTTPImportClient:
    remote = config.remote
    body_headers = {"Content-Type": "application/x-ndjson"}
    if remote.compression:
        body_headers["Content-Encoding"] = "gzip"
    return HTTPImportClient(
        reactor,
        remote.url,
        headers={"User-Agent": f"belatwist/{__version__}", "X-Device-ID": config.device.id},
        body_headers=body_headers,
        timeout=remote.timeout,
        token=partial(read_token, remote.auth_token_file) if remote.auth_token_file else None,
        ca_file=Path(remote.tls_ca_file) if remote.tls_ca_file else None,
    )


def _uploader(
    config: Config,
    store: SQLiteStore,
    client: HTTPImportClient,
    timekeeper: Timekeeper,
    reactor: Any,
) -> Uploader:
    remote = config.remote
    rng = random.SystemRandom()
    backoff = Backoff(
        attempts=remote.retry.max_attempts if remote.retry.enabled else 1,
        initial=remote.retry.initial_backoff,
        maximum=remote.retry.max_backoff,
        multiplier=remote.retry.backoff_multiplier,
        jitter=remote.retry.jitter_percent / 100,
    )
    delivery = Delivery(
        store,
        RetryChain(client, backoff, reactor=reactor, random=rng.random),
        reactor=reactor,
        clock=timekeeper,
        fresh_every=remote.upload_interval,
        batch_size=remote.batch_size,
        chunk_size=remote.chunk_size,
        compression_level=remote.compression_level if remote.compression else None,
        random=rng.random,
        endpoint=client.endpoint,
    )
    return Uploader(delivery, client, reactor=reactor, interval=remote.upload_interval)
