"""The states that a cut may leave are those that a disk with a cache may be in."""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.powercut.fuse import FLUSH, RECORD
from tests.powercut.recording import PAGE, Fate, Record, Recording

PAGES = 4
BEFORE = b"-" * PAGE * PAGES

flushes = st.just((None, b""))
writes = st.integers(0, PAGE * PAGES - 1).flatmap(
    lambda offset: st.tuples(
        st.just(offset),
        st.builds(
            lambda letter, size: letter * size,
            st.sampled_from([b"a", b"b", b"c"]),
            st.integers(1, PAGE * PAGES - offset),
        ),
    )
)
recordings = st.lists(flushes | writes, max_size=12).map(
    lambda told: Recording([Record(at, *one) for at, one in enumerate(told)])
)


def cut(recording: Recording, moment: int, fate: Fate, seed: int = 1) -> bytes:
    """Return the disk after a cut."""
    with TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        image.write_bytes(BEFORE)
        recording.cut(image, moment, fate, Random(seed))
        return image.read_bytes()


def written(recording: Recording, end: int) -> bytes:
    """Return the disk with the first writes, in order."""
    disk = bytearray(BEFORE)
    for one in recording.records[:end]:
        if one.offset is not None:
            disk[one.offset : one.offset + len(one.data)] = one.data
    return bytes(disk)


def flushed(recording: Recording, end: int) -> int:
    """Return how many of the first records come before the last flush among them."""
    ends = [n for n, one in enumerate(recording.records[:end]) if one.offset is None]
    return ends[-1] if ends else 0


@given(recordings, st.integers(-1, 12))
def test_nothing_but_what_was_flushed(recording: Recording, moment: int) -> None:
    """When nothing else is on the medium, it is all that a flush has followed, in order."""
    end = flushed(recording, moment + 1)
    assert cut(recording, moment, Fate.NOTHING) == written(recording, end)


@given(recordings, st.integers(-1, 12))
def test_everything(recording: Recording, moment: int) -> None:
    """When all is on the medium, it is every write up to the moment, in order."""
    assert cut(recording, moment, Fate.EVERYTHING) == written(recording, moment + 1)


@given(recordings, st.integers(-1, 12), st.integers())
def test_something(recording: Recording, moment: int, seed: int) -> None:
    """Each page is as it was at some time since the last flush; no page depends on another."""
    found = cut(recording, moment, Fate.SOMETHING, seed)
    end = min(moment + 1, len(recording.records))
    states = [written(recording, n) for n in range(flushed(recording, end), end + 1)]
    for page in range(0, len(BEFORE), PAGE):
        assert found[page : page + PAGE] in {state[page : page + PAGE] for state in states}


def test_pages_are_lost_by_themselves() -> None:
    """With some seed, a later write is on the medium, and an earlier one is not."""
    recording = Recording([Record(0, 0, b"a" * PAGE), Record(1, PAGE, b"b" * PAGE)])
    disks = {cut(recording, 1, Fate.SOMETHING, seed) for seed in range(50)}
    assert BEFORE[:PAGE] + b"b" * PAGE + BEFORE[2 * PAGE :] in disks
    assert len(disks) == 4


@pytest.mark.parametrize("cut_off", [0, 1, RECORD.size, RECORD.size + 2])
def test_read(tmp_path: Path, cut_off: int) -> None:
    """A recording is read back as it was written; one that is still being written, too."""
    path = tmp_path / "recording"
    whole = RECORD.pack(5, 4096, 3) + b"abc" + RECORD.pack(6, FLUSH, 0)
    path.write_bytes(whole + (RECORD.pack(7, 0, 3) + b"abc")[:cut_off])
    assert Recording.read(path).records == [Record(5, 4096, b"abc"), Record(6, None, b"")]
