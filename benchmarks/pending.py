"""The uploader's query with few and with very many pending samples."""

import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from belatwist.config.schema import Remote, Storage
from belatwist.model import Series, sample
from belatwist.store.sql import queries, schema
from benchmarks.harness import Plan, Row, workspace

NAME = "pending"
SIZES = (10_000, 100_000, 1_000_000)
_SERIES = 80
_TIMES = 50
_START_MS = 1_800_000_000_000


def measure(plan: Plan) -> list[Row]:
    """Read a batch from the head of the queue and another from its end, at each size."""
    rows = []
    with workspace(plan) as where:
        for size in SIZES if plan.backlog >= SIZES[-1] // 2 else SIZES[:1]:
            head, newest, count = _ask(where / f"{size}.db", size)
            what = f"{size:,} pending"
            rows += [
                Row(NAME, f"read a batch, {what}", head, "ms", "2,500 samples; median of 50"),
                Row(NAME, f"read the newest, {what}", newest, "ms", "2,500 samples; median of 50"),
                Row(NAME, f"count, {what}", count, "ms", "once, at the start of the service"),
            ]
    return rows


def _ask(path: Path, size: int) -> tuple[float, float, float]:
    """Fill a database and time the queries, in milliseconds."""
    settings, limit = Storage(), Remote().batch_size
    with closing(sqlite3.connect(path)) as connection:
        schema.configure(
            connection,
            synchronous="normal",  # Only for filling it.
            cache_mb=settings.cache_mb,
            mmap_mb=settings.mmap_mb,
        )
        schema.create(connection, "2027-01-15T08:00:00+00:00")
        cursor = connection.cursor()
        session, _ = queries.begin_session(cursor, "bench", _START_MS, "{}")
        series = [Series.of("bench", "device", {"core": str(i)}) for i in range(_SERIES)]
        ids = {one: queries.series_id(cursor, one) for one in series}
        for tick in range(size // _SERIES):
            at = _START_MS + 10_000 * tick
            queries.insert(cursor, [sample(s, at, 0.1 * tick) for s in series], ids, session)
        connection.commit()
        until = _START_MS * 2
        return (
            _median_ms(lambda: queries.fetch(cursor, limit, until)),
            _median_ms(lambda: queries.fetch_newest(cursor, limit, until)),
            _median_ms(lambda: queries.count_pending(cursor), times=3),
        )


def _median_ms(query: Callable[[], object], *, times: int = _TIMES) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        query()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000
