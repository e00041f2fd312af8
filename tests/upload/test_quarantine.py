"""Series with refused samples, and when their samples are rejected."""

from hypothesis import given
from hypothesis import strategies as st

from belatwist.upload.quarantine import (
    MAX_REFUSED,
    MAX_SERIES,
    WHOLE_SERIES_AFTER,
    Quarantine,
)

ROW = (1000, 1, 0.5)
LATER = (2000, 1, 0.5)
OTHER = (1000, 2, 0.5)


def test_once_is_not_enough() -> None:
    """A sample that was refused once is watched, not rejected, however often within a cycle."""
    quarantine = Quarantine()
    assert quarantine.refused([ROW], 1) == []
    assert quarantine.refused([ROW], 1) == []
    assert quarantine.contains(1)
    assert not quarantine.contains(2)


def test_twice_in_two_cycles_condemns() -> None:
    """The second refusal, in a later cycle, does; the series goes on being watched."""
    quarantine = Quarantine()
    quarantine.refused([ROW], 1)
    assert quarantine.refused([ROW], 2) == [ROW]
    assert quarantine.contains(1)


def test_what_is_taken_is_trusted_again() -> None:
    """A series with nothing left to ask about is treated as any other, once a sample was taken."""
    quarantine = Quarantine()
    quarantine.refused([ROW], 1)
    quarantine.accepted([ROW])
    assert not quarantine.contains(1)
    quarantine.refused([LATER], 3)
    quarantine.accepted([ROW, OTHER])
    assert quarantine.contains(1)


def test_a_series_refused_again_and_again() -> None:
    """After enough rejected samples in a row it is sent as a whole, until one is accepted."""
    quarantine = Quarantine()
    for i in range(WHOLE_SERIES_AFTER):
        row = (i, 1, 0.0)
        assert not quarantine.rejects_whole_series(1)
        quarantine.refused([row], 2 * i)
        quarantine.refused([row], 2 * i + 1)
    assert quarantine.rejects_whole_series(1)
    quarantine.accepted([ROW])
    assert not quarantine.rejects_whole_series(1)


def test_together_only_the_known_are_condemned() -> None:
    """Of samples that are refused together, those are rejected that were refused before."""
    quarantine = Quarantine()
    quarantine.refused([ROW], 1)
    assert quarantine.refused([ROW, LATER], 2) == [ROW]
    assert quarantine.refused([LATER], 3) == [LATER]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2), st.booleans()), max_size=60))
def test_never_condemned_in_the_first_cycle(steps: list[tuple[int, int, bool]]) -> None:
    """For any order of answers, no sample is rejected that was not refused in two cycles."""
    quarantine = Quarantine()
    refused: dict[tuple[int, int], set[int]] = {}
    for cycle, (timestamp, series, taken) in enumerate(steps):
        row = (timestamp, series, 0.0)
        key = (timestamp, series)
        if taken:
            quarantine.accepted([row])
            refused.pop(key, None)
        else:
            rejected = quarantine.refused([row], cycle // 2)
            refused.setdefault(key, set()).add(cycle // 2)
            assert (rejected == [row]) == (len(refused[key]) == 2)
            if rejected:
                del refused[key]


def held(quarantine: Quarantine) -> tuple[int, int]:
    """Count the series and the refused samples that a quarantine remembers."""
    records = quarantine._series.values()
    count = sum(len(record.refused) for record in records)
    assert count == quarantine._count
    return len(records), count


def test_refused_series_do_not_pile_up() -> None:
    """Series whose samples are rejected make way first, then the first one that was refused."""
    quarantine = Quarantine()
    quarantine.refused([ROW], 1)
    for number in range(2, MAX_SERIES + 1):
        row = (1, number, 0.0)
        quarantine.refused([row], 1)
        if number == 7:
            assert quarantine.refused([row], 2) == [row]
    quarantine.refused([(1, MAX_SERIES + 1, 0.0)], 2)
    assert quarantine.contains(1)
    assert not quarantine.contains(7)
    quarantine.refused([(1, MAX_SERIES + 2, 0.0)], 2)
    assert not quarantine.contains(1)
    assert held(quarantine) == (MAX_SERIES, MAX_SERIES)
    # It is learned anew.
    assert quarantine.refused([ROW], 3) == []
    assert quarantine.refused([ROW], 4) == [ROW]


def test_refused_samples_do_not_pile_up() -> None:
    """However many are refused in one cycle, a bounded number is remembered, and rejected later."""
    quarantine = Quarantine()
    for number in (1, 2, 3):
        rows = [(ms, number, 0.0) for ms in range(MAX_REFUSED - 5)]
        quarantine.refused(rows, number)
        assert held(quarantine)[1] <= MAX_REFUSED
    rejected = quarantine.refused(rows, 9)
    assert set(rejected) == set(rows)
    many = [(ms, 3, 0.0) for ms in range(3 * MAX_REFUSED)]
    quarantine.refused(many, 10)
    assert 0 < held(quarantine)[1] <= MAX_REFUSED
    assert quarantine.refused(many[-5:], 11) == many[-5:]
