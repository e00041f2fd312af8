"""Wear: the bytes that the real store, uploader and maintenance write to the card in a day.

Time is simulated, so that a day takes a minute or two. Everything happens in the order of its time.
There is a tick of 80 samples every 10 s, an upload every 30 s to a server that accepts everything,
and the agent's own metrics every two minutes. The write-ahead log is emptied hourly, and samples
older than a day are deleted.

The database's thread and the block device under ext4 are real. The kernel's timers run on real
time, so the benchmark requests what they would write (see :class:`_Kernel`).

``python -m benchmarks.wear --day`` measures the second day, in which a day is deleted as well.
"""

import argparse
import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, LoopingCall

from belatwist.clock.sources import wall_ms
from belatwist.collectors import selfmetrics
from belatwist.collectors.contract import EnabledSource, Source
from belatwist.collectors.registry import HOST
from belatwist.config import Remote, Storage
from belatwist.config.schema import Monitoring
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from belatwist.scheduler.service import CollectorScheduler
from belatwist.store.buffer import WriteBuffer
from belatwist.store.checkpointer import Checkpointer
from belatwist.store.database import Database
from belatwist.store.pruner import Pruner
from belatwist.store.sqlite import SQLiteStore
from belatwist.upload.policy import Accepted, SendResult
from benchmarks import board, report
from benchmarks.flash import loop_device
from benchmarks.harness import Plan, Row, UnavailableError, in_worker, workspace, written_bytes
from benchmarks.stages import open_uploader

NAME = "wear"
INTERVAL = 10.0
DAY = 24 * 3600.0

_MEMORY = Path("/dev/shm")

_COMMIT = 5.0
"""Seconds after which ext4 commits its journal unasked (ext4(5), commit=)."""

_REST = 24.9
"""Seconds after a full hour at which everything is idle, and the next tick is 5 s away."""

_EXPIRE = 30.0
"""Seconds after which the kernel writes a page by itself (vm.dirty_expire_centisecs)."""


def measure(plan: Plan) -> list[Row]:
    """Run some hours of the first day, in which nothing is old enough to be deleted."""
    hours = max(plan.samples // 30_000, 1)
    note = f"the first {hours} hours of a day, simulated"
    return _rows(plan, "full", note, before=0.0, seconds=hours * 3600.0)


def _rows(plan: Plan, synchronous: str, note: str, *, before: float, seconds: float) -> list[Row]:
    # What a loop device counts does not depend on where its file is, and memory is not worn.
    if plan.directory is None and _MEMORY.is_dir():
        plan = replace(plan, directory=_MEMORY)
    with workspace(plan) as where, loop_device(where) as (mounted, device):
        found = in_worker(
            live, None, str(mounted / "db"), device,
            before=before, seconds=seconds, synchronous=synchronous,
        )  # fmt: skip
    days, samples = seconds / DAY, found["samples"]
    how = f"synchronous={synchronous}, {note}"
    many = f"{samples:,.0f} stored, {found['deleted']:,.0f} deleted"
    return [
        Row(NAME, "written, journal included", found["device"] / days / 1e6, "MB / day", how),
        Row(NAME, "written, journal included", found["device"] / samples, "bytes / sample", many),
        Row(NAME, "written by the process", found["process"] / samples, "bytes / sample", ""),
        Row(NAME, "writes", found["requests"] / seconds * INTERVAL, "requests / tick", ""),
        Row(NAME, "file, at the end", found["file"] / 2**20, "MiB", f"{found['log']:,.0f} B log"),
    ]


class Simulated:
    """A reactor with real threads and simulated time, which passes while all threads are idle."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._clock = Clock()
        self._calls = 0
        self.seconds = self._clock.seconds
        self.callLater = self._clock.callLater

    def __getattr__(self, name: str) -> Any:
        """Return every other attribute of the reactor."""
        return getattr(self._reactor, name)

    def callFromThread(self, function: Callable[..., object], *args: Any, **named: Any) -> None:
        """Call from a thread as the reactor does, and count the call once it is done."""

        def call() -> None:
            self._calls += 1
            function(*args, **named)

        self._reactor.callFromThread(call)

    async def run(self, until: float, store: SQLiteStore) -> None:
        """Let time pass from one timer to the next, while the database is idle."""
        while True:
            await self._rest(store)
            due = min((one.getTime() for one in self._clock.getDelayedCalls()), default=until)
            if due >= until:
                self._clock.advance(max(until - self.seconds(), 0.0))
                await self._rest(store)
                return
            self._clock.advance(max(due - self.seconds(), 0.0))

    async def _rest(self, store: SQLiteStore) -> None:
        while True:
            before = self._calls
            await store.database.ping()
            if self._calls == before + 1:  # Nothing has come back but the answer itself.
                return


class _Board:
    """All host collectors on the board model, as a single collector."""

    def __init__(self, start_ms: int) -> None:
        self._ticks = board.ticks(start_ms, INTERVAL)

    def collect(self, now_ms: int) -> Sequence[Sample]:
        return next(self._ticks)


_SOURCE = Source("board.model", INTERVAL, lambda *_: _Board(0), tuple(HOST.values()))


class _AcceptingClient:
    """A client whose server accepts everything."""

    endpoint = "nowhere"

    def post(self, body: bytes) -> "Deferred[SendResult]":
        return succeed(Accepted(204))

    def close(self) -> "Deferred[None]":
        return succeed(None)


class _Kernel:
    """Writes what the kernel would write by itself, on simulated time.

    A flush of the database's files writes their pages, and the journal only where a size has
    changed. With the times of the files, the journal follows five seconds later. Pages that nobody
    flushes follow once they are 30 s old, also those that the journal refers to.

    :param database: the database, whose write-ahead log exists.
    :param flushed: whether every page of the log is flushed.
    """

    def __init__(self, database: Path, reactor: Any, *, flushed: bool) -> None:
        self._libc = ctypes.CDLL(None)
        self._folder = os.open(database.parent, os.O_RDONLY)
        self._log = os.open(f"{database}-wal", os.O_RDONLY)
        self._empty = os.open(database.with_name("empty"), os.O_RDWR | os.O_CREAT)
        commit = (_COMMIT, self._flush_log) if flushed else (INTERVAL, self._flush_nothing)
        self._loops = []
        for seconds, work in (commit, (_EXPIRE, self._flush_all)):
            loop = LoopingCall(work)
            loop.clock = reactor
            loop.start(seconds, now=False)
            self._loops.append(loop)

    def close(self) -> None:
        for loop in self._loops:
            loop.stop()
        for one in (self._folder, self._log, self._empty):
            os.close(one)

    def _flush_log(self) -> None:
        """Commit the journal if the log's times have changed; there is no data to write."""
        os.fsync(self._log)

    def _flush_nothing(self) -> None:
        """Commit the journal, and leave the log's data: its times have changed with every tick.

        The times of an empty file are changed for that; they share a block with those of the log.
        """
        os.utime(self._empty)
        os.fsync(self._empty)

    def _flush_all(self) -> None:
        self._libc.syncfs(self._folder)


def _counters(device: str) -> dict[str, int]:
    """Sync, and read the bytes written so far (Documentation/block/stat.rst)."""
    os.sync()
    text = Path(f"/sys/block/{device}/stat").read_text() if device else "0 " * 7
    stat = [int(word) for word in text.split()]
    return {"requests": stat[4], "device": stat[6] * 512, "process": written_bytes()}


async def live(
    reactor: Any, path: str, device: str, *, before: float, seconds: float, synchronous: str
) -> dict[str, float]:
    """Run the agent's parts for some simulated time.

    :param device: the block device to watch.
    :param before: seconds before the counting begins.
    :param seconds: seconds of the counting.
    """
    time: Any = Simulated(reactor)
    start_ms = wall_ms() - round(30 * DAY * 1000)
    settings, telemetry = Storage(), Telemetry()
    stored = 0

    def now_ms() -> int:
        passed: float = time.seconds()
        return start_ms + round(passed * 1000)

    def pruned() -> float:
        return telemetry.registry.get_sample_value("storage_metrics_pruned_total") or 0.0

    def sink(samples: Sequence[Sample]) -> "Deferred[int]":
        nonlocal stored
        stored += len(samples)
        return buffer.add(samples)

    database = Database(
        Path(path),
        time,
        synchronous=synchronous,
        cache_mb=settings.cache_mb,
        mmap_mb=settings.mmap_mb,
    )
    store = SQLiteStore(database, telemetry=telemetry)
    buffer = WriteBuffer(store, seconds=time.seconds, telemetry=telemetry)
    scheduler = CollectorScheduler(
        [
            EnabledSource(_SOURCE, _Board(start_ms), INTERVAL),
            selfmetrics.enabled("bench", telemetry, Monitoring().self_metrics_interval),
        ],
        reactor=time,
        wall_ms=now_ms,
        sink=sink,
        telemetry=telemetry,
        session_id="",
        verbose=False,
        in_thread=lambda work: work(),
    )
    checkpointer = Checkpointer(
        database,
        reactor=time,
        interval=settings.wal_checkpoint_interval,
        limit=settings.wal_checkpoint_size_mb << 20,
    )
    pruner = Pruner(
        store,
        checkpointer,
        reactor=time,
        wall_ms=now_ms,
        keep=settings.retention.uploaded,
        limit=settings.retention.max_size_mb << 20,
        delivering=True,
        telemetry=telemetry,
    )
    await store.open(str(uuid4()), now_ms())
    every = Remote().upload_interval
    uploader = open_uploader(store, _AcceptingClient(), time, interval=every, wall=now_ms)
    services = (scheduler, buffer, uploader, pruner, checkpointer)
    for service in services:
        service.startService()
    await time.run(_REST, store)  # Between two ticks, from where the kernel counts.
    kernel = _Kernel(Path(path), time, flushed=synchronous == "full")
    await time.run(before + _REST, store)
    begin = _counters(device)
    counted, deleted = stored, pruned()
    await time.run(before + seconds + _REST, store)
    spent = {name: value - begin[name] for name, value in _counters(device).items()}
    found = {
        "samples": stored - counted,
        "deleted": pruned() - deleted,
        **spent,
        "file": store.database.database_bytes,
        "log": store.database.wal_bytes,
        "pending": store.pending,
    }
    kernel.close()
    for service in services:
        await service.stopService()
    await store.close(now_ms())
    return found


def main() -> None:
    """Measure and print, for ``full`` and ``normal``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wear", description=__doc__)
    parser.add_argument("--day", action="store_true", help="a whole day, after one that fills it")
    parser.add_argument("--directory", type=Path, help="where the disk is made")
    options = parser.parse_args()
    plan = Plan(directory=options.directory)
    before, seconds, note = (
        (DAY, DAY, "the second day") if options.day else (0.0, 3600.0, "an hour")
    )
    rows: list[Row] = []
    for synchronous in ("full", "normal"):
        try:
            rows += _rows(plan, synchronous, note, before=before, seconds=seconds)
        except UnavailableError as error:
            rows.append(Row(NAME, f"synchronous={synchronous}", None, "", str(error)))
    print(report.text(report.machine(), rows))


if __name__ == "__main__":
    # By its name, which the worker imports it by.
    import_module("benchmarks.wear").main()
