"""Decides which refused samples are sent again, and which are rejected.

A 400 should mean that the body is bad. But a proxy also answers it to a body that came too slowly,
and a server to an unknown path. So a sample is rejected only after two refusals by itself, in two
cycles, in both of which the server accepted other samples.
"""

from collections.abc import Iterable, Sequence

from belatwist.store import Key, Row

WHOLE_SERIES_AFTER = 8
"""After so many rejected samples in a row, the server is taken to refuse the whole series. Its
samples are then sent together."""


class _Record:
    """A series of which the server has refused a sample.

    :ivar refused: the samples that were refused by themselves, with the number of the cycle.
    :ivar rejected: how many were rejected since the server last accepted a sample.
    """

    def __init__(self) -> None:
        self.refused: dict[Key, int] = {}
        self.rejected = 0


class Quarantine:
    """Series with refused samples. They are in memory only, and learned anew after a restart."""

    def __init__(self) -> None:
        self._series: dict[int, _Record] = {}

    def contains(self, series_id: int) -> bool:
        """Return whether samples of a series are to be sent apart from all others."""
        return series_id in self._series

    def divert(
        self, rows: Sequence[Row], diverted: dict[int, list[Row]], limit: int
    ) -> Sequence[Row]:
        """Separate samples of quarantined series from the others.

        :param diverted: receives the samples of quarantined series, by series.
        :param limit: samples of a series in ``diverted``, at most. Further ones stay in the store.
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
        """Return whether a series' samples may be sent, and rejected, together."""
        record = self._series.get(series_id)
        return record is not None and record.rejected >= WHOLE_SERIES_AFTER

    def refused(self, rows: Iterable[Row], cycle: int) -> list[Row]:
        """Note that samples of one series were refused with nothing else in the body.

        :param cycle: the number of the cycle.
        :return: the samples that were refused in an earlier cycle as well: they are rejected.
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
        """Note that samples were accepted. A series leaves when none of its samples is refused."""
        if not self._series:
            return
        for row in rows:
            record = self._series.get(row[1])
            if record is not None:
                record.rejected = 0
                record.refused.pop((row[0], row[1]), None)
                if not record.refused:
                    del self._series[row[1]]
