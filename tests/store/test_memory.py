"""The store in memory: a store like the real one, which can be made to fail and to hang."""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from belatwist.model import sample
from belatwist.store import SampleStore
from tests.fakes import InlineReactor, MemoryStore
from tests.store import suite
from tests.store.databases import CORE, LOAD, accept, reject
from tests.store.suite import EVER


class MemoryStoreTests(suite.Suite):
    """Everything a store must do, and the switches that tests use."""

    def setUp(self) -> None:
        self.memory = MemoryStore()
        # The annotation has mypy check that it is a store.
        self.store: SampleStore = self.memory

    def limited(self, max_series: int, reactor: InlineReactor) -> SampleStore:
        """Return another store with the reactor's clock."""
        return MemoryStore(max_series, reactor.seconds)

    def calls(self) -> Sequence[Callable[[], "Deferred[Any]"]]:
        """Each of the three calls, on one pending sample."""
        return (
            lambda: self.memory.add([sample(CORE, 2, 2)]),
            lambda: self.memory.fetch(10, EVER),
            lambda: self.memory.settle([accept([(1, 1, 1)])], 9),
        )

    def test_settlements_are_kept(self) -> None:
        """Every settlement can be looked at afterwards, in order."""
        self.add(sample(LOAD, 1, 1))
        first, second = accept([(1, 1, 1)]), reject([(1, 1, 1)], "no", 1)
        self.successResultOf(self.memory.settle([first], 9))
        self.successResultOf(self.memory.settle([second], 9))
        self.assertEqual(self.memory.settlements, [first, second])

    def test_fail_next(self) -> None:
        """The next call fails without any effect, whichever it is; the one after works."""
        self.add(sample(LOAD, 1, 1))
        for call in self.calls():
            self.memory.fail_next(ZeroDivisionError("told to"))
            self.failureResultOf(call(), ZeroDivisionError)
            self.assertEqual(self.memory.pending, 1)
            self.assertEqual(self.memory.settlements, [])
        for call in self.calls():
            self.successResultOf(call())
        self.assertEqual(len(self.memory.settlements), 1)

    def test_hold(self) -> None:
        """Held calls have no effect and no answer until they are released, in their order."""
        self.add(sample(LOAD, 1, 1))
        self.memory.hold()
        answers = [call() for call in self.calls()]
        for answer in answers:
            self.assertNoResult(answer)
        self.assertEqual((self.memory.pending, self.memory.settlements), (1, []))
        self.memory.release()
        added, batch, settled = map(self.successResultOf, answers)
        self.assertEqual((added, settled), (1, None))
        self.assertEqual(list(batch.rows), [(2, 2, 2), (1, 1, 1)])
        self.assertEqual((self.memory.pending, len(self.memory.settlements)), (1, 1))
        self.successResultOf(self.memory.fetch(1, EVER))

    def test_a_held_call_takes_effect_though_cancelled(self) -> None:
        """As with a database's thread, cancelling ends the waiting, not the work."""
        self.memory.hold()
        answer = self.memory.add([sample(LOAD, 1, 1)])
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.memory.release()
        self.assertEqual(self.memory.pending, 1)

    def test_release_without_hold(self) -> None:
        """Releasing what is not held does nothing."""
        self.memory.release()
        self.assertEqual(self.add(sample(LOAD, 1, 1)), 1)
