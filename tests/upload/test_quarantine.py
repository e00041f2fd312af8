"""The book of what was refused."""

from hypothesis import given
from hypothesis import strategies as st

from belatwist.upload.quarantine import UNIFORM, Suspects

ROW = (1000, 1, 0.5)
LATER = (2000, 1, 0.5)
OTHER = (1000, 2, 0.5)


def test_once_is_not_enough() -> None:
    """A sample that was refused once is watched, not condemned, however often within a cycle."""
    book = Suspects()
    assert book.refused([ROW], 1) == []
    assert book.refused([ROW], 1) == []
    assert book.watches(1)
    assert not book.watches(2)


def test_twice_in_two_cycles_condemns() -> None:
    """The second refusal, in a later cycle, does; the series goes on being watched."""
    book = Suspects()
    book.refused([ROW], 1)
    assert book.refused([ROW], 2) == [ROW]
    assert book.watches(1)


def test_what_is_taken_is_trusted_again() -> None:
    """A series with nothing left to ask about is treated as any other, once a sample was taken."""
    book = Suspects()
    book.refused([ROW], 1)
    book.taken([ROW])
    assert not book.watches(1)
    book.refused([LATER], 3)
    book.taken([ROW, OTHER])
    assert book.watches(1)


def test_a_series_refused_again_and_again() -> None:
    """After enough of its samples in a row it is asked about as a whole, until one is taken."""
    book = Suspects()
    for i in range(UNIFORM):
        row = (i, 1, 0.0)
        assert not book.uniform(1)
        book.refused([row], 2 * i)
        book.refused([row], 2 * i + 1)
    assert book.uniform(1)
    book.taken([ROW])
    assert not book.uniform(1)


def test_together_only_the_known_are_condemned() -> None:
    """Of samples that are refused together, those are condemned that were refused before."""
    book = Suspects()
    book.refused([ROW], 1)
    assert book.refused([ROW, LATER], 2) == [ROW]
    assert book.refused([LATER], 3) == [LATER]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2), st.booleans()), max_size=60))
def test_never_condemned_in_the_first_cycle(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever the order of answers, nobody is condemned who was not refused in two cycles."""
    book = Suspects()
    refused: dict[tuple[int, int], set[int]] = {}
    for cycle, (timestamp, series, taken) in enumerate(steps):
        row = (timestamp, series, 0.0)
        key = (timestamp, series)
        if taken:
            book.taken([row])
            refused.pop(key, None)
        else:
            condemned = book.refused([row], cycle // 2)
            refused.setdefault(key, set()).add(cycle // 2)
            assert (condemned == [row]) == (len(refused[key]) == 2)
            if condemned:
                del refused[key]
