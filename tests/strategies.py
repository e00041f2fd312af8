"""Series, samples and rows for property tests."""

from collections.abc import Mapping

from hypothesis import strategies as st

from belatwist.model import REAL, Sample, Series, sample
from belatwist.store import Row

_SPECIAL = "\\|,=.:-_ab01 é"

texts = st.text(_SPECIAL, max_size=4) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
"""Texts that UTF-8 can hold, many of them made of what keys and names treat specially."""

anything = texts | st.text(max_size=12)
"""Any text at all; lone surrogates, which UTF-8 cannot hold, as well."""

names = texts.filter(bool)

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
    [
        0.0,
        -0.0,
        5e-324,
        -5e-324,
        2.2250738585072014e-308,
        0.1,
        1e300,
        -1e300,
        1.7976931348623157e308,
        *(sign * float(2**n + 1) for n in (31, 52, 53, 62, 63, 64) for sign in (1, -1)),
        9223372036854774784.0,
    ]
)
"""Finite numbers, with the ends of every range that a store or a codec might treat specially."""

timestamps = st.integers(1, 12) | st.integers(1, 2**43 - 1)
"""Milliseconds; often equal."""


def tags(
    keys: st.SearchStrategy[str] = texts, values: st.SearchStrategy[str] = texts
) -> st.SearchStrategy[Mapping[str, str]]:
    """Up to four tags; of any name, the empty and the reserved ones as well."""
    reserved = st.sampled_from(["device_id", "__name__", "exported_device_id", "le", "a_b", "a.b"])
    return st.dictionaries(reserved | keys, values, max_size=4)


def series(
    text: st.SearchStrategy[str] = texts, value_types: st.SearchStrategy[int] | None = None
) -> st.SearchStrategy[Series]:
    """Series with a name; numeric ones unless told otherwise.

    :param text: where devices, tag keys and tag values come from.
    """
    return st.builds(
        Series.of,
        text.filter(bool),
        text,
        tags(text, text),
        value_type=st.just(REAL) if value_types is None else value_types,
        priority=st.integers(0, 3),
    )


def samples(some: st.SearchStrategy[Series] | None = None) -> st.SearchStrategy[Sample]:
    """Numeric samples."""
    return st.builds(sample, series() if some is None else some, timestamps, numbers)


@st.composite
def batches(
    draw: st.DrawFn, some: st.SearchStrategy[Series] | None = None
) -> tuple[list[Row], dict[int, Series]]:
    """Rows in any order, no two of the same key, and the series of their ids.

    The values are those that SQLite gives back: an integer where it had nothing to lose.
    """
    known = draw(st.lists(series() if some is None else some, min_size=1, max_size=4, unique=True))
    by_id = dict(enumerate(known, start=1))
    value = numbers | st.integers(-(2**63), 2**63 - 1)
    row = st.tuples(timestamps, st.sampled_from(sorted(by_id)), value)
    rows: list[Row] = draw(st.lists(row, min_size=1, max_size=30, unique_by=lambda r: r[:2]))
    return rows, by_id
