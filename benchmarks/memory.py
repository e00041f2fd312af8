"""Resident memory of the interpreter, of the imports alone, and of the service."""

import subprocess
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.agent import Agent, agent, config
from benchmarks.board import Board
from benchmarks.harness import FailedError, Memory, Plan, Row, wait_until, workspace

NAME = "memory"
UNIT = "MiB PSS"

_IMPORTS = (
    ("a bare interpreter", ""),
    ("+ Twisted's reactor", "import twisted.internet.reactor"),
    ("+ twistd", "import twisted.internet.reactor, twisted.scripts.twistd"),
    ("+ treq", "import twisted.internet.reactor, twisted.scripts.twistd, treq"),
    (
        "+ everything the service imports",
        "import twisted.internet.reactor, twisted.scripts.twistd, treq, belatwist.tap,"
        " belatwist.app, sqlite3",
    ),
)
# The real process, whose collectors run at another interval than the file says.
_FAST = (
    "from belatwist.collectors import registry; build = registry.build;"
    " registry.build = lambda *a, **k: [one._replace(every=0.02) for one in build(*a, **k)];"
)
_PRINT = (
    "\nfor line in open('/proc/self/smaps_rollup'):\n"
    "    if line.startswith(('Pss:', 'Rss:')): print(line.split()[1])"
)


def measure(plan: Plan) -> list[Row]:
    """Measure the imports, the service after its start, and after many samples."""
    rows = []
    for what, code in _IMPORTS:
        found = imported(code)
        rows.append(Row(NAME, what, found.pss, UNIT, f"RSS {found.rss:.1f} MiB"))
    with workspace(plan) as where:
        path = config(where, interval=1.0, url=None, upload_interval=30.0, root=Path("/"))
        with agent(where, path) as running:
            wait_until(
                lambda: running.ask("SELECT count(DISTINCT timestamp_ms) FROM samples") >= 3,
                seconds=20,
                what="the third tick",
            )
            found = harness.memory(running.pid)
        rows.append(
            Row(NAME, "the service after start", found.pss, UNIT, f"RSS {found.rss:.1f} MiB")
        )
    rows += grown(plan)
    return rows


def grown(plan: Plan) -> list[Row]:
    """Let a service store many samples at ticks of 20 ms, which no configuration file allows."""
    rows = []
    with workspace(plan) as where, Board().moving(where / "board", period=0.05):
        path = config(where, interval=1.0, url=None, upload_interval=30.0, root=where / "board")
        with agent(where, path, setup=_FAST) as running:
            for wanted in (plan.samples // 100, plan.samples):
                _wait_for(running, wanted)
                found = harness.memory(running.pid)
                what = f"the service after {wanted:,} stored"
                note = f"RSS {found.rss:.1f} MiB; board model every 20 ms, none uploaded"
                rows.append(Row(NAME, what, found.pss, UNIT, note))
    return rows


def _wait_for(running: Agent, samples: int) -> None:
    wait_until(
        lambda: running.ask("SELECT count(*) FROM samples") >= samples,
        seconds=240,
        what=f"sample {samples}",
        step=0.2,
    )


def imported(code: str) -> Memory:
    """Measure a new interpreter that has run some code."""
    done = subprocess.run(
        [sys.executable, "-c", code + _PRINT],
        cwd=harness.ROOT, check=False, stdout=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    if done.returncode:
        raise FailedError(f"{code}: status {done.returncode}")
    amounts = sorted(int(line) / 1024 for line in done.stdout.split())
    return Memory(pss=amounts[0], rss=amounts[-1])
