"""Valid queries, and the errors of all others."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.web.page.query import (
    ALL,
    MAX_POINTS,
    MAX_SECONDS,
    MAX_STEP,
    BadQueryError,
    RangeQuery,
    Selector,
    read,
)

GOOD: dict[str, list[str]] = {
    "series": ["cpu.temperature"],
    "start": ["1000"],
    "end": ["1100"],
    "step": ["10"],
}


def query(**changed: list[str] | None) -> RangeQuery:
    """Read the good query, with other parameters; ``None`` leaves one out."""
    given = {key: value for key, value in {**GOOD, **changed}.items() if value is not None}
    return read({key.encode(): [one.encode() for one in value] for key, value in given.items()})


def test_a_query() -> None:
    """Ten points of one series, all of their values."""
    assert query() == RangeQuery((Selector("cpu.temperature", {}),), 1000, 10, 10, ALL)
    assert query().end == 1100


def test_bounds_move_outwards() -> None:
    """Two queries of one step have the same points where they overlap."""
    found = query(start=["1001"], end=["1099.5"])
    assert (found.start, found.end, found.points) == (1000, 1100, 10)


@given(
    start=st.floats(0, 4e9),
    seconds=st.floats(0.001, MAX_SECONDS),
    step=st.integers(1, MAX_STEP),
)
def test_points_cover_what_was_asked_for(start: float, seconds: float, step: int) -> None:
    """However odd the bounds, they are within the points, and the points are multiples."""
    first, last = round(start, 3), round(start + seconds, 3)
    try:
        found = query(start=[f"{first:.3f}"], end=[f"{last:.3f}"], step=[str(step)])
    except BadQueryError:
        assert not first < last <= first + MAX_SECONDS or (last - first) / step > MAX_POINTS - 2
        return
    assert found.start <= first < last <= found.end
    assert found.start % step == 0
    assert found.points <= MAX_POINTS
    assert found.start + step > first
    assert found.end - step < last


def test_values() -> None:
    """Some of the values may be left out; their order is ours."""
    assert query(values=["max,avg"]).values == ("avg", "max")


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a.b", {}),
        ("a.b{}", {}),
        ('a.b{c="d"}', {"c": "d"}),
        ('a.b{ c = "d" , e="f" }', {"c": "d", "e": "f"}),
        ('a.b{c="d",}', {"c": "d"}),
        (r'a.b{c="q\"},{u0000\u00e9"}', {"c": 'q"},{u0000é'}),
    ],
)
def test_selectors(text: str, tags: dict[str, str]) -> None:
    """A name, and tags whose values are JSON texts."""
    assert query(series=[text]).selectors == (Selector("a.b", tags),)


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z_]\w*", fullmatch=True).filter(str.isascii), st.text())
)
def test_any_tag_can_be_named(tags: dict[str, str]) -> None:
    """Any value of a tag can be written."""
    written = ",".join(f"{key}={json.dumps(value)}" for key, value in tags.items())
    assert query(series=[f"a{{{written}}}"]).selectors[0].tags == tags


def test_a_selector_matches() -> None:
    """By the whole name, and by those tags that it has."""
    one = Selector("a", {"x": "1"})
    assert one.matches("a", {"x": "1", "y": "2"})
    assert not one.matches("a", {"x": "2"})
    assert not one.matches("a", {})
    assert not one.matches("ab", {"x": "1"})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"series": None}, "series: 1 to 64 times"),
        ({"series": ["a"] * 65}, "series: 1 to 64 times"),
        ({"series": ["a{"]}, "series: a stored name"),
        ({"series": ["a{b=c}"]}, "series: a stored name"),
        ({"series": ['a{b="c" d="e"}']}, "series: a stored name"),
        ({"series": [r'a{b="\x"}']}, "series: a tag's value as in JSON"),
        ({"series": ["0a"]}, "series: a stored name"),
        ({"series": [""]}, "series: a stored name"),
        ({"start": None}, "start: exactly once"),
        ({"start": ["1", "2"]}, "start: exactly once"),
        ({"start": ["-1"]}, "start: seconds since 1970"),
        ({"start": ["now"]}, "start: seconds since 1970"),
        ({"start": ["1e3"]}, "start: seconds since 1970"),
        ({"start": ["nan"]}, "start: seconds since 1970"),
        ({"start": ["٣"]}, "start: seconds since 1970"),
        ({"start": ["99999999999"]}, "start: seconds since 1970"),
        ({"end": ["1000"]}, "end: after the start"),
        ({"end": [str(1001 + MAX_SECONDS)], "step": ["3600"]}, "by at most 172800 s"),
        ({"step": ["0"]}, "step: a whole number"),
        ({"step": ["0.5"]}, "step: a whole number"),
        ({"step": ["1.0"]}, "step: a whole number"),
        ({"step": [str(MAX_STEP + 1)]}, "step: a whole number of seconds, from 1 to 86400"),
        ({"step": ["9999999999"]}, "step: a whole number"),
        ({"step": ["1"], "end": ["2001"]}, "step: at most 1000 points"),
        ({"values": ["mean"]}, "values: some of min,avg,max"),
        ({"values": [""]}, "values: some of min,avg,max"),
        ({"query": ["up"]}, "query: unknown; known: series, start, end, step, values"),
    ],
)
def test_refusals(changed: dict[str, list[str] | None], says: str) -> None:
    """Each names the parameter and what is allowed."""
    with pytest.raises(BadQueryError) as refusal:
        query(**changed)
    assert says in str(refusal.value)


def test_bytes_that_are_no_text() -> None:
    """They are refused as everything else."""
    with pytest.raises(BadQueryError, match="UTF-8"):
        read({b"series": [b"\xff"]})
