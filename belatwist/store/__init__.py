"""The store: every sample on disk before anything else happens to it.

This module names what the other parts need of a store, without SQLite.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from belatwist.model import Sample, Series

if TYPE_CHECKING:  # The pure modules name rows and settlements, and need no Twisted for it.
    from twisted.internet.defer import Deferred

Key = tuple[int, int]
"""What identifies a sample: ``(timestamp_ms, series_id)``."""

MIN_KEY: Key = (-(1 << 63), 0)
"""No sample stands before this."""

Row = tuple[int, int, float]
"""A pending sample: ``(timestamp_ms, series_id, value)``. The first two are its :data:`Key`."""

Position = tuple[int, int, int]
"""Where a sample stands in the order of sending: ``(priority, timestamp_ms, series_id)``."""


class Outcome(IntEnum):
    """What became of a sample; the value of ``uploaded`` in the ``metrics`` view (0 is pending)."""

    ACCEPTED = 1
    REJECTED = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Pending samples in the order in which they are to be sent.

    :ivar rows: the samples; numeric only.
    :ivar series: the series of every ``series_id`` in ``rows`` (it may hold others as well).
    :ivar last: where the last of ``rows`` stands; ``None`` when there are none.
    :ivar as_of: how often the store had been written to when they were read.
    """

    rows: Sequence[Row]
    series: Mapping[int, Series]
    last: Position | None = None
    as_of: int | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the server (or the check before it) said of some samples.

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
        """Store samples in one transaction; one that is already known is ignored.

        :return: how many were new.
        """
        ...

    def fetch(self, limit: int, until_ms: int, after: Position | None = None) -> "Deferred[Batch]":
        """Read pending samples by priority, then timestamp, then id.

        :param limit: how many at most.
        :param until_ms: leave out what is stamped later than this.
        :param after: begin behind this position.
        """
        ...

    def fetch_newest(self, limit: int, until_ms: int) -> "Deferred[Batch]":
        """Read the newest pending samples, whatever their priority, oldest of them first.

        :return: a batch without ``last``: it is no part of the order of sending.
        """
        ...

    def settle(self, settlements: Sequence[Settlement], now_ms: int) -> "Deferred[None]":
        """Record settlements, each with a checkpoint, in one transaction."""
        ...
