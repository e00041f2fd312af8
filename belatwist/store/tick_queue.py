"""The bounded queue of a write buffer: ticks, and calls that keep their place among them."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from belatwist.model import Sample

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@dataclass(eq=False, slots=True)
class QueuedTick:
    """Samples that were handed in together.

    :ivar done: fires with how many of them are stored; ``None`` once it has.
    """

    samples: Sequence[Sample]
    done: "Deferred[int] | None"

    def finish(self, stored: int) -> None:
        """Say how many samples are stored, unless that was said before."""
        done, self.done = self.done, None
        if done is not None:
            done.callback(stored)


@dataclass(eq=False, slots=True)
class QueuedCall:
    """A call of the store that keeps its place among the ticks."""

    function: "Callable[[], Deferred[Any]]"
    done: "Deferred[Any]"


class TickQueue:
    """Ticks and calls in their order; the oldest samples go when there are too many.

    :param limit: how many samples may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[QueuedTick | QueuedCall] = deque()
        self._count = 0
        self._in_flight = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def waiting(self) -> int:
        """How many samples wait, those that are being written included."""
        return self._count + self._in_flight

    @property
    def head(self) -> QueuedTick | QueuedCall:
        """The next item."""
        return self._items[0]

    def append(self, item: QueuedTick | QueuedCall) -> int:
        """Append a tick or a call.

        :return: how many samples were dropped to make room.
        """
        self._items.append(item)
        if isinstance(item, QueuedCall):
            return 0
        self._count += len(item.samples)
        return self._drop_oldest()

    def pop(self) -> None:
        """Remove the next item, which is a call."""
        self._items.popleft()

    def take(self, size: int) -> list[QueuedTick]:
        """Take ticks to write, up to a number of samples or the next call; one tick at the least.

        They count as waiting until :meth:`put_back`.
        """
        ticks: list[QueuedTick] = []
        count = 0
        while self._items:
            head = self._items[0]
            if isinstance(head, QueuedCall) or (ticks and count + len(head.samples) > size):
                break
            ticks.append(head)
            count += len(head.samples)
            self._items.popleft()
        self._count -= count
        self._in_flight = count
        return ticks

    def put_back(self, samples: Sequence[Sample]) -> int:
        """End a write: put the samples that it has left before all others.

        :return: how many samples were dropped, because too many came meanwhile.
        """
        self._in_flight = 0
        if not samples:
            return 0
        self._items.appendleft(QueuedTick(samples, None))
        self._count += len(samples)
        return self._drop_oldest()

    def finish_all(self) -> None:
        """Report of every tick that nothing of it is stored yet; it continues to wait."""
        for item in self._items:
            if isinstance(item, QueuedTick):
                item.finish(0)

    def _drop_oldest(self) -> int:
        lost = excess = max(self.waiting - self._limit, 0)
        for item in list(self._items) if excess else ():
            if isinstance(item, QueuedCall):
                continue
            gone = min(excess, len(item.samples))
            excess -= gone
            self._count -= gone
            if gone == len(item.samples):
                self._items.remove(item)
                item.finish(0)
            else:
                item.samples = item.samples[gone:]
            if not excess:
                break
        return lost - excess
