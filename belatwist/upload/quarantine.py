"""Samples that the server has refused: which are to be asked about again, and which are given up.

A 400 says that the body is bad, but not always truly: a proxy says so of a body that came too
slowly, a server of a path that it does not know. So a sample is rejected only when it was refused
all by itself, and again in a later cycle, and the server took something else in both.
"""

from collections.abc import Iterable, Sequence

from belatwist.store import Key, Row

WHOLE_SERIES_AFTER = 8
"""So many samples of a series rejected in a row, and none taken, mean that it is the series that
the server refuses: from then on its samples are asked about together."""


class _Record:
    """What is known of a series that has had a sample refused.

    :ivar refused: the samples that were refused by themselves, with the cycle in which.
    :ivar rejected: how many were rejected since one was taken.
    """

    def __init__(self) -> None:
        self.refused: dict[Key, int] = {}
        self.rejected = 0


class Quarantine:
    """The book of what was refused. In memory: after a restart it is learned anew."""

    def __init__(self) -> None:
        self._series: dict[int, _Record] = {}

    def contains(self, series_id: int) -> bool:
        """Whether samples of a series are to be asked about apart from all others."""
        return series_id in self._series

    def divert(
        self, rows: Sequence[Row], diverted: dict[int, list[Row]], limit: int
    ) -> Sequence[Row]:
        """Part samples of suspected series from the others.

        :param diverted: the former go here, by series.
        :param limit: of how many a series keeps there; what is beyond waits in the store.
        :return: the others, in their order.
        """
        if not any(self.contains(i) for i in {row[1] for row in rows}):
            return rows
        others = []
        for row in rows:
            if not self.contains(row[1]):
                others.append(row)
            elif len(kept := diverted.setdefault(row[1], [])) < limit:
                kept.append(row)
        return others

    def rejects_whole_series(self, series_id: int) -> bool:
        """Whether a series' samples may be asked about, and rejected, together."""
        record = self._series.get(series_id)
        return record is not None and record.rejected >= WHOLE_SERIES_AFTER

    def refused(self, rows: Iterable[Row], cycle: int) -> list[Row]:
        """Record that samples of one series were refused with nothing else in the body.

        :param cycle: the number of the cycle.
        :return: those that had been so in an earlier cycle: they are rejected.
        """
        rejected = []
        for row in rows:
            record = self._series.setdefault(row[1], _Record())
            key = (row[0], row[1])
            if record.refused.setdefault(key, cycle) < cycle:
                del record.refused[key]
                record.rejected += 1
                rejected.append(row)
        return rejected

    def accepted(self, rows: Iterable[Row]) -> None:
        """Record that samples were taken: their series are suspected no longer."""
        if not self._series:
            return
        for row in rows:
            record = self._series.get(row[1])
            if record is not None:
                record.rejected = 0
                record.refused.pop((row[0], row[1]), None)
                if not record.refused:
                    del self._series[row[1]]
