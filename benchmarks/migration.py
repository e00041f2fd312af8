"""Migration: a database of version 2 becomes version 3."""

import sqlite3
import time
from contextlib import closing
from typing import Any

from belatwist.clock.sources import wall_ms
from belatwist.config.schema import Storage
from belatwist.store.migration.steps import Migration
from belatwist.store.sql import schema
from benchmarks.harness import Plan, Row, in_worker, memory, workspace, written_bytes
from tests.store.migration import legacy_databases

NAME = "migration"
ROWS = 200_000
"""Rows of the database, whatever the plan is: the question is about this size."""


def measure(plan: Plan) -> list[Row]:
    """Migrate a database of mixed upload state, with duplicates."""
    with workspace(plan) as where:
        path = where / "metrics.db"
        legacy_databases.version_2(path, legacy_databases.mixed(ROWS))
        before = path.stat().st_size / 2**20
        found = in_worker(migrate, None, str(path))
        after = path.stat().st_size / 2**20
    note = f"{ROWS:,} rows, uploaded, pending, rejected and twice"
    grown = "how much memory grows, most of it the page cache"
    return [
        Row(NAME, "time", found["seconds"], "s", note),
        Row(
            NAME,
            "longest step",
            found["longest"] * 1000,
            "ms",
            "5,000 rows; or the file written anew",
        ),
        Row(NAME, "memory", found["memory"], "MiB RSS", grown),
        Row(NAME, "written", found["written"] / 2**20, "MiB", "by the process"),
        Row(NAME, "file", after, "MiB", f"of {before:.1f} MiB"),
    ]


async def migrate(_reactor: Any, path: str) -> dict[str, float]:
    """Migrate as the store does, step by step."""
    settings = Storage()
    before, written, began, longest = memory(), written_bytes(), time.monotonic(), 0.0
    with closing(sqlite3.connect(path)) as connection:
        schema.configure(
            connection,
            synchronous=settings.synchronous,
            cache_mb=settings.cache_mb,
            mmap_mb=settings.mmap_mb,
        )
        migration = Migration(wall_ms())
        more = True
        while more:
            started = time.monotonic()
            more = migration.step(connection)
            longest = max(longest, time.monotonic() - started)
        seconds, after = time.monotonic() - began, memory()
    return {
        "seconds": seconds,
        "longest": longest,
        "memory": after.rss - before.rss,
        "written": written_bytes() - written,
    }
