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

MAX_SERIES = 1024
"""Series in quarantine, at most."""

MAX_REFUSED = 20_000
"""Refused samples that are remembered, at most: two of the largest batches."""


class _Record:
    """A series of which the server has refused a sample.

    :ivar refused: the samples that were refused by themselves, with the number of the cycle.
    :ivar rejected: how many were rejected since the server last accepted a sample.
    """

    def __init__(self) -> None:
        self.refused: dict[Key, int] = {}
        self.rejected = 0


class Quarantine:
    """Series with refused samples. They are in memory only, and learned anew after a restart.

    Memory is bounded: what has to make way is learned anew as well.
    """

    def __init__(self) -> None:
        self._series: dict[int, _Record] = {}
        self._count = 0  # Of refused samples, in all records.

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
            record = self._series.get(row[1]) or self._admit(row[1])
            key = (row[0], row[1])
            first = record.refused.get(key)
            if first is None:
                if self._count >= MAX_REFUSED:
                    self._make_room(record)
                record.refused[key] = cycle
                self._count += 1
            elif first < cycle:
                self._count -= 1
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
                if record.refused.pop((row[0], row[1]), None) is not None:
                    self._count -= 1
                if not record.refused:
                    del self._series[row[1]]

    def _admit(self, series_id: int) -> _Record:
        """Begin a record. If there are too many, the first without refused samples makes way."""
        if len(self._series) >= MAX_SERIES:
            first = next(iter(self._series))
            gone = next((i for i, one in self._series.items() if not one.refused), first)
            self._count -= len(self._series.pop(gone).refused)
        record = self._series[series_id] = _Record()
        return record

    def _make_room(self, record: _Record) -> None:
        """Forget the refused samples of the first record that has any, other than the given one.

        If no other has any, those of the given one are forgotten.
        """
        others = (one for one in self._series.values() if one.refused and one is not record)
        gone = next(others, record)
        self._count -= len(gone.refused)
        gone.refused.clear()
