"""The composition root: a configuration becomes the tree of services, in their order."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.application.service import Service

from belatwist import __version__
from belatwist.agent import Agent
from belatwist.clock.sources import Clocks
from belatwist.clock.timekeeper import Timekeeper
from belatwist.collectors import registry, selfmetrics
from belatwist.collectors.contract import Machine
from belatwist.config import Config, Health, Remote, Storage, read_token
from belatwist.health.builder import AgentParts
from belatwist.health.status import judge, summary
from belatwist.metrics.exposition import exposition
from belatwist.metrics.telemetry import Telemetry
from belatwist.procfs.reader import Reader
from belatwist.runtime.listener import Listener
from belatwist.runtime.lockfile import ProcessLock
from belatwist.runtime.sd_notify import Notifier
from belatwist.runtime.watchdog import RecencyCheck, ResponsivenessCheck, Watchdog
from belatwist.scheduler.service import CollectorScheduler
from belatwist.store.alive import ALIVE_FOR
from belatwist.store.buffer import WriteBuffer
from belatwist.store.checkpointer import Checkpointer
from belatwist.store.database import Database
from belatwist.store.pruner import Pruner
from belatwist.store.sqlite import SQLiteStore
from belatwist.upload.delivery import Delivery
from belatwist.upload.http.client import HTTPImportClient
from belatwist.upload.http.reconnect import ReconnectProbe
from belatwist.upload.policy import Backoff
from belatwist.upload.retry import RetryChain
from belatwist.upload.service import Uploader
from belatwist.upload.wakeup import Wakeup


def build(
    config: Config,
    *,
    reactor: Any,
    clocks: Clocks,
    notifier: Notifier,
    failed: Callable[[str], None],
    listeners: Sequence[Listener] = (),
) -> Agent:
    """Make the agent that a configuration describes; nothing is opened or started yet.

    :param reactor: the reactor; its ``seconds`` must be monotonic.
    :param notifier: reports to systemd.
    :param failed: called with the reason, one line, when the agent cannot start.
    :param listeners: further ports to serve.
    """
    session_id = str(uuid4())
    telemetry = Telemetry()
    sources = registry.build(config.metrics, _machine(config, reactor))
    own = selfmetrics.enabled(config.device.id, telemetry, config.monitoring.self_metrics_interval)
    store = SQLiteStore(
        _database(config.storage, reactor),
        telemetry=telemetry,
        max_series=config.storage.max_series,
        # A series that is stored once an interval is alive all the time.
        alive_for=max(ALIVE_FOR, *(2 * one.every for one in (*sources, own))),
    )
    buffer = WriteBuffer(store, seconds=reactor.seconds, telemetry=telemetry)
    client = _client(config, reactor)
    timekeeper = _timekeeper(config, buffer, clocks, client, reactor=reactor, telemetry=telemetry)
    scheduler = CollectorScheduler(
        [*sources, own],
        reactor=reactor,
        wall_ms=timekeeper.now_ms,
        sink=buffer.add,
        telemetry=telemetry,
        session_id=session_id,
        verbose=config.logging.level == "debug",
    )
    wakeup = Wakeup(reactor)
    delivery = _delivery(
        config, store, client, wakeup, timekeeper, reactor=reactor, telemetry=telemetry
    )
    uploads = _uploads(config.remote, delivery, client, wakeup, reactor)
    pruner, checkpointer = _maintenance(
        config.storage,
        store,
        timekeeper,
        reactor=reactor,
        telemetry=telemetry,
        delivering=config.remote.enabled,
    )
    lock = ProcessLock(Path(f"{config.storage.path}.lock"))
    parts = AgentParts(
        device_id=config.device.id,
        session_id=session_id,
        started=reactor.seconds(),
        reactor=reactor,
        clocks=clocks,
        collectors=frozenset(enabled.source.name for enabled in sources),
        endpoint=client.endpoint,
        telemetry=telemetry,
        lock=lock,
        scheduler=scheduler,
        store=store,
        buffer=buffer,
        checkpointer=checkpointer,
        pruner=pruner,
        progress=delivery.progress if config.remote.enabled else None,
        timekeeper=timekeeper,
    )
    _register_gauges(parts)
    if config.health.enabled:
        listeners = [_health_listener(config.health, parts, reactor), *listeners]
    watchdog = _watchdog(config.health, parts, notifier)
    return Agent(
        session_id=session_id,
        lock=lock,
        store=store,
        listeners=listeners,
        services=[watchdog, timekeeper, scheduler, buffer, *uploads, pruner, checkpointer],
        notifier=notifier,
        reactor=reactor,
        wall_ms=clocks.wall_ms,
        failed=failed,
    )


def _register_gauges(parts: AgentParts) -> None:
    """Let the gauges read the parts that have their values."""
    store, checkpointer, watch = parts.store, parts.checkpointer, parts.telemetry.watch
    watch("storage.database_size_bytes", lambda: store.database.database_bytes)
    watch("storage.wal_size_bytes", lambda: store.database.wal_bytes)
    watch(
        "storage.metrics_pending_upload", lambda: None if store.database.opening else store.pending
    )
    watch(
        "storage.wal_checkpoint_duration_ms",
        lambda: None if checkpointer.last is None else checkpointer.last.duration_ms,
    )
    watch(
        "storage.wal_bytes_reclaimed",
        lambda: None if checkpointer.last is None else checkpointer.last.bytes_reclaimed,
    )
    watch("time.skew_ms", lambda: parts.timekeeper.skew)


def _health_listener(health: Health, parts: AgentParts, reactor: Any) -> Listener:
    # Imported late: Klein takes several megabytes.
    from belatwist.web.endpoints import Endpoint, site
    from belatwist.web.page.resource import Page

    def metrics() -> bytes:
        return exposition(parts.telemetry.registry, parts.samples(), registry.HOST)

    page = Page(reactor, parts.store.database, parts.samples)
    endpoint = Endpoint(parts.snapshot, health, metrics, page)
    return Listener(reactor, health.host, health.port, site(endpoint, reactor), "health")


def _watchdog(health: Health, parts: AgentParts, notifier: Notifier) -> Watchdog:
    """Make the watchdog, with its checks of the database and the collectors."""
    reactor, database = parts.reactor, parts.store.database
    limit = 0.75 * (notifier.watchdog or 0.0)
    checks: list[Callable[[], str | None]] = [
        ResponsivenessCheck(
            database.ping, reactor=reactor, limit=limit, progress=database.progress
        ),
        RecencyCheck(parts.last_runs, reactor=reactor, minimum=limit),
    ]

    def status() -> str:
        snapshot = parts.snapshot()
        return summary(snapshot, judge(snapshot, health))

    return Watchdog(notifier, reactor=reactor, checks=checks, status=status)


def _maintenance(
    storage: Storage,
    store: SQLiteStore,
    timekeeper: Timekeeper,
    *,
    reactor: Any,
    telemetry: Telemetry,
    delivering: bool,
) -> tuple[Pruner, Checkpointer]:
    checkpointer = Checkpointer(
        store.database,
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
        delivering=delivering,
        limit=storage.retention.max_size_mb << 20,
        telemetry=telemetry,
    )
    return pruner, checkpointer


def _database(storage: Storage, reactor: Any) -> Database:
    return Database(
        Path(storage.path),
        reactor,
        synchronous=storage.synchronous,
        cache_mb=storage.cache_mb,
        mmap_mb=storage.mmap_mb,
    )


def _machine(config: Config, reactor: Any) -> Machine:
    return Machine.of(
        config.device.id,
        procfs=Reader(config.paths.procfs),
        sysfs=Reader(config.paths.sysfs),
        seconds=reactor.seconds,
        load_reactor=lambda: reactor,
        ca_file=config.remote.tls_ca_file,
    )


def _timekeeper(
    config: Config,
    buffer: WriteBuffer,
    clocks: Clocks,
    client: HTTPImportClient,
    *,
    reactor: Any,
    telemetry: Telemetry,
) -> Timekeeper:
    monitoring = config.monitoring
    return Timekeeper(
        buffer,
        clocks,
        reactor=reactor,
        date_of=client.date_of if config.remote.enabled else None,
        url=monitoring.clock_skew_url,
        ingest_url=client.endpoint,
        limit_ms=monitoring.clock_skew_warn_threshold_ms,
        interval=monitoring.clock_skew_check_interval,
        hold=monitoring.clock_hold,
        telemetry=telemetry,
    )


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


def _delivery(
    config: Config,
    store: SQLiteStore,
    client: HTTPImportClient,
    wakeup: Wakeup,
    timekeeper: Timekeeper,
    *,
    reactor: Any,
    telemetry: Telemetry,
) -> Delivery:
    remote = config.remote
    rng = random.SystemRandom()
    backoff = Backoff(
        attempts=remote.retry.max_attempts if remote.retry.enabled else 1,
        initial=remote.retry.initial_backoff,
        maximum=remote.retry.max_backoff,
        multiplier=remote.retry.backoff_multiplier,
        jitter=remote.retry.jitter_percent / 100,
    )
    return Delivery(
        store,
        RetryChain(
            client, backoff, wakeup, reactor=reactor, random=rng.random, telemetry=telemetry
        ),
        wakeup,
        reactor=reactor,
        clock=timekeeper,
        fresh_every=remote.upload_interval,
        batch_size=remote.batch_size,
        chunk_size=remote.chunk_size,
        compression_level=remote.compression_level if remote.compression else None,
        random=rng.random,
        endpoint=client.endpoint,
        telemetry=telemetry,
    )


def _uploads(
    remote: Remote, delivery: Delivery, client: HTTPImportClient, wakeup: Wakeup, reactor: Any
) -> list[Service]:
    """Make the services that upload; none if the configuration switches uploads off."""
    if not remote.enabled:
        return []
    rng = random.SystemRandom()
    uploader = Uploader(
        delivery,
        client,
        wakeup,
        reactor=reactor,
        interval=remote.upload_interval,
        random=rng.random,
    )
    reconnect_probe = ReconnectProbe(
        client.probe,
        reactor=reactor,
        interval=remote.reconnect_interval,
        random=rng.random,
        reached=wakeup.ring,
    )
    client.watch(reconnect_probe.connection_attempted)
    return [reconnect_probe, uploader]
