"""The cost of deletion: bytes written, and how long collection and the reactor wait."""

import time
from itertools import pairwise
from typing import Any
from uuid import uuid4

from twisted.internet.task import LoopingCall, deferLater

from belatwist.clock.sources import wall_ms
from belatwist.metrics.telemetry import Telemetry
from belatwist.store import Outcome, Settlement
from belatwist.store.checkpointer import Checkpointer
from belatwist.store.pruner import Pruner
from belatwist.store.sql.schema import PAGE_SIZE
from benchmarks import board
from benchmarks.harness import Plan, Row, filesystem, in_worker, workspace, written_bytes
from benchmarks.stages import fill, open_store

NAME = "retention"


def measure(plan: Plan) -> list[Row]:
    """Delete most stored samples, once alone and once while samples are added."""
    with workspace(plan) as where:
        alone = in_worker(prune, None, str(where / "alone.db"), plan.samples, 0.0)
        busy = in_worker(prune, None, str(where / "busy.db"), plan.samples, 0.02)
        kind = filesystem(where)
    note = f"{alone['deleted']:,.0f} settled samples, on {kind}"
    during = "a tick of 80 every 20 ms during the deletion"
    written = None if kind == "tmpfs" else alone["written"] / alone["deleted"]
    return [
        Row(NAME, "written for a deletion", written, "bytes / sample", f"{note}, file shrunk"),
        Row(NAME, "file, before", alone["before"] / 2**20, "MiB", note),
        Row(NAME, "file, after", alone["after"] / 2**20, "MiB", "the limit is 1 MiB"),
        Row(NAME, "adding a tick, longest", busy["longest"], "ms", during),
        Row(
            NAME, "adding a tick, longest without", busy["idle"], "ms", "the same, nothing deleted"
        ),
        Row(NAME, "reactor's longest turn", busy["turn"], "ms", during),
        Row(NAME, "checkpoint", busy["checkpoint"], "ms", "the last one, TRUNCATE"),
    ]


async def prune(reactor: Any, path: str, samples: int, interval: float) -> dict[str, float]:
    """Store, settle and delete samples, and add others meanwhile.

    :param interval: seconds between two ticks that are added; 0 adds none.
    """
    store = open_store(reactor, path)
    await store.open(str(uuid4()), wall_ms())
    stored = await fill(store, samples, start_ms=wall_ms() - samples * 200, interval=10.0)
    while store.pending:
        batch = await store.fetch(2500, wall_ms())
        await store.settle([Settlement(Outcome.ACCEPTED, batch.rows, "", 0)], wall_ms())
    await store.database.checkpoint()
    ticks = board.ticks(wall_ms(), 0.1)
    waits: list[float] = []
    turns: list[float] = []

    async def add() -> None:
        begun = time.monotonic()
        await store.add(next(ticks))
        waits.append(time.monotonic() - begun)
        await deferLater(reactor, interval)

    turning = LoopingCall(lambda: turns.append(time.monotonic()))
    turning.clock = reactor
    if interval:
        for _ in range(200):
            await add()
    idle, waits[:] = max(waits, default=0.0), []
    checkpointer = Checkpointer(store.database, reactor=reactor, interval=3600.0, limit=1 << 40)
    telemetry = Telemetry()
    pruner = Pruner(
        store,
        checkpointer,
        reactor=reactor,
        wall_ms=wall_ms,
        keep=86400.0,
        limit=1 << 20,
        delivering=True,
        telemetry=telemetry,
    )

    def pruned() -> float:
        return telemetry.registry.get_sample_value("storage_metrics_pruned_total") or 0.0

    written = written_bytes()
    before = (await store.database.transact(_size)) + store.database.wal_bytes
    turning.start(0.001)
    pruner.startService()
    while not pruned() or (await store.database.transact(_size)) > 1 << 20:
        await (add() if interval else deferLater(reactor, 0.02))
        if pruned() and interval:
            break  # What is added meanwhile is pending, and fills it again.
    await pruner.stopService()
    turning.stop()
    await checkpointer.stopService()
    written = written_bytes() - written
    after = await store.database.transact(_size)
    await store.close(wall_ms())
    last = checkpointer.last
    return {
        "stored": stored,
        "deleted": pruned(),
        "written": written,
        "before": before,
        "after": after,
        "idle": idle * 1000,
        "longest": max(waits, default=0.0) * 1000,
        "turn": max((b - a for a, b in pairwise(turns)), default=0.0) * 1000,
        "checkpoint": last.duration_ms if last else 0.0,
    }


def _size(cursor: Any) -> int:
    return int(cursor.execute("PRAGMA page_count").fetchone()[0]) * PAGE_SIZE
