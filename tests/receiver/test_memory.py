"""Tests of the receiver's memory."""

from hypothesis import given
from hypothesis import strategies as st

from belatwist.receiver.memory import Memory, SeriesSummary
from belatwist.receiver.parse import Labels, Line

NOW = 1_697_040_000_000


def labels(name: str, **more: str) -> Labels:
    """Write the labels of a series in canonical order."""
    return tuple(sorted({"__name__": name, **more}.items()))


def line(name: str, *samples: tuple[int, float]) -> Line:
    """Write a line of ``(milliseconds after NOW, value)``."""
    return Line(labels(name), [NOW + at for at, _ in samples], [value for _, value in samples])


def names(memory: Memory) -> list[str]:
    """List the names of the series held, least recently updated first."""
    return [summary.metric["__name__"] for summary in memory.series()]


def test_a_series_is_described() -> None:
    """Times are the extremes of all samples, in any order; the value is that of the latest."""
    memory = Memory()
    memory.add(line("a", (5, 1.0), (9, 2.0)), 1)
    memory.add(line("a", (7, 3.0), (1, 4.0)), 2)
    assert list(memory.series()) == [SeriesSummary({"__name__": "a"}, 4, NOW + 1, NOW + 9, 2.0, 0)]


def test_series_differ_by_any_label() -> None:
    """The identity of a series is all of its labels."""
    memory = Memory()
    for core in ("0", "1"):
        memory.add(Line(labels("cpu", core=core), [NOW], [1.0]), 1)
    assert len(memory) == 2


def test_series_can_be_asked_for_by_name() -> None:
    """A filter matches the whole name."""
    memory = Memory()
    for name in ("a", "ab"):
        memory.add(line(name, (0, 1.0)), 1)
    assert [s.metric for s in memory.series("a")] == [{"__name__": "a"}]
    assert list(memory.series("b")) == []


def test_duplicates_are_counted_while_the_first_is_held() -> None:
    """The same series and timestamp again is a duplicate; once it was let go it is not."""
    memory = Memory(max_samples=2)
    memory.add(line("a", (0, 1.0), (0, 2.0)), 1)
    memory.add(line("a", (0, 3.0)), 2)
    memory.add(line("b", (0, 3.0)), 2)
    assert [summary.duplicates for summary in memory.series()] == [2, 0]
    assert [summary.last_value for summary in memory.series("a")] == [3.0]
    assert memory.recent(labels("a")) == {NOW: 3.0}
    memory.add(line("a", (1, 0.0), (2, 0.0), (0, 0.0)), 3)
    assert [summary.duplicates for summary in memory.series("a")] == [2]
    assert [summary.samples for summary in memory.series("a")] == [6]


def test_only_the_last_samples_of_a_series_are_held() -> None:
    """The sample that arrived first is dropped first, at any timestamp."""
    memory = Memory(max_samples=2)
    memory.add(line("a", (9, 1.0), (1, 2.0), (5, 3.0)), 1)
    assert memory.recent(labels("a")) == {NOW + 1: 2.0, NOW + 5: 3.0}
    assert memory.recent(labels("unknown")) == {}


def test_the_series_updated_longest_ago_goes_first() -> None:
    """An update makes a series young again; what is let go is counted."""
    memory = Memory(max_series=2)
    for name in ("a", "b", "a", "c"):
        memory.add(line(name, (0, 1.0)), 1)
    assert names(memory) == ["a", "c"]
    assert memory.dropped_series == 1


def test_the_text_of_labels_is_bounded() -> None:
    """Series with long labels are let go before their number is reached."""
    memory = Memory(max_label_characters=1000)
    for n in range(20):
        memory.add(Line(labels("a", text=f"{n:0300}"), [NOW], [1.0]), 1)
    assert len(memory) == 3
    assert memory.dropped_series == 17


def test_series_are_counted_once_a_request() -> None:
    """Adding says whether the series is new in its request."""
    memory = Memory()
    added = [
        memory.add(line(name, (0, 1.0)), request)
        for name, request in [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("a", 2)]
    ]
    assert added == [True, False, True, True, False]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.lists(st.integers(0, 9), min_size=1, max_size=8))
    )
)
def test_bounds_hold_and_nothing_is_miscounted(added: list[tuple[str, list[int]]]) -> None:
    """Against a plain model: never over a bound, never a series lost while there is room."""
    memory = Memory(max_series=3, max_samples=4)
    updated: list[str] = []
    for name, times in added:
        memory.add(line(name, *[(at, float(at)) for at in times]), 1)
        updated = [*(other for other in updated if other != name), name][-3:]
        assert names(memory) == updated
        recent = memory.recent(labels(name))
        assert len(recent) <= 4
        assert NOW + times[-1] in recent
    for summary in memory.series():
        assert summary.samples - summary.duplicates >= len(
            memory.recent(tuple(sorted(summary.metric.items())))
        )
