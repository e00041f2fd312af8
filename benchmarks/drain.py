"""Draining a backlog: the real service against the real server, with a long outage behind it."""

import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from belatwist.clock.sources import wall_ms
from benchmarks import stages
from benchmarks.agent import agent, config
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
from benchmarks.server import proxy, victoria

NAME = "drain"
_INTERVAL = 5.0
_ROUND_TRIP = 0.2
_SENT = "SELECT sum(metrics_count) FROM upload_checkpoints WHERE outcome = 1"


_FRESH = (
    "FROM samples s JOIN upload_checkpoints c ON c.id = s.checkpoint_id WHERE s.timestamp_ms >= ?"
)


def measure(plan: Plan) -> list[Row]:
    """Drain a backlog on loopback, and again over a slow link."""
    return _drain(plan, "", 0.0) + _drain(plan, f", {_ROUND_TRIP * 1000:.0f} ms", _ROUND_TRIP)


def _drain(plan: Plan, at: str, round_trip: float) -> list[Row]:
    """Fill a database, start the service on it, and watch until all of it is delivered.

    This machine's host collectors run at 1 s meanwhile, and their samples count as well.

    :param at: distinguishes the rows from those of another link.
    """
    with (
        workspace(plan) as where,
        victoria(where) as server,
        proxy(server, round_trip=round_trip) as wire,
    ):
        backlog = int(in_worker(fill, None, str(where / "metrics.db"), plan.backlog)["samples"])
        path = config(where, interval=1.0, url=wire.url, upload_interval=_INTERVAL, root=Path("/"))
        with agent(where, path) as running:
            running.wait_for_a_tick()
            time.sleep(1)
            before, cpu = memory(running.pid), cpu_seconds(running.pid)
            wait_until(
                lambda: wire.began is not None, seconds=20, what="the first request", step=0.01
            )
            began = wire.began or 0.0
            most, sent = before, 0
            while sent < backlog:
                if time.monotonic() > began + 240:
                    raise FailedError(f"{sent} of {backlog} samples delivered after 240 s")
                time.sleep(0.1)
                sent = running.ask(_SENT)
                now = memory(running.pid)
                most = now if now.pss > most.pss else most
            took = time.monotonic() - began
            cpu, passed = cpu_seconds(running.pid) - cpu, wire.bytes
            requests = running.ask("SELECT count(*) FROM upload_checkpoints")
            began_ms = wall_ms() - round(took * 1000)
            late = _longest_gap(running.ask, began_ms=began_ms)
            waited = running.ask(f"SELECT max(c.upload_time - s.timestamp_ms) {_FRESH}", began_ms)
            fresh = running.ask(f"SELECT count(*) {_FRESH}", began_ms)
        wait_until(lambda: server.rows() >= sent, seconds=5, what="the server's count")
    note = f"{sent:,} samples in {requests} requests, {took:.1f} s"
    return [
        Row(NAME, f"rate{at}", sent / took, "samples / s", note),
        Row(NAME, f"CPU{at}", cpu * 1e6 / sent, "ms / 1,000 samples", "the whole service"),
        Row(NAME, f"wire{at}", passed / sent, "bytes / sample", "headers included"),
        Row(NAME, f"memory with the backlog{at}", before.pss, "MiB PSS", _rss(before)),
        Row(NAME, f"memory while draining, most{at}", most.pss, "MiB PSS", _rss(most)),
        Row(NAME, f"longest time between two ticks{at}", late, "s", "of 1 s, while draining"),
        Row(
            NAME,
            f"longest wait of a fresh sample{at}",
            waited / 1000 if fresh else None,
            "s",
            f"of {fresh} delivered while draining, an upload each {_INTERVAL:g} s",
        ),
    ]


def _rss(found: Memory) -> str:
    return f"RSS {found.rss:.1f} MiB"


def _longest_gap(ask: Any, *, began_ms: int) -> float:
    """Return the longest time in seconds between two collections since a moment."""
    longest: int = ask(
        "SELECT max(gap) FROM (SELECT timestamp_ms - lag(timestamp_ms) OVER (ORDER BY timestamp_ms)"
        " AS gap FROM (SELECT DISTINCT timestamp_ms FROM samples WHERE timestamp_ms >= ?))",
        began_ms - 1500,
    )
    return longest / 1000


async def fill(reactor: Any, path: str, samples: int) -> dict[str, float]:
    """Make a database with a backlog: the board model, a tick every 10 s until an hour ago."""
    database = stages.open_store(reactor, path)
    await database.open(str(uuid4()), wall_ms())
    start_ms = wall_ms() - samples * 10_000 // 75 - 3600 * 1000
    done = await stages.fill(database, samples, start_ms=start_ms, interval=10.0)
    await database.close(wall_ms())
    return {"samples": done}
