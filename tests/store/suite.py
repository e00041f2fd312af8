"""What every store must do. Not a test module: each store's tests inherit from :class:`Suite`."""

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from belatwist.model import Sample, Series, sample
from belatwist.store import Batch, Row, SampleStore
from tests.fakes import InlineReactor
from tests.store.databases import CORE, LOAD, STATE, accept, reject

EVER = 2**62


class Suite(SynchronousTestCase):
    """The rules of :class:`belatwist.store.SampleStore`, for a new and empty ``store``."""

    store: SampleStore

    def limited(self, max_series: int, reactor: InlineReactor) -> SampleStore:
        """Return another new and empty store, in which so many series may be alive."""
        raise NotImplementedError

    def add(self, *samples: Sample) -> int:
        """Add samples, and return how many were new."""
        return self.successResultOf(self.store.add(samples))

    def fetch(self, limit: int = 1000, until_ms: int = EVER) -> Batch:
        """Read a batch."""
        return self.successResultOf(self.store.fetch(limit, until_ms))

    def rows(self, limit: int = 1000, until_ms: int = EVER) -> Sequence[Row]:
        """Read a batch's rows."""
        return self.fetch(limit, until_ms).rows

    def named(self) -> list[tuple[int, Series, float]]:
        """Read what is pending, its series spelled out."""
        batch = self.fetch()
        return [(ms, batch.series[number], value) for ms, number, value in batch.rows]

    def test_empty(self) -> None:
        """Nothing is pending in a new store, and nothing is fetched."""
        self.assertEqual(self.store.pending, 0)
        self.assertEqual(list(self.rows()), [])

    def test_add(self) -> None:
        """What was added is pending, and fetched with its series."""
        self.assertEqual(self.add(sample(LOAD, 1, 0.5), sample(CORE, 2, 99)), 2)
        self.assertEqual(self.store.pending, 2)
        self.assertEqual(self.named(), [(2, CORE, 99), (1, LOAD, 0.5)])

    def test_add_nothing(self) -> None:
        """Adding no samples is allowed and changes nothing."""
        self.assertEqual(self.add(), 0)
        self.assertEqual(self.store.pending, 0)

    def test_add_known(self) -> None:
        """A sample that is known is ignored and not counted; its first value stays."""
        self.assertEqual(self.add(sample(LOAD, 1, 1), sample(LOAD, 1, 2)), 1)
        self.assertEqual(self.add(sample(LOAD, 1, 3), sample(LOAD, 2, 4)), 1)
        self.assertEqual(self.store.pending, 2)
        self.assertEqual(self.named(), [(1, LOAD, 1), (2, LOAD, 4)])

    def test_add_texts(self) -> None:
        """A text is kept, and is neither new to the uploader, nor pending, nor fetched."""
        texts = [Sample(STATE, 1, "connected"), Sample(STATE, 2, "lost")]
        self.assertEqual(self.add(texts[0], sample(LOAD, 1, 1), texts[1]), 1)
        self.assertEqual(self.add(*texts), 0)
        self.assertEqual(self.store.pending, 1)
        self.assertEqual(self.named(), [(1, LOAD, 1)])

    def test_order(self) -> None:
        """Fetched is by priority, then timestamp, then the series that was known first."""
        urgent, twin = (Series.of(name, "box", priority=0) for name in ("urgent", "twin"))
        self.add(*(sample(s, ms, 0) for ms in (3, 1, 2) for s in (LOAD, CORE, urgent, twin)))
        self.assertEqual(
            [(s.name, ms) for ms, s, _ in self.named()],
            [
                *((s.name, ms) for ms in (1, 2, 3) for s in (urgent, twin)),
                *((CORE.name, ms) for ms in (1, 2, 3)),
                *((LOAD.name, ms) for ms in (1, 2, 3)),
            ],
        )

    def test_priority_is_the_samples_own(self) -> None:
        """A series whose priority changed keeps its identity; each sample keeps its priority."""
        low, high = (Series.of("m", "box", priority=p) for p in (3, 0))
        self.add(sample(low, 1, 0), sample(LOAD, 2, 0), sample(high, 3, 0))
        self.assertEqual(self.named(), [(3, high, 0), (2, LOAD, 0), (1, high, 0)])
        self.assertEqual(self.add(sample(high, 1, 0)), 0)

    def test_limit(self) -> None:
        """No more are fetched than asked for, and again the same ones while they are pending."""
        self.add(*(sample(LOAD, ms, 0) for ms in range(1, 11)))
        everything = list(self.rows())
        self.assertEqual(list(self.rows(4)), everything[:4])
        self.assertEqual(list(self.rows(4)), everything[:4])
        self.assertEqual(list(self.rows(10)), everything)

    def test_until(self) -> None:
        """Samples with a later time than the limit are left out, and stay pending."""
        self.add(sample(LOAD, 10, 0), sample(LOAD, 20, 0), sample(CORE, 30, 0))
        self.assertEqual([row[0] for row in self.rows(until_ms=20)], [10, 20])
        self.assertEqual([row[0] for row in self.rows(until_ms=9)], [])
        self.assertEqual(self.store.pending, 3)

    def test_values(self) -> None:
        """Values come back equal; a whole number as an integer, and zero without a sign."""
        values = [0.0, -0.0, 2.0, 0.1, 1e300, 5e-324, 2.0**53 + 2, 2.0**62, 2.0**63, -(2.0**63)]
        self.add(*(sample(LOAD, ms, value) for ms, value in enumerate(values, start=1)))
        self.assertEqual(
            [repr(row[2]) for row in self.rows()],
            [
                *("0", "0", "2", "0.1", "1e+300", "5e-324", "9007199254740994"),
                *("4611686018427387904", "9.223372036854776e+18", "-9.223372036854776e+18"),
            ],
        )

    def test_settle(self) -> None:
        """What was accepted or rejected is no longer pending; its neighbours are."""
        self.add(*(sample(s, ms, 0) for ms in (1, 2, 3) for s in (LOAD, CORE)))
        rows = self.rows()
        self.assertIsNone(
            self.successResultOf(
                self.store.settle([accept(rows[:2]), reject(rows[4:5], "no", 1)], 9)
            )
        )
        self.assertEqual(self.store.pending, 3)
        self.assertEqual(list(self.rows()), [rows[2], rows[3], rows[5]])

    def test_settled_samples_are_known(self) -> None:
        """A sample that was sent or refused is not added again."""
        self.add(sample(LOAD, 1, 0), sample(LOAD, 2, 0))
        first, second = self.rows()
        self.successResultOf(self.store.settle([accept([first]), reject([second], "no")], 9))
        self.assertEqual(self.add(sample(LOAD, 1, 5), sample(LOAD, 2, 5)), 0)
        self.assertEqual(self.store.pending, 0)
        self.assertEqual(list(self.rows()), [])

    def test_settle_twice(self) -> None:
        """Settling what is settled leaves every sample, and the count, as they are."""
        self.add(sample(LOAD, 1, 0), sample(LOAD, 2, 0))
        rows = self.rows()
        for settlement in (accept(rows[:1]), accept(rows[:1]), reject(rows[:1], "no")):
            self.successResultOf(self.store.settle([settlement], 9))
            self.assertEqual(self.store.pending, 1)
            self.assertEqual(list(self.rows()), rows[1:])

    def test_too_many_series(self) -> None:
        """Beyond the limit new series are not stored; those that are alive are, whatever comes."""
        reactor = InlineReactor()
        self.store = self.limited(2, reactor)
        many = [Series.of("m", "box", {"n": str(n)}) for n in range(5)]
        self.assertEqual(self.add(sample(LOAD, 1, 0)), 1)
        self.assertEqual(self.add(*(sample(s, 2, 0) for s in (*many, LOAD, STATE))), 2)
        self.assertEqual(self.named(), [(1, LOAD, 0), (2, LOAD, 0), (2, many[0], 0)])
        self.assertEqual(self.add(sample(many[1], 3, 0)), 0)

    def test_series_that_are_gone_make_room(self) -> None:
        """After two hours without a sample; one that comes back is the same series as before."""
        reactor = InlineReactor()
        self.store = self.limited(2, reactor)
        self.add(sample(LOAD, 1, 0), sample(CORE, 1, 0))
        first = self.rows()
        for ms in range(2, 8):
            reactor.advance(1800)
            self.add(sample(CORE, ms, 0))
        other = Series.of("m", "box")
        self.assertEqual(self.add(sample(other, 9, 0), sample(LOAD, 9, 0)), 1)
        for ms in range(10, 16):
            reactor.advance(1800)
            self.add(sample(CORE, ms, 0))
        self.assertEqual(self.add(sample(LOAD, 1, 0), sample(LOAD, 20, 0)), 1)
        rows = self.rows()
        self.assertEqual(rows[-1][1], first[-1][1])
        self.assertEqual([row for row in rows if row[0] == 1], list(first))

    def test_settle_nothing(self) -> None:
        """No settlements change nothing."""
        self.add(sample(LOAD, 1, 0))
        self.successResultOf(self.store.settle([], 9))
        self.assertEqual(self.store.pending, 1)
