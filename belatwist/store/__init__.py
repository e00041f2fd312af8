"""The store's interface: every sample is on disk before anything else happens to it.

It does without SQLite.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from belatwist.model import Sample, Series

if TYPE_CHECKING:  # The pure modules name rows and settlements, and need no Twisted for it.
    from twisted.internet.defer import Deferred

Key = tuple[int, int]
"""The identity of a sample: ``(timestamp_ms, series_id)``."""

MIN_KEY: Key = (-(1 << 63), 0)
"""Lower than the key of any sample."""

Row = tuple[int, int, float]
"""A pending sample: ``(timestamp_ms, series_id, value)``. The first two are its :data:`Key`."""

Position = tuple[int, int, int]
"""The place of a sample in the order of sending: ``(priority, timestamp_ms, series_id)``."""


class Outcome(IntEnum):
    """The server's answer to a sample: ``uploaded`` in the view ``metrics`` (0 is pending)."""

    ACCEPTED = 1
    REJECTED = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Pending samples in the order in which they are to be sent.

    :ivar rows: the samples; numeric only.
    :ivar series: the series of every ``series_id`` in ``rows`` (it may hold others as well).
    :ivar last: the position of the last of ``rows``; ``None`` when there are none.
    :ivar as_of: how often the store had been written to when they were read.
    """

    rows: Sequence[Row]
    series: Mapping[int, Series]
    last: Position | None = None
    as_of: int | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """The server's answer, or that of the check before sending, to some samples.

    :ivar rows: the samples meant.
    :ivar batch_id: the upload cycle, a UUID.
    :ivar chunk_index: the chunk within it, from 0.
    :ivar reason: why they were rejected; ``None`` when they were accepted.
    :ivar as_of: that of the batch the samples are from. It spares the store looking for each of
        them, where nothing can have changed since.
    """

    outcome: Outcome
    rows: Sequence[Row]
    batch_id: str
    chunk_index: int
    reason: str | None = None
    as_of: int | None = None


class SampleStore(Protocol):
    """Where samples wait until the server has them."""

    @property
    def pending(self) -> int:
        """How many samples wait to be sent, as of the last change."""
        ...

    def add(self, samples: Sequence[Sample]) -> "Deferred[int]":
        """Store samples in one transaction; a sample that is already stored is ignored.

        :return: how many were new.
        """
        ...

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples by priority, then timestamp, then id.

        :param limit: how many at most.
        :param until_ms: leave out samples with a later time.
        :param after: begin behind this position.
        """
        ...

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples of all priorities, the oldest of them first.

        :return: a batch without ``last``: it is no part of the order of sending.
        """
        ...

    def settle(self, settlements: Sequence[Settlement], now_ms: int) -> "Deferred[None]":
        """Record settlements, each with a number of its own, in one transaction."""
        ...
