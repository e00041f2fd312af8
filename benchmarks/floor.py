"""The lower bound of the cost: the interpreter, SQLite and the protocol, and nothing of ours.

One thread sleeps between two ticks, reads the board's files without looking at the content, and
stores 80 samples in one flushed transaction. At every upload interval it sends the pending samples
on one connection and marks them. The statements and the encoder are the real ones.

The reactor, the parsers, the scheduler, hand-overs between threads, the log, the agent's own
metrics and the handling of failures are missing. They are what the service costs beyond this.
"""

import http.client
import os
import sqlite3
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from belatwist.clock.sources import wall_ms
from belatwist.config import Remote, Storage
from belatwist.model import Series
from belatwist.store import Outcome, Settlement
from belatwist.store.sql import queries, schema
from belatwist.upload.jsonl import Encoder, compress
from benchmarks import board
from benchmarks.harness import Plan, Row, in_worker, workspace
from benchmarks.server import proxy, victoria

NAME = "floor"

_FILES = ("stat", "meminfo", "diskstats", "net/dev", "loadavg", "uptime")
_HEADERS = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}


def measure(plan: Plan) -> list[Row]:
    """Measure the lower bound at both intervals, one after the other."""
    rows = []
    for interval in (1.0, 10.0):
        with workspace(plan) as where, victoria(where) as server, proxy(server) as wire:
            tree = where / "board"
            with board.Board().moving(tree, period=0.4):
                found = in_worker(
                    least, None, str(tree), str(where / "metrics.db"), wire.url,
                    interval=interval, every=plan.upload_interval, seconds=plan.window,
                )  # fmt: skip
        at = f"board model, {interval:g} s"
        cpu, samples = found["cpu"] * 1e6 / found["samples"], found["samples"]
        rows += [
            Row(NAME, f"CPU, {at}", cpu, "ms / 1,000 samples", f"{samples:.0f} samples"),
            Row(NAME, f"wire, {at}", found["body"] / samples, "bytes / sample", "the bodies alone"),
            Row(
                NAME,
                f"wire without labels, {at}",
                found["bare"] / samples,
                "bytes / sample",
                "values and one list of times, gzip",
            ),
        ]
    return rows


def _read(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    while os.read(descriptor, 16384):
        pass
    os.close(descriptor)


async def least(
    _reactor: Any, tree: str, database: str, url: str, *, interval: float, every: float,
    seconds: float,
) -> dict[str, float]:  # fmt: skip
    """Do the least work for some time.

    :param every: seconds between uploads.
    :return: CPU seconds, samples, bytes of the bodies, and of the bodies without names.
    """
    level = Remote().compression_level
    paths = [f"{tree}/proc/{name}" for name in _FILES]
    paths += map(str, sorted(Path(tree, "sys/class/thermal").glob("thermal_zone*/temp")))
    count, uploads = round(seconds / interval), round(every / interval)
    start_ms = wall_ms() - round(seconds * 1000)
    ticks = list(islice(board.ticks(start_ms, interval), count + 1))
    encoder = Encoder()
    server = http.client.HTTPConnection(urlsplit(url).netloc)
    body_bytes = bare_bytes = samples = 0
    cpu = 0.0
    with closing(sqlite3.connect(database)) as connection:
        settings = Storage()
        schema.configure(
            connection,
            synchronous=settings.synchronous,
            cache_mb=settings.cache_mb,
            mmap_mb=settings.mmap_mb,
        )
        schema.create(connection, "now")
        cursor = connection.cursor()
        session, _ = queries.begin_session(cursor, "floor", start_ms, "{}")
        _, known, _ = queries.insert(cursor, ticks[0], {}, session)
        connection.commit()
        series: dict[int, Series] = {number: one for one, number in known.items()}
        for number, tick in enumerate(ticks[1:], 1):
            time.sleep(interval)
            began = time.process_time()
            for path in paths:
                _read(path)
            queries.insert(cursor, tick, known, session)
            connection.commit()
            samples += len(tick)
            if number % uploads == 0:
                rows = queries.fetch(cursor, len(tick) * (uploads + 1), 1 << 60)
                body = compress(encoder.encode(rows, series), level)
                server.request("POST", urlsplit(url).path, body, _HEADERS)
                server.getresponse().read()
                queries.settle(
                    cursor,
                    [Settlement(Outcome.ACCEPTED, rows, "floor", number, as_of=0)],
                    start_ms,
                    0,
                )
                connection.commit()
                cpu += time.process_time() - began
                body_bytes += len(body)
                bare_bytes += len(compress(_bare(rows), level))
            else:
                cpu += time.process_time() - began
    server.close()
    return {"cpu": cpu, "samples": samples, "body": body_bytes, "bare": bare_bytes}


def _bare(rows: list[tuple[int, int, Any]]) -> bytes:
    """Write the values of each series on a line, and their common times once."""
    lines: dict[int, list[str]] = {}
    for _, number, value in rows:
        lines.setdefault(number, []).append(repr(value))
    times = sorted({row[0] for row in rows})
    return "\n".join([repr(times), *(",".join(one) for one in lines.values())]).encode()
