"""``bela tail``: prints new samples of the database."""

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator

import click

from belatwist.cli import output
from belatwist.cli.database import (
    MAX_KEY,
    SAMPLES,
    TEXTS,
    DatabaseError,
    DatabaseReader,
    SampleRow,
)
from belatwist.clock.sources import WallClock
from belatwist.collectors.registry import CATALOGUE
from belatwist.model import Series
from belatwist.store import MIN_KEY, Key
from belatwist.text import escape

LATE_MS = 120_000
"""Maximum delay with which a sample may be stored and still be shown. Samples that waited in the
agent's memory, because the disk was full, come late."""

MAX_PAGES_BACK = 20
"""Pages in which to look for the last samples: a rare metric must not cost the whole table."""

Found = tuple[SampleRow, Series]


class Follower:
    """Finds new samples in a database.

    The key of a sample has its own time, not the time at which it was stored. So the follower reads
    all recent samples each time, and leaves out those that it has seen. Recent samples are at most
    :data:`LATE_MS` older than the newest sample, or than now if the clock was set back since.

    :param wanted: tells from its stored name whether to show a metric.
    """

    def __init__(
        self, database: DatabaseReader, wanted: Callable[[str], bool], wall_ms: WallClock
    ) -> None:
        self._database = database
        self._wanted = wanted
        self._wall_ms = wall_ms
        self._newest = 0
        self._from = 0
        self._seen: set[tuple[str, Key]] = set()

    def last(self, count: int) -> list[Found]:
        """Return the last samples, oldest first; :meth:`new` leaves them out.

        :param count: maximum number of samples.
        :raises DatabaseError: when the database cannot be read.
        """
        self._begin()
        if count == 0:
            return []
        found = [pair for table in (SAMPLES, TEXTS) for pair in self._backwards(table, count)]
        return sorted(found, key=lambda pair: pair[0].key)[-count:]

    def new(self) -> list[Found]:
        """Return the samples that were stored since the last call, in order of time.

        :raises DatabaseError: when the database cannot be read. The next call returns them then.
        """
        begin = min(self._newest, self._wall_ms()) - LATE_MS
        read = [
            ((table, row.key), row, page.series[row.series_id])
            for table in (SAMPLES, TEXTS)
            for page in self._database.pages(table, (begin, 0))
            for row in page.rows
        ]
        # The last reading did not look at samples before its beginning. They are old, not new.
        new = [
            (row, series)
            for seen, row, series in read
            if row.timestamp_ms >= self._from and seen not in self._seen
        ]
        self._from = begin
        self._seen = {seen for seen, _, _ in read}
        self._newest = max((row.timestamp_ms for _, row, _ in read), default=self._newest)
        new.sort(key=lambda pair: pair[0].key)
        return [(row, series) for row, series in new if self._wanted(series.name)]

    def _begin(self) -> None:
        """Note the samples that the database has now."""
        newest = [self._database.page(table, newest=True, limit=1) for table in (SAMPLES, TEXTS)]
        self._newest = max((row.timestamp_ms for page in newest for row in page.rows), default=0)
        self.new()

    def _backwards(self, table: str, count: int) -> Iterator[Found]:
        before = MAX_KEY
        for _ in range(MAX_PAGES_BACK):
            page = self._database.page(table, MIN_KEY, before, newest=True)
            for row in page.rows:
                series = page.series[row.series_id]
                if self._wanted(series.name):
                    yield row, series
                    count -= 1
                    if count <= 0:
                        return
            if not page.rows:
                return
            before = page.rows[-1].key


def pattern(glob: str | None) -> Callable[[str], bool]:
    """Return a function that tells whether a stored name matches; ``None`` matches all."""
    if glob is None:
        return lambda _: True
    return lambda name: fnmatch.fnmatchcase(name, glob)


def json_line(row: SampleRow, series: Series) -> str:
    """Format a sample as a JSON object."""
    return json.dumps(
        {
            "time": output.utc(row.timestamp_ms),
            "timestamp_ms": row.timestamp_ms,
            "metric": series.name,
            "tags": dict(series.tags),
            "value": row.value,
            "device": series.device_id,
            "session": row.session,
            "state": row.state,
        }
    )


class Lines:
    """Formats samples as aligned lines."""

    def __init__(self) -> None:
        self._columns = output.Columns((23, 32, 16, 14), right=(3,))

    def __call__(self, row: SampleRow, series: Series) -> str:
        """Return a sample's line: time, name, tags, value with unit, state."""
        entry = CATALOGUE.get(series.name)
        cells = (
            output.local(row.timestamp_ms),
            escape(series.name),
            output.tags(series.tags),
            escape(output.number(row.value)),
        )
        unit = entry.unit if entry else ""
        return f"{self._columns.line(cells)} {unit:12} {row.state}"


def tail(
    database: DatabaseReader,
    *,
    wanted: Callable[[str], bool],
    count: int,
    interval: float,
    as_json: bool,
    wall_ms: WallClock,
    wait: Callable[[float], bool] = output.wait,
) -> None:
    """Print the last samples, and then new ones until interrupted.

    :param wanted: tells from its stored name whether to show a metric.
    :param interval: seconds between two readings.
    :param wait: waits for a number of seconds; false ends the command.
    :raises DatabaseError: when the first reading fails. A later failure is printed once, and the
        command waits for its end.
    """
    follower = Follower(database, wanted, wall_ms)
    line = json_line if as_json else Lines()
    failure: str | None = None
    try:
        _show(follower.last(count), line)
        while wait(interval):
            try:
                found = follower.new()
            except DatabaseError as error:
                if str(error) != failure:
                    output.notify(f"{error} (waiting)")
                failure = str(error)
                continue
            if failure is not None:
                output.notify("the database can be read again")
                failure = None
            _show(found, line)
    except (KeyboardInterrupt, BrokenPipeError):
        return


def _show(found: Iterable[Found], line: Callable[[SampleRow, Series], str]) -> None:
    for row, series in found:
        click.echo(line(row, series))
