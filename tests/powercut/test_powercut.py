"""The power is cut while the service writes: nothing that it had reported is lost.

A flushed write is on the medium, a later one may be or not: see :mod:`tests.powercut.recording`.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.faults.proxy import Proxy
from tests.powercut import disk
from tests.powercut.crash_runs import CutResult, Life
from tests.powercut.recording import Fate

pytestmark = pytest.mark.process


def cut_again_and_again(
    folder: Path,
    image: Path,
    proxy: Proxy,
    random: Random,
    *,
    lives: int,
    seconds: float,
    cuts: int,
    revived: int,
    synchronous: str = "full",
) -> list[CutResult]:
    """Live several lives, each on the disk that some cut of the one before has left.

    :param seconds: how long each lasts.
    :param cuts: of each life.
    :param revived: cuts of each life after which the service is started again.
    """
    results: list[CutResult] = []
    resent = under_way = 0
    for number in range(lives):
        # The log is emptied never, or again and again: there is no power cut without its risk.
        life = Life(
            folder / f"life-{number}",
            image,
            proxy,
            (disk.DEFAULT, disk.CARD)[number % 2],
            synchronous=synchronous,
            wal_checkpoint_interval=("1h", "1s")[number % 2],
        )
        life.live(seconds)
        image = folder / f"left-{number}"
        chosen = random.randrange(cuts // 2, cuts)
        for count, result in enumerate(life.cuts(random, cuts)):
            results.append(result)
            if count == chosen:
                disk.copy(result.image, image)
            if count < revived:
                again = life.revive(result)
                if synchronous == "full":
                    assert again <= life.unacknowledged(result)
                resent += again
                under_way += life.unacknowledged(result)
    tell(results)
    print(f"{lives * revived} starts: {resent} samples sent again, of {under_way} under way")
    return results


def tell(results: Sequence[CutResult]) -> None:
    """Print what the cuts have cost."""
    ticks, lost = sum(one.ticks for one in results), sum(one.lost for one in results)
    seconds = sorted(one.seconds for one in results if one.lost)
    print(
        f"{len(results)} cuts: {lost} of {ticks} reported ticks lost, in {len(seconds)} cuts, "
        + (f"{seconds[0]:.1f} to {seconds[-1]:.1f} s of them, " if seconds else "")
        + f"{sum(one.forgotten for one in results)} deliveries forgotten"
    )


def test_flushed_is_there(new_disk: Path, tmp_path: Path) -> None:
    """A file that was flushed is there after the cut, one that was not is not: it can be told."""
    with disk.RecordingDisk(new_disk, tmp_path / "disk") as recording:
        for name in ("flushed", "not"):
            with (recording.place / name).open("wb") as file:
                file.write(b"x" * 10_000)
                if name == "flushed":
                    file.flush()
                    os.fsync(file.fileno())
        recorded = recording.recording()
    image = tmp_path / "image"
    disk.copy(new_disk, image)
    recorded.cut(image, recorded.records[-1].at, Fate.NOTHING, Random(1))
    with disk.mounted(image) as place:
        assert (place / "flushed").read_bytes() == b"x" * 10_000
        assert not (place / "not").exists() or not (place / "not").read_bytes()
    disk.check(image)


def test_power_cuts(new_disk: Path, proxy: Proxy, tmp_path: Path) -> None:
    """What was reported stored is there, what was reported delivered is marked so, and the service
    goes on, sends what is pending and nothing else.
    """
    results = cut_again_and_again(
        tmp_path, new_disk, proxy, Random(1), lives=2, seconds=3, cuts=15, revived=2
    )
    assert [one for one in results if one.lost or one.forgotten] == []
    assert sum(one.ticks for one in results) > 50


def test_without_flushes(new_disk: Path, proxy: Proxy, tmp_path: Path) -> None:
    """With ``synchronous: normal`` ticks are lost, so these tests would notice it; the database is
    whole nevertheless, and the service goes on.
    """
    results = cut_again_and_again(
        tmp_path, new_disk, proxy, Random(2), lives=1, seconds=1, cuts=8, revived=1,
        synchronous="normal",
    )  # fmt: skip
    assert [one for one in results if one.lost]


@pytest.mark.soak
def test_many_power_cuts(new_disk: Path, proxy: Proxy, tmp_path: Path) -> None:
    """The same with hundreds of cuts, in lives long enough for the file system's own timers."""
    results = cut_again_and_again(
        tmp_path, new_disk, proxy, Random(3), lives=6, seconds=40, cuts=50, revived=8
    )
    assert [one for one in results if one.lost or one.forgotten] == []


@pytest.mark.soak
def test_many_power_cuts_without_flushes(new_disk: Path, proxy: Proxy, tmp_path: Path) -> None:
    """The same with ``synchronous: normal``: ticks are lost, but no database is damaged."""
    results = cut_again_and_again(
        tmp_path, new_disk, proxy, Random(4), lives=2, seconds=40, cuts=50, revived=8,
        synchronous="normal",
    )  # fmt: skip
    assert [one for one in results if one.lost]
