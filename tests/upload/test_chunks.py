"""The number of samples in a request."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.store import Row
from belatwist.upload.chunks import MAX_BODY_BYTES, ChunkSize, cut


def test_size_grows_and_falls() -> None:
    """After each accepted chunk the next doubles, to the limit; after a failure it is the first."""
    size = ChunkSize(50, 300)
    seen = [size.samples]
    for _ in range(4):
        size.accepted()
        seen.append(size.samples)
    assert seen == [50, 100, 200, 300, 300]
    size.failed()
    assert size.samples == 50
    size.accepted()
    assert size.samples == 100


@given(st.integers(1, 5000), st.integers(1, 5000), st.lists(st.booleans(), max_size=30))
def test_size_stays_in_bounds(start: int, limit: int, history: list[bool]) -> None:
    """The size is at least one and at most the limit, also after a start that is larger."""
    size = ChunkSize(start, limit)
    assert 1 <= size.samples <= limit
    for good in history:
        before = size.samples
        if good:
            size.accepted()
            assert size.samples == min(2 * before, limit)
        else:
            size.failed()
            assert size.samples == min(start, limit)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
    st.integers(1, 80),
    st.integers(1, 200),
)
def test_cut(weights: list[int], samples: int, max_bytes: int) -> None:
    """Chunks cut one after the other are the rows, none lost, added or moved.

    None has more rows than asked for, and none a longer body than allowed unless it is one row.
    """
    rows: list[Row] = [(n, weight, 0.0) for n, weight in enumerate(weights)]

    def build(chunk: Sequence[Row]) -> bytes:
        return b"x" * sum(weight for _, weight, _ in chunk)

    rest: Sequence[Row] = rows
    seen: list[Row] = []
    while rest:
        chunk, body = cut(rest, samples, build, max_bytes)
        assert 1 <= len(chunk) <= samples
        assert body == build(chunk)
        assert len(body) <= max_bytes or len(chunk) == 1
        seen += chunk
        rest = rest[len(chunk) :]
    assert seen == rows


@pytest.mark.parametrize(("max_bytes", "taken"), [(100, 8), (8, 8), (7, 4), (3, 2), (1, 1), (0, 1)])
def test_cut_halves(max_bytes: int, taken: int) -> None:
    """A body that is too long is halved, and no more often than needed."""
    rows: list[Row] = [(n, 1, 0.0) for n in range(10)]
    chunk, body = cut(rows, 8, lambda part: b"x" * len(part), max_bytes)
    assert (list(chunk), len(body)) == (rows[:taken], taken)


def test_cut_builds_no_more_than_needed() -> None:
    """A body that fits is built once, because compression is expensive."""
    built: list[int] = []

    def build(chunk: object) -> bytes:
        built.append(1)
        return b"x" * MAX_BODY_BYTES

    cut([(1, 1, 0.0), (2, 1, 0.0)], 2, build)
    assert len(built) == 1
