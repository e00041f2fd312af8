"""A service on a recording disk, and what must be true after each cut that it may have had."""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.proxy import Labels, Proxy
from tests.powercut import disk
from tests.powercut.recording import Fate, Recording
from tests.process import Twistd, free_port, write_config
from tests.victoria.compare import expected

COLLECTORS = ("cpu.usage", "memory.usage", "network.traffic", "system.load", "system.uptime")
DEVICE = "power-cut"

Point = tuple[Labels, int]
"""What identifies a sample at the receiver: labels and milliseconds."""

_OPENING = 200_000_000
"""Nanoseconds before a database was open in which it may have been made."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a service said, and when: nanoseconds of Unix time.

    :ivar opened: when the database was open.
    :ivar stored: samples that were reported stored, tick by tick.
    :ivar settled: samples that were reported delivered, cycle by cycle.
    """

    opened: int
    stored: Sequence[tuple[int, int]]
    settled: Sequence[tuple[int, int]]

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Told":
        """Read a log."""
        events = [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "}"]
        opened = [_moment(one) for one in events if " samples pending" in one["msg"]]
        return cls(
            opened=opened[0],
            stored=[(_moment(one), one["stored"]) for one in events if "stored" in one],
            settled=[
                (_moment(one), one["count"])
                for one in events
                if one.get("event") == "upload.completed"
            ],
        )

    def lost(self, moment: int, found: int) -> Sequence[int]:
        """Return when the ticks were stored that were reported by a moment, and are not there.

        :param found: samples that are there; it is the first ones of the log.
        """
        return [
            at
            for (at, _), total in zip(
                self.stored, accumulate(count for _, count in self.stored), strict=True
            )
            if at <= moment and total > found
        ]


def _moment(event: dict[str, Any]) -> int:
    """Return when an event was, rounded up: what it says was true before."""
    return round(datetime.fromisoformat(event["time"]).timestamp() * 1e6 + 1) * 1000


def _sum(told: Sequence[tuple[int, int]], moment: int) -> int:
    return sum(count for at, count in told if at <= moment)


@dataclass(frozen=True, slots=True)
class Found:
    """What a database holds.

    :ivar values: of its samples, by their ids.
    :ivar settled: the ids of those that are marked delivered.
    :ivar empty: whether it has no tables, or is no file.
    """

    values: dict[int, float] = field(default_factory=dict, repr=False)
    settled: frozenset[int] = field(default=frozenset(), repr=False)
    empty: bool = True


@dataclass(frozen=True, slots=True)
class CutResult:
    """What a cut has cost.

    :ivar image: the disk as the cut has left it.
    :ivar moment: of the cut.
    :ivar ticks: how many were reported stored in this life by then.
    :ivar lost: how many of them are not there.
    :ivar seconds: for how long the first of those had been reported.
    :ivar forgotten: samples that were reported delivered, and are not marked so.
    """

    image: Path = field(repr=False)
    moment: int = field(repr=False)
    fate: Fate
    ticks: int
    lost: int
    seconds: float
    forgotten: int
    found: Found = field(repr=False)


class Life:
    """A service, from its start on some disk until it is killed.

    :param folder: made here; everything that is made lies in it.
    :param image: the disk on which it starts.
    :param proxy: to the receiver.
    :param options: how the disk is mounted.
    :param storage: further settings.
    """

    def __init__(
        self, folder: Path, image: Path, proxy: Proxy, options: str, **storage: object
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._image = image
        self._proxy = proxy
        self._options = options
        self._storage = storage
        self._recording = Recording(())
        self._told = Told(0, (), ())
        self._before = self._all = Found()
        self._sent: dict[Point, int] = {}
        self._cuts = 0

    def live(self, seconds: float) -> None:
        """Collect and upload for so long; then it is killed."""
        with self._copy(self._image) as image, disk.mounted(image) as place:
            self._before = look(place, self._folder)
        first = len(self._proxy.seen)
        with disk.RecordingDisk(self._image, self._folder / "disk", self._options) as recording:
            with self._service(recording.place) as service:
                service.expect_event("upload.completed")
                time.sleep(seconds)
                service.process.kill()
                lines = service.log.rest()
            self._recording = recording.recording()
            self._all = look(recording.place, self._folder)
        self._told = Told.read(lines)
        self._sent = {
            point: round(one.request.wall * 1e9)
            for one in self._proxy.seen[first:]
            for point in _points(one.request.points)
        }

    def cuts(self, random: Random, count: int) -> Iterator[CutResult]:
        """Cut the power so many times, from the opening of the database on, and see what is left.

        Half of the cuts come at any time, half right after a write.
        """
        begin = self._told.opened - _OPENING
        writes = [one.at for one in self._recording.records if one.at >= begin]
        for _ in range(count):
            anywhere = random.randint(begin, self._told.stored[-1][0])
            moment = random.choice((anywhere, random.choice(writes)))
            fate = random.choice(list(Fate))
            with self._copy(self._image) as image:
                self._recording.cut(image, moment, fate, random)
                yield self._judge(image, moment, fate)

    def revive(self, result: CutResult) -> int:
        """Start the service on what a cut has left, and check that it goes on.

        :return: how many samples were sent again.
        """
        first = len(self._proxy.seen)
        with disk.mounted(result.image, self._options) as place:
            with self._service(place) as service:
                while service.expect_event("scheduler.tick_stored")["stored"] == 0:
                    pass
                while service.expect_event("upload.completed")["pending"] > 0:
                    pass
                assert service.stop() == 0
                lines = service.log.rest()
            assert not [line for line in lines if "damaged" in line or '"level":"ERROR"' in line]
            assert not list(place.glob("*.corrupt-*"))
            found = look(place, self._folder)
            wanted = {
                (labels, at)
                for labels, points in expected(place / "metrics.db").items()
                for at, _ in points
            }
        sent = [point for one in self._proxy.seen[first:] for point in _points(one.request.points)]
        assert all(one.taken for one in self._proxy.seen[first:])
        # In this life nothing is sent twice; what is pending is sent, and nothing else.
        assert len(sent) == len(set(sent))
        marked = found.settled - result.found.settled
        assert len(sent) == len(marked)
        assert set(sent) <= wanted
        assert result.found.values.items() <= found.values.items()
        assert result.found.values.keys() <= found.settled
        assert len(found.values) > len(result.found.values)
        earlier = {point for point, at in self._sent.items() if at <= result.moment}
        return len(earlier & set(sent))

    def unacknowledged(self, result: CutResult) -> int:
        """Return how many samples were under way: sent, and not reported delivered."""
        sent = sum(at <= result.moment for at in self._sent.values())
        return sent - _sum(self._told.settled, result.moment)

    def _judge(self, image: Path, moment: int, fate: Fate) -> CutResult:
        """Look at a copy, so that the disk stays as it was found."""
        with self._copy(image) as other:
            with disk.mounted(other, self._options) as place:
                found = look(place, self._folder)
            disk.check(other)
        assert found.values.items() <= self._all.values.items()
        assert not found.empty or moment < self._told.opened
        lost = self._told.lost(moment, len(found.values) - len(self._before.values))
        settled = len(self._before.settled) + _sum(self._told.settled, moment)
        return CutResult(
            image=image,
            moment=moment,
            fate=fate,
            ticks=sum(at <= moment for at, _ in self._told.stored),
            lost=len(lost),
            seconds=(moment - lost[0]) / 1e9 if lost else 0.0,
            forgotten=max(settled - len(found.settled), 0),
            found=found,
        )

    @contextmanager
    def _copy(self, image: Path) -> Iterator[Path]:
        self._cuts += 1
        copy = self._folder / f"image-{self._cuts}"
        disk.copy(image, copy)
        try:
            yield copy
        finally:
            copy.unlink()

    def _service(self, place: Path) -> Twistd:
        config = write_config(
            self._folder,
            device={"id": DEVICE},
            storage={"path": str(place / "metrics.db"), **self._storage},
            remote={"enabled": True, "url": self._proxy.url, "upload_interval": "500ms"},
            health={"enabled": True, "port": free_port()},
            # The machine's clock is not what is tested, whether or not somebody synchronises it.
            monitoring={"clock_hold": "100ms"},
            metrics=[{"name": name, "interval": "200ms"} for name in COLLECTORS],
        )
        return Twistd("bela", "--config", str(config), cwd=self._folder)


def look(place: Path, folder: Path) -> Found:
    """Read a copy of a database with its log: SQLite recovers what was left, in the copy.

    :param folder: where there is room for the copy.
    """
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in ("metrics.db", "metrics.db-wal"):
        if (place / name).exists():
            shutil.copy(place / name, copy / name)
    if not (copy / "metrics.db").exists():
        return Found()
    with closing(sqlite3.connect(copy / "metrics.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
            return Found()
        rows = connection.execute("SELECT id, metric_value, uploaded FROM metrics").fetchall()
    return Found(
        values={number: value for number, value, _ in rows},
        settled=frozenset(number for number, _, uploaded in rows if uploaded == 1),
        empty=False,
    )


def _points(points: Iterable[tuple[Labels, int, float]]) -> list[Point]:
    return [(labels, at) for labels, at, _ in points]
