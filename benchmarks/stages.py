"""CPU time of each stage alone: the real classes, in a process of their own."""

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from belatwist.clock.sources import wall_ms
from belatwist.collectors import registry
from belatwist.collectors.contract import Machine
from belatwist.config import Remote, Storage
from belatwist.errors import AbsentError, HiddenError
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from belatwist.procfs.reader import Reader
from belatwist.scheduler.service import CollectorScheduler
from belatwist.store.database import Database
from belatwist.store.sqlite import SQLiteStore
from belatwist.upload import ImportClient
from belatwist.upload.delivery import Delivery
from belatwist.upload.http.client import HTTPImportClient
from belatwist.upload.policy import Backoff
from belatwist.upload.retry import RetryChain
from belatwist.upload.service import Uploader
from belatwist.upload.wakeup import Wakeup
from benchmarks import board
from benchmarks.harness import FailedError, Plan, Row, UnavailableError, in_worker, workspace
from benchmarks.server import victoria

NAME = "cpu"
UNIT = "ms / 1,000 samples"


def measure(plan: Plan) -> list[Row]:
    """Measure collect, store and upload, each alone."""
    with workspace(plan) as where:
        tree = where / "board"
        here = in_worker(collect, None, "/", "", plan.ticks // 2)
        device = in_worker(collect, None, str(tree), str(tree), plan.ticks)
        scheduled = in_worker(schedule, None, plan.ticks)
        stored = in_worker(store, None, str(where / "store.db"), plan.ticks)
    rows = [
        Row(NAME, "collect, this machine", here["ms"], UNIT, f"{here['samples']:.0f} a tick"),
        Row(NAME, "collect, board model", device["ms"], UNIT, f"{device['samples']:.0f} a tick"),
        Row(
            NAME,
            "collect through the scheduler, this machine",
            scheduled["ms"],
            UNIT,
            "timer, thread and log included",
        ),
        Row(NAME, "store", stored["ms"], UNIT, "80 a transaction, synchronous=FULL"),
    ]
    for size, note in ((240, "10 s ticks"), (2400, "1 s ticks")):
        what = f"upload, {size:,} a request"
        try:
            with workspace(plan) as where, victoria(where) as server:
                url = f"http://127.0.0.1:{server.port}/api/v1/import"
                requests = max(plan.ticks * 80 // size, 5)
                sent = in_worker(upload, None, str(where / "upload.db"), url, size, requests)
                if server.rows() != sent["samples"]:
                    raise FailedError("the server has not counted what was sent")
            rows.append(Row(NAME, what, sent["ms"], UNIT, f"30 s uploads of {note}"))
        except UnavailableError as error:
            rows.append(Row(NAME, what, None, UNIT, str(error)))
    return rows


def open_store(reactor: Any, path: str) -> SQLiteStore:
    """Make a store as the service does by default."""
    settings = Storage()
    database = Database(
        Path(path),
        reactor,
        synchronous=settings.synchronous,
        cache_mb=settings.cache_mb,
        mmap_mb=settings.mmap_mb,
    )
    return SQLiteStore(database, telemetry=Telemetry())


def open_uploader(
    store: SQLiteStore,
    client: ImportClient,
    reactor: Any,
    *,
    interval: float,
    wall: Any = wall_ms,
    chunk: int | None = None,
) -> Uploader:
    """Make an uploader as the service does by default.

    :param chunk: samples of every batch and chunk; ``None`` takes the defaults.
    """
    remote = Remote()
    telemetry = Telemetry()
    once = Backoff(attempts=1, initial=1.0, maximum=1.0, multiplier=1.0, jitter=0.0)
    wakeup = Wakeup(reactor)
    delivery = Delivery(
        store,
        RetryChain(client, once, wakeup, reactor=reactor, random=lambda: 0.5, telemetry=telemetry),
        wakeup,
        reactor=reactor,
        clock=_TrustedClock(wall),
        fresh_every=interval,
        batch_size=chunk or remote.batch_size,
        chunk_size=chunk or remote.chunk_size,
        compression_level=remote.compression_level,
        random=lambda: 0.5,
        endpoint=client.endpoint,
        telemetry=telemetry,
    )
    return Uploader(
        delivery, client, wakeup, reactor=reactor, interval=interval, random=lambda: 1.0
    )


class _TrustedClock:
    """The benchmark's clock, which is right and never jumps."""

    steps = 0

    def __init__(self, now_ms: Any) -> None:
        self.now_ms = now_ms

    async def hold_reason(self) -> None:
        """Return no reason to hold uploads."""


async def fill(store: SQLiteStore, samples: int, *, start_ms: int, interval: float) -> int:
    """Store samples of the board model, several ticks a transaction.

    :return: the number of samples; the last tick is stored whole.
    """
    done = 0
    ticks = board.ticks(start_ms, interval)
    while done < samples:
        done += await store.add([one for tick in islice(ticks, 25) for one in tick])
    return done


async def collect(reactor: Any, root: str, moving: str, ticks: int) -> dict[str, float]:
    """Run every host collector, one after the other: read, parse, make samples.

    :param root: the directory with ``proc`` and ``sys``.
    :param moving: the directory for the board model, written before each tick; empty for the real
        files.
    """
    model = board.Board()
    if moving:
        model.write(Path(moving), everything=True)
    base = root.rstrip("/")
    sources = board.collectors(Reader(f"{base}/proc"), Reader(f"{base}/sys"))
    spent = samples = 0
    for number in range(ticks + 1):
        if moving:
            model.advance(1.0)
            model.write(Path(moving), everything=False)
        else:
            time.sleep(0.02)  # The kernel counts CPU time in hundredths of a second.
        now_ms = wall_ms()
        begun = time.process_time_ns()
        found = sum(_count(collect, now_ms) for collect in sources.values())
        if number:  # The first one knows no deltas and meets every series.
            spent += time.process_time_ns() - begun
            samples += found
    return {"ms": spent / 1e3 / samples, "samples": samples / ticks}


def _count(collect: Callable[[int], Sequence[Sample]], now_ms: int) -> int:
    try:
        return len(collect(now_ms))
    except (AbsentError, HiddenError):  # This machine may lack what another one has.
        return 0


async def schedule(reactor: Any, ticks: int) -> dict[str, float]:
    """Run every host collector through the scheduler, 50 ticks a second; discard the samples."""
    machine = Machine.of(
        "bench",
        procfs=Reader("/proc"),
        sysfs=Reader("/sys"),
        seconds=time.monotonic,
        load_reactor=lambda: reactor,
    )
    jobs = registry.build(board.METRICS, machine)
    finished: Deferred[None] = Deferred()
    counts: list[int] = []

    def sink(samples: Sequence[Sample]) -> "Deferred[int]":
        counts.append(len(samples))
        if len(counts) == ticks:
            finished.callback(None)
        return succeed(len(samples))

    scheduler = CollectorScheduler(
        [one._replace(every=0.02) for one in jobs],
        reactor=reactor,
        wall_ms=wall_ms,
        sink=sink,
        telemetry=Telemetry(),
        session_id="",
        verbose=False,
    )
    begun = time.process_time_ns()
    scheduler.startService()
    await finished
    spent = time.process_time_ns() - begun
    await scheduler.stopService()
    return {"ms": spent / 1e3 / sum(counts), "samples": sum(counts) / ticks}


async def store(reactor: Any, path: str, ticks: int) -> dict[str, float]:
    """Store ticks of the board model, one transaction each, through the store's thread."""
    database = open_store(reactor, path)
    await database.open(str(uuid4()), wall_ms())
    source = board.ticks(wall_ms() - ticks * 1000, 1.0)
    await database.add(next(source))
    made = [list(tick) for tick in islice(source, ticks)]
    begun = time.process_time_ns()
    for tick in made:
        await database.add(tick)
    spent = time.process_time_ns() - begun
    await database.close(wall_ms())
    return {"ms": spent / 1e3 / sum(map(len, made))}


async def upload(reactor: Any, path: str, url: str, size: int, requests: int) -> dict[str, float]:
    """Upload a backlog in requests of one size: fetch, encode, gzip, post, settle."""
    database = open_store(reactor, path)
    await database.open(str(uuid4()), wall_ms())
    start_ms = wall_ms() - requests * size * 200
    samples = await fill(database, requests * size, start_ms=start_ms, interval=10.0)
    client = HTTPImportClient(
        reactor,
        url,
        headers={"User-Agent": "belatwist/bench", "X-Device-ID": "bench"},
        body_headers={"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"},
        timeout=30.0,
    )
    uploader = open_uploader(database, client, reactor, interval=0.01, chunk=size)
    begun = time.process_time_ns()
    uploader.startService()
    while database.pending:
        await deferLater(reactor, 0.02)
    spent = time.process_time_ns() - begun
    await uploader.stopService()
    await database.close(wall_ms())
    return {"ms": spent / 1e3 / samples, "samples": samples}
