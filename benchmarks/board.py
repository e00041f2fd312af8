"""A model of the device: the RK3588 board of the test fixtures, with its counters moving.

The fixtures hold the board's ``/proc`` and ``/sys`` at two moments, ten seconds apart. The model
continues from there: counters rise by a random 0 to 2 times their rise in those ten seconds, and
gauges move to a random place between the two. So every tick finds new numbers. They are about as
predictable as those of a real board, and the size of a compressed upload depends on that.
"""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from belatwist.cli.reactor import load_reactor
from belatwist.collectors import registry
from belatwist.collectors.contract import Machine
from belatwist.collectors.disk import DiskIOOptions
from belatwist.config import default_entries
from belatwist.errors import ReadError
from belatwist.model import Sample
from belatwist.procfs.reader import MissingError, Reader
from benchmarks.harness import ROOT

METRICS = tuple(
    msgspec.structs.replace(
        metric, config=DiskIOOptions(allowed_devices=r"sd[a-z]+|nvme\d+n\d+|mmcblk\d+|x?vd[a-z]+")
    )
    if metric.name == "disk.io"
    else metric
    for metric in default_entries(registry.SOURCES)
    if metric.name != "filesystem.usage"
)
"""The host collectors as shipped, with the disks of virtual machines as well.

Without ``filesystem.usage``: it runs once a minute, and would measure the file systems of the
machine that runs the benchmark. So every version's figures are those of the same 80 samples.
"""

_FIXTURES = ROOT / "tests" / "fixtures"
_STEP = 10.0
_NUMBER = re.compile(rb"(\d+(?:\.\d+)?)")
_GAUGES = ("loadavg", "meminfo", "temp")


class _File:
    """A file whose numbers change.

    :param before: the text at the first moment.
    :param after: the same ten seconds later; it has as many numbers.
    """

    def __init__(self, path: Path, before: bytes, after: bytes) -> None:
        self._pieces = _NUMBER.split(before)
        pairs = zip(self._pieces[1::2], _NUMBER.findall(after), strict=True)
        self._decimals = {
            2 * i + 1: len(a.partition(b".")[2]) for i, (a, b) in enumerate(pairs) if a != b
        }
        later = _NUMBER.split(after)
        self._first = {i: float(self._pieces[i]) for i in self._decimals}
        self._rise = {i: float(later[i]) - self._first[i] for i in self._decimals}
        self._now = dict(self._first)
        self._gauge = path.name in _GAUGES
        self._exact = path.name == "uptime"
        self.moves = bool(self._decimals)

    def advance(self, seconds: float, rng: random.Random) -> None:
        for i, rise in self._rise.items():
            if self._gauge:
                self._now[i] = self._first[i] + rise * rng.random()
            else:
                share = 1.0 if self._exact else 2 * rng.random()
                self._now[i] += max(rise, 0.0) * share * seconds / _STEP

    def text(self) -> bytes:
        pieces = list(self._pieces)
        for i, decimals in self._decimals.items():
            value = self._now[i]
            pieces[i] = b"%.*f" % (decimals, value) if decimals else b"%d" % value
        return b"".join(pieces)


class Board:
    """The board with changing numbers.

    :ivar files: its files by their path relative to the tree (``proc/stat``).
    """

    def __init__(self, seed: int = 1) -> None:
        before, after = _FIXTURES / "orangepi5plus", _FIXTURES / "orangepi5plus-t10"
        self._rng = random.Random(seed)
        self.files = {
            str(path.relative_to(before)): _File(
                path, path.read_bytes(), (after / path.relative_to(before)).read_bytes()
            )
            # The second pattern follows links, as the kernel's own tree has them.
            for path in sorted({*before.rglob("*"), *before.glob("sys/class/net/*/device/*")})
            if path.is_file()
        }
        self._links = {
            str(path.relative_to(before)): path.readlink()
            for path in before.glob("sys/class/net/*/device")
        }

    def advance(self, seconds: float) -> None:
        """Change the numbers for the next tick."""
        for file in self.files.values():
            if file.moves:
                file.advance(seconds, self._rng)

    def write(self, root: Path, *, everything: bool) -> None:
        """Write each file atomically, so that no reader sees a part of it.

        :param everything: write also the files that never change.
        """
        for name, target in self._links.items() if everything else ():
            link = root / name
            (link.parent / target).resolve().mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(target)
        for name, file in self.files.items():
            if everything or file.moves:
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                new = path.with_name(path.name + ".new")
                new.write_bytes(file.text())
                new.replace(path)

    @contextmanager
    def moving(self, root: Path, *, period: float) -> Iterator[None]:
        """Write the files and change them periodically, on a thread of this process."""
        self.write(root, everything=True)
        ended = threading.Event()

        def move() -> None:
            while not ended.wait(period):
                self.advance(period)
                self.write(root, everything=False)

        thread = threading.Thread(target=move, name="board")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _BoardReader(Reader):
    """Reads the board without a file."""

    def __init__(self, board: Board, half: str) -> None:
        super().__init__("/nowhere")
        self._board = board
        self._half = half

    def read(self, path: str) -> bytes:
        file = self._board.files.get(f"{self._half}/{path}")
        if file is None:
            raise MissingError(f"{path}: No such file or directory (ENOENT)", "ENOENT")
        return file.text()

    def entries(self, path: str) -> dict[str, int]:
        prefix = f"{self._half}/{path}/"
        names = (name for name in self._board.files if name.startswith(prefix))
        return {name[len(prefix) :].partition("/")[0]: 1 for name in names}

    def link(self, path: str) -> str:
        # The board keeps what is behind a link, and not where it led.
        kind = ReadError if self.entries(path) else MissingError
        raise kind(f"{path}: no link", "EINVAL")


def collectors(procfs: Reader, sysfs: Reader) -> dict[str, Callable[[int], Any]]:
    """Make all host collectors, as the service does: by their names, what runs each."""
    machine = Machine.of(
        "bench",
        procfs=procfs,
        sysfs=sysfs,
        seconds=time.monotonic,
        load_reactor=load_reactor,
    )
    return {one.source.name: one.collector.collect for one in registry.build(METRICS, machine)}


def ticks(start_ms: int, interval: float) -> Iterator[Sequence[Sample]]:
    """Collect from a board in memory, for ever; about 80 samples a tick.

    :param start_ms: the first tick's time.
    :param interval: seconds between ticks.
    """
    board = Board()
    sources = collectors(_BoardReader(board, "proc"), _BoardReader(board, "sys"))
    for collect in sources.values():
        collect(start_ms)
    number = 0
    while True:
        board.advance(interval)
        now_ms = start_ms + round(number * interval * 1000)
        yield [one for collect in sources.values() for one in collect(now_ms)]
        number += 1
