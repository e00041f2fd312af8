"""Writes a batch of samples, and finds those that the store refuses by themselves."""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence

from belatwist.model import Sample

BATCH_SIZE = 2_500
"""Samples of one transaction, at most."""

MAX_FAILURES = 64
"""Failed attempts to find the samples that the store refuses, at most."""


class BatchWrite:
    """One batch on its way to the store.

    :param samples: the batch; it may be larger than a transaction.
    :ivar refused: samples that the store refuses by themselves.
    :ivar stored: how many samples are written.
    :ivar error: the last failure; ``None`` when there was none.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.refused: list[Sample] = []
        self.stored = 0
        self.error: Exception | None = None
        self._samples = samples
        self._parts: list[Sequence[Sample]] = [samples]  # The next one is the last.

    async def run(
        self,
        add: Callable[[Sequence[Sample]], Awaitable[int]],
        failed: Callable[[], object],
    ) -> None:
        """Write the batch. Where samples are refused by themselves, halving finds them.

        A failure of the database ends this; the rest of the batch is then in :meth:`left`.

        :param add: stores samples in one transaction.
        :param failed: called at each transaction that fails.
        """
        failures = 0
        while self._parts:
            part = self._parts[-1]
            begin = part[:BATCH_SIZE]
            try:
                await add(begin)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end collection
                failed()
                self.error = error
                failures += 1
                if is_database_error(error) or failures > MAX_FAILURES:
                    break
                self._parts.pop()
                if len(part) > 1:
                    middle = len(begin) // 2 or 1
                    self._parts += [part[middle:], part[:middle]]
                else:
                    self.refused.append(part[0])
                continue
            self.stored += len(begin)
            self._parts.pop()
            if len(part) > len(begin):
                self._parts.append(part[len(begin) :])
        if self.refused and not self.stored:
            # Not one was taken: that does not look as if it were the samples' fault.
            self.refused = []
            self._parts = [self._samples]

    def left(self) -> list[Sample]:
        """Return the samples that are neither stored nor refused, in their order."""
        return [one for part in reversed(self._parts) for one in part]


def is_database_error(error: Exception) -> bool:
    """Return whether the database failed (the disk, a lock, damage), and not one sample."""
    return isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) or (
        type(error) is sqlite3.DatabaseError
    )
