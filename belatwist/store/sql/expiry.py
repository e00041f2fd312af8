"""Finds out which samples are old enough to be deleted, also when the wall clock jumps."""

from collections import deque
from typing import NamedTuple

from belatwist.store import MIN_KEY
from belatwist.store.sql.queries import Cursor

CLOCK_TRUST = 3600.0
"""For this long, in seconds, a new process does not judge by the wall clock. A device without a
battery for its clock has had it set by then."""


class Observation(NamedTuple):
    """A moment of this run.

    :ivar seconds: when, on the monotonic clock.
    :ivar settlement: the newest settlement then.
    :ivar wall_ms: the wall clock then, in Unix milliseconds.
    """

    seconds: float
    settlement: int
    wall_ms: int


class ExpiryClock:
    """Finds the samples that are old enough, also when the wall clock jumps.

    The monotonic clock times the samples that this run settles, through observations. Only the wall
    clock can judge those of an earlier run. If it is wrong, they are old enough at the latest when
    this run is.

    :param keep: seconds that something is kept.
    :param start: the beginning of this run.
    """

    def __init__(self, keep: float, start: Observation) -> None:
        self._keep = keep
        self._start = start
        self._observations = deque([start])

    def observe(self, now: Observation) -> bool:
        """Take note of the present; about 100 observations are kept.

        :return: whether this is another database than before: a settlement's number never falls.
        """
        if now.settlement < self._observations[-1].settlement:
            self._start = now
            self._observations = deque([now])
            return True
        if now.seconds - self._observations[-1].seconds >= self._keep / 100:
            self._observations.append(now)
        return False

    def bounds(self, cursor: Cursor, now: Observation) -> tuple[int, int]:
        """Find the bounds of what is old enough.

        :return: the last settlement that is old enough (0 for none); and a time in milliseconds:
            texts stamped before it are old enough.
        """
        while (
            len(self._observations) > 1
            and now.seconds - self._observations[1].seconds >= self._keep
        ):
            self._observations.popleft()
        settlement, before_ms = 0, MIN_KEY[0]
        cutoff_ms = now.wall_ms - round(self._keep * 1000)
        if now.seconds - self._observations[0].seconds >= self._keep:
            settlement = self._observations[0].settlement
            before_ms = min(cutoff_ms, self._observations[0].wall_ms)
        if now.seconds - self._start.seconds >= min(CLOCK_TRUST, self._keep):
            cursor.execute(
                # If a settlement is old enough, then so are those before it, whatever their times.
                "SELECT max(id) FROM upload_checkpoints WHERE id <= ? AND upload_time <= ?",
                (self._start.settlement, cutoff_ms),
            )
            settlement = max(settlement, cursor.fetchone()[0] or 0)
            before_ms = max(before_ms, min(cutoff_ms, self._start.wall_ms))
        return settlement, before_ms
