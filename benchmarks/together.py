"""The whole service as a process, at its own pace: CPU, wire, flash and memory in the long run."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.agent import agent, config
from benchmarks.board import Board
from benchmarks.harness import (
    FailedError,
    Memory,
    Plan,
    Row,
    cpu_seconds,
    filesystem,
    memory,
    wait_until,
    workspace,
    written_bytes,
)
from benchmarks.server import Victoria, proxy, victoria

NAME = "together"
_INTERVALS = (1.0, 10.0)


@dataclass(frozen=True, slots=True)
class _Case:
    """One service to watch.

    :ivar root: the directory with its ``proc`` and ``sys``.
    """

    machine: str
    root: Path
    interval: float


@dataclass(frozen=True, slots=True)
class _Found:
    samples: int
    ticks: float
    cpu: float
    wire: int
    written: int
    memory: Memory


def measure(plan: Plan) -> list[Row]:
    """Watch two services at once, on this machine and on the board model; 1 s, then 10 s ticks.

    Each service needs about a hundredth of a core and has its own counters. Two do not disturb each
    other measurably; of four, each would cost a fifth more.
    """
    cases: list[_Case] = []
    found: list[_Found] = []
    with workspace(plan) as where:
        board = where / "board"
        with victoria(where) as server, Board().moving(board, period=0.4):
            for interval in _INTERVALS:
                pair = [
                    _Case("this machine", Path("/"), interval),
                    _Case("board model", board, interval),
                ]
                cases += pair
                found += _watch_all(pair, where, plan, server)
            # At each end an upload may be half of the way.
            if server.rows() < sum(one.samples for one in found):
                raise FailedError("the server has counted fewer samples than were stored")
        kind = filesystem(where)
    rows = []
    for case, one in zip(cases, found, strict=True):
        at = f"{case.machine}, {case.interval:g} s"
        note = f"{one.samples / one.ticks:.0f} a tick, {one.samples} in {plan.window:.0f} s"
        written = None if kind == "tmpfs" else one.written / one.samples
        rows += [
            Row(NAME, f"CPU, {at}", one.cpu * 1e6 / one.samples, "ms / 1,000 samples", note),
            Row(NAME, f"wire, {at}", one.wire / one.samples, "bytes / sample", "headers included"),
            Row(NAME, f"written, {at}", written, "bytes / sample", f"{kind}, hardly a checkpoint"),
            Row(NAME, f"memory, {at}", one.memory.pss, "MiB PSS", f"RSS {one.memory.rss:.1f} MiB"),
        ]
    return rows


def _watch_all(cases: Sequence[_Case], where: Path, plan: Plan, server: Victoria) -> list[_Found]:
    ended = threading.Event()
    with ThreadPoolExecutor(len(cases)) as pool:
        running = []
        for case in cases:
            name = f"{case.machine}-{case.interval:g}".replace(" ", "-")
            running.append(pool.submit(_watch, case, where / name, plan, server, name, ended))
            ended.wait(0.47)  # Ticks of one service do not fall on those of another.
        try:
            return [one.result() for one in running]
        finally:
            ended.set()  # Where one has failed, or Ctrl-C came, the others end as well.


def _watch(
    case: _Case, where: Path, plan: Plan, server: Victoria, device: str, ended: threading.Event
) -> _Found:
    """Run a service until its start is over, and then watch it for a whole number of uploads."""
    with proxy(server) as wire:
        configuration = config(
            where,
            interval=case.interval,
            url=wire.url,
            upload_interval=plan.upload_interval,
            root=case.root,
            device=device,
        )
        with agent(where, configuration) as running:
            wait_until(
                lambda: running.ask("SELECT 1 FROM samples LIMIT 1") == 1,
                seconds=20,
                what="the first sample",
            )
            first_ms = running.ask("SELECT min(timestamp_ms) FROM samples")
            # Half a tick after the first upload: no tick and no upload is near either end. The
            # first one meets every series and opens the connection, and before it is done the
            # interpreter has looked for garbage among all that the imports have made.
            begin_ms = first_ms + (plan.upload_interval + case.interval / 2) * 1000
            end_ms = begin_ms + plan.window * 1000
            ended.wait(begin_ms / 1000 - time.time())
            cpu, sent = cpu_seconds(running.pid), wire.bytes
            written = written_bytes(running.pid)
            ended.wait(end_ms / 1000 - time.time())
            cpu, sent = cpu_seconds(running.pid) - cpu, wire.bytes - sent
            written = written_bytes(running.pid) - written
            if ended.is_set():
                raise FailedError("given up")
            return _Found(
                samples=running.stored(int(begin_ms), int(end_ms)),
                ticks=plan.window / case.interval,
                cpu=cpu,
                wire=sent,
                written=written,
                memory=memory(running.pid),
            )
