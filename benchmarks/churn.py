"""Memory under names that never come back: at each tick, every network interface is a new one."""

import gc
from pathlib import Path
from typing import Any
from uuid import uuid4

from belatwist.clock.sources import wall_ms
from belatwist.procfs.reader import Reader
from belatwist.store import Outcome, Settlement
from belatwist.upload.jsonl import Encoder
from benchmarks.board import collectors
from benchmarks.harness import Plan, Row, in_worker, memory, workspace
from benchmarks.stages import open_store

NAME = "churn"

INTERFACES = 31
TICKS = 200
_FIRST = 5
"""Ticks before the first look at the memory."""

_HEADER = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast"
    "|bytes    packets errs drop fifo colls carrier compressed\n"
)


def measure(plan: Plan) -> list[Row]:
    """Measure how much memory new names take that are seen for one tick each."""
    with workspace(plan) as where:
        found = in_worker(rename, None, str(where), TICKS)
    note = (
        f"{INTERFACES} new interface names a tick, {TICKS} ticks: {found['series']:.0f} series"
        f" were stored, {found['alive']:.0f} are alive"
    )
    return [
        Row(NAME, "before", found["before"], "MiB PSS", f"after {_FIRST} ticks"),
        Row(NAME, "growth", found["after"] - found["before"], "MiB PSS", note),
    ]


async def rename(reactor: Any, root: str, ticks: int) -> dict[str, float]:
    """Give every interface a new name at each tick; collect, store, encode and settle all samples.

    :param root: a directory for ``proc`` and the database.
    """
    proc = Path(root) / "proc"
    (proc / "net").mkdir(parents=True)
    collect = collectors(Reader(str(proc)), Reader(root))["network.traffic"]
    store, encoder = open_store(reactor, f"{root}/metrics.db"), Encoder()
    await store.open(str(uuid4()), wall_ms())
    start_ms, before, series = wall_ms() - ticks * 1000, 0.0, 0
    for tick in range(_FIRST + ticks):
        if tick == _FIRST:
            before = _resident()
        (proc / "net/dev").write_text(_HEADER + "".join(_line(tick, i) for i in range(INTERFACES)))
        series += await store.add(collect(start_ms + tick * 1000))
        batch = await store.fetch(1000, start_ms + tick * 1000)
        rows, _ = encoder.partition(batch.rows, batch.series)
        encoder.encode(rows, batch.series)
        if rows:
            await store.settle([Settlement(Outcome.ACCEPTED, rows, "bench", 0)], wall_ms())
    after, alive = _resident(), store.alive
    await store.close(wall_ms())
    return {"before": before, "after": after, "series": series, "alive": alive}


def _line(tick: int, number: int) -> str:
    return f"x{tick:x}n{number:x}: {' '.join(str(tick * 1000 + n) for n in range(16))}\n"


def _resident() -> float:
    gc.collect()
    return memory().pss
