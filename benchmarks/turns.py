"""How long the reactor is held up, with everything going on at once."""

import json
import time
from pathlib import Path

import yaml

from belatwist.clock import wall_ms
from benchmarks import drain
from benchmarks.agent import agent, config
from benchmarks.harness import Plan, Row, in_worker, wait_until, workspace
from benchmarks.server import proxy, victoria

NAME = "turns"
_SECONDS = 30.0

# Runs first in the service's process: what lies between two waits of the reactor is a turn.
_CLOCKED = """
import atexit, json, time
from twisted.internet import reactor
class Clocked:
    def __init__(self, poller):
        self._poller, self.turns, self._began = poller, [], None
    def __getattr__(self, name):
        return getattr(self._poller, name)
    def poll(self, *arguments):
        now = time.perf_counter()
        if self._began is not None:
            self.turns.append(now - self._began)
        try:
            return self._poller.poll(*arguments)
        finally:
            self._began = time.perf_counter()
reactor._poller = clocked = Clocked(reactor._poller)
atexit.register(lambda: json.dump(clocked.turns, open({path!r}, "w")))
"""


def measure(plan: Plan) -> list[Row]:
    """Collect at 1 s, drain a backlog, empty the log and delete every few seconds."""
    with workspace(plan) as where, victoria(where) as server, proxy(server) as wire:
        backlog = min(plan.backlog, 200_000)
        in_worker(drain.fill, None, str(where / "metrics.db"), backlog)
        path = config(where, interval=1.0, url=wire.url, upload_interval=1.0, root=Path("/"))
        settings = yaml.safe_load(path.read_text())
        settings["storage"].update(
            wal_checkpoint_interval="3s", retention={"uploaded": "3s", "max_size_mb": 64}
        )
        path.write_text(yaml.safe_dump(settings))
        found = where / "turns.json"
        with agent(where, path, setup=_CLOCKED.format(path=str(found))) as running:
            began = wall_ms()
            time.sleep(min(_SECONDS, plan.seconds))
            stored = running.stored(began, wall_ms())
        wait_until(found.exists, seconds=10, what="the turns")
        # The first is the imports and the start, before anything waits for the reactor.
        turns = sorted(json.loads(found.read_text())[1:])
    note = f"{len(turns):,} turns, {stored} samples collected, {backlog:,} drained, and deleted"
    return [
        Row(NAME, "longest turn of the reactor", turns[-1] * 1000, "ms", note),
        Row(NAME, "99 % are shorter than", turns[len(turns) * 99 // 100] * 1000, "ms", ""),
    ]
