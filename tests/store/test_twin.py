"""The store in memory against the database: they agree after any operations on both."""

from collections.abc import Sequence
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from belatwist.model import Sample, Series
from belatwist.store import Batch, Outcome, Row, Settlement
from belatwist.store.sql import queries
from tests import strategies
from tests.fakes import MemoryStore
from tests.store.databases import BATCH, CORE, LOAD, STATE, fresh, insert, pending, settle

_few = [
    LOAD,
    CORE,
    STATE,
    Series.of("m", "box", {"a": "1"}, priority=0),
    Series.of("m", "box", {"a": "1"}, priority=3),
]
_sample = st.builds(
    lambda series, ms, value: Sample(series, ms, "text" if series is STATE else value),
    st.sampled_from(_few),
    st.integers(1, 6),
    strategies.numbers,
)
_operation = st.one_of(
    st.tuples(st.just("add"), st.lists(_sample, max_size=6)),
    st.tuples(st.just("accept"), st.lists(st.integers(0, 8), min_size=1, max_size=3)),
    st.tuples(st.just("reject"), st.lists(st.integers(0, 8), min_size=1, max_size=3)),
)


@given(st.lists(_operation, max_size=12), st.integers(0, 8), st.integers(0, 7))
def test_the_twin_in_memory_agrees(
    operations: list[tuple[str, Sequence[object]]], limit: int, until_ms: int
) -> None:
    """Whatever is done to both, the store in memory has the same rows pending as the database."""
    twin = MemoryStore()
    batch: list[Batch] = []
    with closing(fresh()) as db:
        for name, arguments in operations:
            if name == "add":
                added = [one for one in arguments if isinstance(one, Sample)]
                counts: list[int] = []
                twin.add(added).addCallback(counts.append)
                assert counts == [insert(db, added)]
            else:
                due = pending(db)
                chosen = [due[n] for n in arguments if isinstance(n, int) and n < len(due)]
                if chosen:
                    outcome = Outcome.ACCEPTED if name == "accept" else Outcome.REJECTED
                    settlement = Settlement(outcome, chosen, BATCH, 0, None)
                    twin.settle([settlement], 1)
                    settle(db, settlement)
            assert twin.pending == queries.count_pending(db.cursor())
        twin.fetch(limit, until_ms).addCallback(batch.append)
        expected: list[Row] = pending(db, limit, until_ms)
        assert list(map(repr, batch[0].rows)) == list(map(repr, expected))
        ids = {row[1] for row in expected}
        assert {i: batch[0].series[i] for i in ids} == queries.series_of(db.cursor(), ids)
