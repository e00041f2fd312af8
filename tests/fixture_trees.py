"""The fixture machines as readers."""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from belatwist.collectors.contract import EnabledSource, Machine, Options
from belatwist.collectors.registry import SOURCES, build
from belatwist.config import CollectorEntry
from belatwist.errors import AbsentError, HiddenError, ReadError
from belatwist.model import Sample
from belatwist.procfs.reader import MissingError, Reader

FIXTURES = Path(__file__).parent / "fixtures"
NOW_MS = 1_767_225_600_370


class Board(Reader):
    """A reader over several trees, the first that has a file answering, with faults to inject.

    :ivar faults: path to what reading or listing it raises.
    :ivar reads: how often each path was read.
    """

    def __init__(self, half: str, *trees: str) -> None:
        super().__init__("/nowhere")
        self._half = half
        self.faults: dict[str, ReadError | HiddenError] = {}
        self.reads: dict[str, int] = {}
        self.texts: dict[str, bytes] = {}
        self.become(*trees)

    def become(self, *trees: str) -> None:
        """Exchange the trees, as time passes."""
        self._readers = [Reader(str(FIXTURES / tree / self._half)) for tree in trees]

    def read(self, path: str) -> bytes:
        self.reads[path] = self.reads.get(path, 0) + 1
        if path in self.faults:
            raise self.faults[path]
        if path in self.texts:
            return self.texts[path]
        for reader in self._readers[:-1]:
            try:
                return reader.read(path)
            except MissingError:
                continue
        return self._readers[-1].read(path)

    def entries(self, path: str) -> dict[str, int]:
        if path in self.faults:
            raise self.faults[path]
        found: dict[str, int] = {}
        missing: list[MissingError] = []
        for reader in self._readers:
            try:
                found = reader.entries(path) | found
            except MissingError as error:
                missing.append(error)
        if not found and missing:
            raise missing[0]
        return found

    def link(self, path: str) -> str:
        if path in self.faults:
            raise self.faults[path]
        for reader in self._readers[:-1]:
            try:
                return reader.link(path)
            except MissingError:
                continue
        return self._readers[-1].link(path)


def procfs(*trees: str) -> Board:
    """Read the ``proc`` half of trees, the first that has a file answering."""
    return Board("proc", *trees)


def sysfs(*trees: str) -> Board:
    """Read the ``sys`` half of trees, the first that has a file answering."""
    return Board("sys", *trees)


def half_full(_path: bytes) -> os.statvfs_result:
    """Answer for a file system of 32 GB in blocks of 4,096 bytes, with 5 % for root alone."""
    return os.statvfs_result(
        (4096, 4096, 8_000_000, 4_000_000, 3_600_000, 2_000_000, 1_500_000, 1_500_000, 0, 255)
    )


def machine(
    proc: Reader | None = None,
    sys: Reader | None = None,
    *,
    rng: random.Random | None = None,
    seconds: Callable[[], float] = lambda: 0.0,
    reactor: Any = None,
    http: Any = None,
    statvfs: Callable[[bytes], os.statvfs_result] = half_full,
) -> Machine:
    """Make a machine of fixture trees; a tree that the test does not give is empty.

    :param seconds: stands still unless a test gives a clock.
    :param reactor: such as a ``MemoryReactorClock``; none unless a test gives one.
    :param http: an ``HttpGetter`` or its stand-in; none unless a test gives one.
    :param statvfs: every file system is half full unless a test says otherwise.
    """
    nowhere = Reader(str(FIXTURES / "nowhere"))
    return Machine(
        device_id="box",
        procfs=proc or nowhere,
        sysfs=sys or nowhere,
        rng=rng or random.Random(1),
        seconds=seconds,
        load_reactor=lambda: reactor,
        load_http=lambda: http,
        statvfs=statvfs,
    )


def enabled(on: Machine, **options: Options) -> list[EnabledSource]:
    """Enable every source that reads this machine, at an interval of a second.

    An asynchronous source asks a server, which a fixture tree does not have.

    :param options: those of a source, by its name with an underscore for the dot.
    """
    entries = [
        CollectorEntry(
            name=name,
            interval=1.0,
            config=options.get(name.replace(".", "_"), source.options()),
        )
        for name, source in SOURCES.items()
    ]
    return [one for one in build(entries, on) if not iscoroutinefunction(one.collector.collect)]


READ_HERE = tuple(one.source.name for one in enabled(machine()))
"""The sources that read this machine."""


def collect(one: EnabledSource, now_ms: int) -> Sequence[Sample]:
    """Run a collector that is a plain function; an absent source has no samples."""
    try:
        samples = one.collector.collect(now_ms)
    except AbsentError:
        return []
    assert isinstance(samples, Sequence)
    return samples


def collected(on: Machine, proc: Board) -> list[Sample]:
    """Collect twice from every source, with ten seconds in between; return the second round.

    By the sources' clock an hour has passed, after which they repeat what they say rarely.
    """
    clock = Clock()
    sources = enabled(replace(on, seconds=clock.seconds))
    for one in sources:
        collect(one, NOW_MS - 10_000)
    proc.become("orangepi5plus-t10")
    clock.advance(3600)
    return [sample for one in sources for sample in collect(one, NOW_MS)]
