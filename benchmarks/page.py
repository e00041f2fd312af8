"""The cost of the status page, without and with a viewer."""

import gzip
import json
import sqlite3
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from belatwist.store.sql import schema
from belatwist.store.sql.ranges import Buckets, Grid, RangeScan
from belatwist.web.page import index
from benchmarks.agent import Agent, agent, config
from benchmarks.harness import (
    FailedError,
    Memory,
    Plan,
    Row,
    cpu_seconds,
    in_worker,
    memory,
    wait_until,
    workspace,
)

NAME = "page"

_INTERVAL = 10.0
_ASKED_EVERY = 5.0
_DAY = 86_400
_NEW = 20
_LINES = (
    "network.tx_bytes_total",
    "network.rx_bytes_total",
    "disk.write_bytes_total",
    "disk.read_bytes_total",
)
_BANDS = (
    "cpu.temperature",
    'cpu.usage_percent{core="all"}',
    "memory.used_bytes",
    "storage.metrics_pending_upload",
)

# Runs first in the service's process, and takes the page from it.
_WITHOUT = (
    "import sys, types; none = types.ModuleType('belatwist.web.page.resource');"
    " none.Page = type('Page', (), {'__new__': lambda *parts: None});"
    " sys.modules[none.__name__] = none;"
)

# A day of the board's 80 series.
_FILL = """
WITH RECURSIVE tick (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM tick WHERE n + 1 < ?)
INSERT INTO samples (timestamp_ms, series_id, value, priority, session_number)
SELECT ? - 10000 * n, s.id, 1e9 - 1000 * n + s.id, 2, 1 FROM tick, series s ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class _Found:
    cpu: float
    memory: Memory


def measure(plan: Plan) -> list[Row]:
    """Watch three services at once: without the page, with the page, and with a viewer."""
    with workspace(plan) as where, ThreadPoolExecutor(3) as pool:
        cases = (("without the page", _WITHOUT), ("nobody looks", ""), ("one viewer", ""))
        ended = threading.Event()
        running = [
            pool.submit(_watch, where / str(number), setup, what == "one viewer", plan, ended)
            for number, (what, setup) in enumerate(cases)
        ]
        try:
            found = [one.result() for one in running]
        finally:
            ended.set()
        note = f"{plan.window:.0f} s, this machine at {_INTERVAL:g} s"
        rows = []
        for (what, _), one in zip(cases, found, strict=True):
            rows += [
                Row(NAME, f"CPU, {what}", 100 * one.cpu / plan.window, "% of a core", note),
                Row(NAME, f"memory, {what}", one.memory.rss, "MiB RSS", ""),
            ]
        rows += _day(plan, where / "day")
    return rows


def _watch(where: Path, setup: str, looked_at: bool, plan: Plan, ended: threading.Event) -> _Found:
    path = config(where, interval=_INTERVAL, url=None, upload_interval=30.0, root=Path("/"))
    with agent(where, path, setup=setup) as running:
        wait_until(
            lambda: running.ask("SELECT 1 FROM samples LIMIT 1") == 1,
            seconds=20,
            what="the first sample",
        )
        url = address(path)
        if looked_at:
            look(url, 0)
        ended.wait(_INTERVAL)
        cpu, end = cpu_seconds(running.pid), time.monotonic() + plan.window
        number = 0
        while time.monotonic() < end:
            ended.wait(min(_ASKED_EVERY, end - time.monotonic()))
            number += 1
            if looked_at:
                look(url, number)
        if ended.is_set():
            raise FailedError("given up")
        return _Found(cpu_seconds(running.pid) - cpu, memory(running.pid))


def look(url: str, number: int) -> None:
    """Send the requests of the page: first for everything, then for new values and points."""
    if number == 0:
        for file in ("", *(f"page/{one.name}" for one in index.STATIC.iterdir() if _is_used(one))):
            get(url + file)
        _chart(url, 900, 10)
    else:
        get(f"{url}api/v1/now")
        if number % 2 == 0:
            _chart(url, _NEW, 10)


def day(url: str) -> None:
    """Request a whole day as the page does, in six pieces."""
    for ago in range(0, _DAY, 14_400):
        _chart(url, 14_400, 480, ago)


def _is_used(path: Path) -> bool:
    return path.suffix in (".js", ".css")


def _chart(url: str, seconds: int, step: int, ago: int = 0) -> None:
    """Request points: at first lines and bands apart, then the new points of both at once."""
    end = int(time.time()) - ago
    for names in (_LINES, _BANDS) if seconds > _NEW else (_LINES + _BANDS,):
        query: list[tuple[str, object]] = [("start", end - seconds), ("end", end), ("step", step)]
        query += [("series", one) for one in names]
        query.append(("values", "avg" if names is _LINES else "min,avg,max"))
        get(f"{url}api/v1/query_range?{urlencode(query)}")


def get(url: str) -> bytes:
    """Fetch an address."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
    return body


def address(configuration: Path) -> str:
    """Return the URL of the page of a service with this configuration."""
    health: dict[str, Any] = yaml.safe_load(configuration.read_text())["health"]
    return f"http://{health['host']}:{health['port']}/"


def _day(plan: Plan, where: Path) -> list[Row]:
    """Load a whole day."""
    where.mkdir()
    samples = 80 * int(_DAY / _INTERVAL) if plan.seconds >= 60 else 80 * 100
    database = where / "metrics.db"
    fill(database, samples // 80)
    found = in_worker(pieces, None, str(database))
    path = config(where, interval=_INTERVAL, url=None, upload_interval=30.0, root=Path("/"))
    with agent(where, path) as running:
        _wait_until_open(running)
        cpu, began = cpu_seconds(running.pid), time.monotonic()
        day(address(path))
        took, cpu = time.monotonic() - began, cpu_seconds(running.pid) - cpu
        first = len(get(address(path)))
    for name in ("page.css", "page.js"):
        first += len(gzip.compress((index.STATIC / name).read_bytes()))
    note = f"{samples:,} samples"
    return [
        Row(NAME, "a day's charts", took * 1000, "ms", note),
        Row(NAME, "CPU of that", cpu * 1000, "ms", "the whole service's"),
        Row(NAME, "longest piece of it", found["longest"] * 1000, "ms", "of the database's thread"),
        Row(NAME, "the first view", first / 1000, "kB", "page, style and script, gzip"),
    ]


def _wait_until_open(running: Agent) -> None:
    active = "SELECT count(*) FROM sessions WHERE status = 'active'"
    wait_until(lambda: running.ask(active) == 1, seconds=20, what="the start")
    wait_until(
        lambda: running.ask("SELECT max(timestamp_ms) FROM samples") > (time.time() - 5) * 1000,
        seconds=20,
        what="the first sample",
    )


def fill(database: Path, ticks: int) -> None:
    """Make a database of the board's series, whose last tick was now."""
    with closing(sqlite3.connect(database)) as connection:
        schema.configure(connection, synchronous="normal", cache_mb=8, mmap_mb=0)
        schema.create(connection, "2026-01-01T00:00:00+00:00")
        with connection:
            connection.execute("INSERT INTO sessions VALUES (1, 's', 1, 2, 'completed', '{}')")
            names = [(name, "{}") for name in ("cpu.temperature", "memory.used_bytes")]
            names += [
                ("cpu.usage_percent", json.dumps({"core": core})) for core in ("all", *"0123")
            ]
            for which in ("tx_bytes", "rx_bytes", "tx_packets", "rx_packets"):
                names += [
                    (f"network.{which}_total", json.dumps({"interface": f"usb{n}"}))
                    for n in range(6)
                ]
            names += [(f"other.{n}", "{}") for n in range(80 - len(names))]
            connection.executemany(
                "INSERT INTO series (name, device_id, tags, value_type) VALUES (?, 'bench', ?, 0)",
                names,
            )
            connection.execute(_FILL, (ticks, int(time.time() * 1000)))


async def pieces(_reactor: Any, path: str) -> dict[str, float]:
    """Read a day on this thread, and time each piece."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        cursor = connection.cursor()
        end_ms = cursor.execute("SELECT max(timestamp_ms) FROM samples").fetchone()[0]
        kinds: dict[bool, dict[int, Buckets]] = {True: {}, False: {}}
        wanted = {name.partition("{")[0] for name in _LINES + _BANDS}
        for number, name in cursor.execute("SELECT id, name FROM series").fetchall():
            if name in wanted:
                kinds[name.endswith("_total")][number] = Buckets(180)
        scan = RangeScan(Grid(end_ms - _DAY * 1000, 480_000, 180), kinds[False], kinds[True])
        longest, count, more = 0.0, 0, True
        while more:
            began = time.thread_time()
            more = scan.advance(cursor)
            longest, count = max(longest, time.thread_time() - began), count + 1
    return {"longest": longest, "pieces": count}
