"""What a disk was told, and the states that it may be found in after a power cut."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

from tests.powercut.fuse import FLUSH, RECORD

PAGE = 4096
"""Bytes that a disk writes whole, or not at all: a block of the file system, and no more than a
flash page. ext4 relies on that much: its superblock, two sectors of 512 with a checksum, does not
survive less."""


class Fate(Enum):
    """What becomes of the writes that no flush has followed."""

    NOTHING = "none is on the medium"
    EVERYTHING = "all are on the medium"
    SOMETHING = "of each page, the medium has any version since the last flush"


@dataclass(frozen=True, slots=True)
class Record:
    """A write, or a flush.

    :ivar at: when it was asked for, in nanoseconds of Unix time; it was answered right after.
    :ivar offset: where on the disk; ``None`` for a flush.
    """

    at: int
    offset: int | None
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Recording:
    """All that a disk was told, in order."""

    records: Sequence[Record]

    @classmethod
    def read(cls, path: Path) -> "Recording":
        """Read what :mod:`tests.powercut.fuse` has written, also while it does."""
        content = path.read_bytes()
        return cls(list(_records(content)))

    def at(self, moment: int) -> tuple[Sequence[Record], Sequence[Record]]:
        """Tell the writes up to a moment apart: those that a flush has followed, and those not.

        :param moment: in nanoseconds of Unix time.
        """
        told = [one for one in self.records if one.at <= moment]
        flushes = [number for number, one in enumerate(told) if one.offset is None]
        end = flushes[-1] if flushes else 0
        return (
            [one for one in told[:end] if one.offset is not None],
            [one for one in told[end:] if one.offset is not None],
        )

    def cut(self, image: Path, moment: int, fate: Fate, random: Random) -> None:
        """Turn the first state, a file, into one that a cut at this moment may leave."""
        flushed, cached = self.at(moment)
        with image.open("r+b") as disk:
            for one in flushed:
                disk.seek(one.offset or 0)
                disk.write(one.data)
            for offset, data in _survivors(cached, fate, random):
                disk.seek(offset)
                disk.write(data)


def _records(content: bytes) -> Iterator[Record]:
    place = 0
    while (start := place + RECORD.size) <= len(content):
        at, offset, length = RECORD.unpack_from(content, place)
        place = start + length
        if place > len(content):
            return
        yield Record(at, None if offset == FLUSH else offset, content[start:place])


def _survivors(cached: Sequence[Record], fate: Fate, random: Random) -> Iterator[tuple[int, bytes]]:
    """Choose which of the writes to each page have reached the medium.

    A disk's cache keeps no order between pages. Of one page it may have written an earlier version,
    and not the last one.
    """
    if fate is Fate.NOTHING:
        return
    pages: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for one in cached:
        for offset, data in _pieces(one):
            pages[offset // PAGE].append((offset, data))
    share = random.random()
    for found in pages.values():
        if fate is Fate.EVERYTHING:
            yield from found
        elif random.random() < share:
            yield from found[: random.randint(1, len(found))]


def _pieces(write: Record) -> Iterator[tuple[int, bytes]]:
    """Divide a write at the bounds of pages."""
    begin = write.offset or 0
    end = begin + len(write.data)
    while begin < end:
        until = min(begin // PAGE * PAGE + PAGE, end)
        place = begin - (write.offset or 0)
        yield begin, write.data[place : place + until - begin]
        begin = until
