"""Start-up: from the start of the process until the first sample can be read from the database."""

import time
from pathlib import Path
from statistics import median

from benchmarks.agent import agent, config
from benchmarks.harness import Plan, Row, cpu_seconds, wait_until, workspace

NAME = "start-up"


def measure(plan: Plan) -> list[Row]:
    """Start the service several times, each time without a database."""
    took, spent = [], []
    for number in range(plan.starts + 1):
        with workspace(plan) as where:
            path = config(where, interval=1.0, url=None, upload_interval=30.0, root=Path("/"))
            with agent(where, path) as running:
                wait_until(
                    lambda: running.ask("SELECT 1 FROM samples LIMIT 1") == 1,
                    seconds=30,
                    what="the first sample",
                    step=0.002,
                )
                if number:  # The first start may compile, and fills the page cache.
                    took.append((time.monotonic() - running.spawned) * 1000)
                    spent.append(cpu_seconds(running.pid) * 1000)
    note = f"{plan.starts} starts with no database, files cached"
    return [
        Row(NAME, "to the first stored sample, fastest", min(took), "ms", note),
        Row(NAME, "to the first stored sample, median", median(took), "ms", note),
        Row(NAME, "CPU until then, median", median(spent), "ms", "all threads"),
    ]
