"""Which series are alive: those that were stored lately. Only they stay in memory."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series
from belatwist.store.sql import queries
from belatwist.text import one_line

MAX_SERIES = 10_000
"""Series that are alive at a time, at most, by default. One takes about 1.2 kB (measured)."""

ALIVE_FOR = 3600.0
"""Seconds for which a series is alive after its last sample, at least; at most twice as many."""

MAX_NAMED = 5
"""Refused series that health names, at most."""

_LONGEST_NAME = 100
"""Characters of a refused series' name and tags in health."""

_NO_ID = "the database has given out all ids for series"

SERIES_REFUSED = Event(
    "store.series_refused",
    LogLevel.warn,
    "{count} samples of new series are not stored, {reason}; the first is {metric} {tags}",
    cure="Find out where the names come from, and exclude them in the source's config. Raise"
    " storage.max_series if all of them are wanted. Where no id is left, let the agent begin a new"
    " database.",
)
SERIES_ACCEPTED = Event("store.series_accepted", LogLevel.info, "New series are stored again")


class AliveSeries:
    """Remembers the series that are alive, with their ids; only the database's thread uses it.

    Time is cut into periods. A series that was stored in this period or in the one before is alive.
    So nothing needs to be noted when a known series is stored, which happens 80 times a tick.

    :param limit: how many may be alive; beyond it there is no :attr:`room` for new ones.
    :param period: seconds.
    :param seconds: a monotonic clock.
    :ivar recent: ids of the series that were stored in this period.
    :ivar since: everything that was stored after this moment is alive.
    """

    def __init__(self, limit: int, period: float, seconds: Callable[[], float]) -> None:
        self.recent: dict[Series, int] = {}
        self._earlier: dict[Series, int] = {}  # None of them is in ``recent``.
        self._by_id: dict[int, Series] = {}
        self._limit = limit
        self._period = period
        self._seconds = seconds
        self._turned_at = self.since = seconds()

    def __len__(self) -> int:
        """Return how many are alive; safe to use from any thread."""
        return len(self.recent) + len(self._earlier)

    @property
    def room(self) -> int:
        """How many new series may become alive."""
        return max(self._limit - len(self), 0)

    def ids(self) -> set[int]:
        """Return the ids of the series that are alive."""
        return {*self.recent.values(), *self._earlier.values()}

    def known(self) -> Mapping[int, Series]:
        """Return the remembered series by their ids: all that are alive, and some that are not."""
        return self._by_id

    def touch(self, samples: Iterable[Sample]) -> None:
        """Note which series of the period before are being stored. Call this before storing."""
        if self._earlier:
            for one in samples:
                number = self._earlier.pop(one.series, None)
                if number is not None:
                    self.recent[one.series] = number

    def stored(self, new: Mapping[Series, int]) -> None:
        """Note what a committed transaction has stored.

        :param new: ids of the series that were not alive. Those of a transaction that was rolled
            back would point nowhere.
        """
        if new:
            self.recent.update(new)
            self._by_id.update((number, series) for series, number in new.items())
        now = self._seconds()
        if now - self._turned_at > self._period:
            self.since, self._turned_at = self._turned_at, now
            self._earlier, self.recent = self.recent, {}
            self._forget_read()

    def read(self, cursor: queries.Cursor, ids: Collection[int]) -> dict[int, Series]:
        """Return series by their ids, from memory or from the database."""
        missing = [number for number in ids if number not in self._by_id]
        if missing:
            if len(self._by_id) + len(missing) > 2 * self._limit:
                self._forget_read()
                missing = [number for number in ids if number not in self._by_id]
            found = queries.series_of(cursor, missing)
            self._by_id.update(found)
        return {number: self._by_id[number] for number in ids}

    def forget(self) -> None:
        """Forget everything, because another database replaces this one."""
        self.recent, self._earlier, self._by_id = {}, {}, {}

    def _forget_read(self) -> None:
        """Forget series that are not alive: they were only read."""
        self._by_id = {
            number: series
            for group in (self.recent, self._earlier)
            for series, number in group.items()
        }


class RefusedSeries:
    """Counts, logs and names the samples that are not stored, because too many series are alive.

    :param limit: how many series may be alive.
    :param seconds: a monotonic clock.
    :param telemetry: counts the samples.
    :ivar at: when samples were last refused, on that clock; ``None`` when none were.
    :ivar reason: why, in words.
    :ivar names: some of the series that were last refused, for health.
    """

    log = Logger()

    def __init__(self, limit: int, seconds: Callable[[], float], telemetry: Telemetry) -> None:
        self.at: float | None = None
        self.reason = ""
        self.names: tuple[str, ...] = ()
        self.limit = limit
        self._seconds = seconds
        self._telemetry = telemetry
        self._failures = FailureLog(self.log, seconds)

    def refused(self, samples: Sequence[Sample], alive: int) -> None:
        """Note samples that were not stored.

        :param alive: how many series are alive. If there is room for more, no id was left.
        """
        is_full = alive >= self.limit
        self.reason = f"storage.max_series ({self.limit}) are alive" if is_full else _NO_ID
        self._telemetry.metrics_refused.inc(len(samples))
        self.at = self._seconds()
        series = list(dict.fromkeys(one.series for one in samples))[:MAX_NAMED]
        self.names = tuple(one_line(f"{s.name} {s.tags_json}", _LONGEST_NAME) for s in series)
        self._failures.failed(
            SERIES_REFUSED,
            "" if is_full else _NO_ID,
            count=len(samples),
            reason=self.reason,
            metric=one_line(series[0].name, _LONGEST_NAME),
            tags=one_line(series[0].tags_json, _LONGEST_NAME),
        )

    def accepted(self) -> None:
        """Note that new series were stored."""
        self._failures.recovered(SERIES_ACCEPTED)
