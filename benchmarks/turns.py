"""The longest turn of the reactor while everything happens at once."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import yaml

from belatwist.clock.sources import wall_ms
from benchmarks import drain, page
from benchmarks.agent import agent, config
from benchmarks.board import Board
from benchmarks.harness import FailedError, Plan, Row, in_worker, wait_until, workspace
from benchmarks.server import Victoria, victoria
from benchmarks.sidebyside.gate import Gate, gate

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray

NAME = "turns"
_OUTAGES = 12
_AWAY = 0.8
_LONG = 20
_LOOK_EVERY = 5.0
_LOAD_EVERY = 4
_PENDING = "SELECT count(*) FROM samples WHERE checkpoint_id IS NULL AND timestamp_ms < ?"

# Runs first in the service's process: what lies between two waits of the reactor is a turn.
_CLOCKED = """
import atexit, json, time
from array import array
from twisted.internet import reactor
class Clocked:
    def __init__(self, poller):
        self._poller, self._began = poller, None
        self.wall, self.cpu = array("d"), array("d")
    def __getattr__(self, name):
        return getattr(self._poller, name)
    def poll(self, *arguments):
        if self._began is not None:
            wall, cpu = self._began
            self.wall.append(time.perf_counter() - wall)
            self.cpu.append(time.thread_time() - cpu)
        try:
            return self._poller.poll(*arguments)
        finally:
            self._began = time.perf_counter(), time.thread_time()
reactor._poller = clocked = Clocked(reactor._poller)
def tell():
    with open({path!r}, "w") as file:
        json.dump(list(zip(clocked.wall, clocked.cpu)), file)
atexit.register(tell)
"""


def measure(plan: Plan) -> list[Row]:
    """Measure the turns of the real service under load.

    It collects at 1 s, drains a backlog and a dozen outages, and empties the log and deletes every
    few seconds. A page is open, and a scraper and a monitor send requests.
    """
    with (
        workspace(plan) as where,
        victoria(where) as server,
        gate(server.port) as way,
        Board().moving(where / "board", period=0.4),
    ):
        backlog = min(plan.backlog, 200_000)
        in_worker(drain.fill, None, str(where / "metrics.db"), backlog)
        url = f"http://127.0.0.1:{way.port}/api/v1/import"
        path = config(where, interval=1.0, url=url, upload_interval=1.0, root=where / "board")
        settings = yaml.safe_load(path.read_text())
        settings["storage"].update(
            wal_checkpoint_interval="3s", retention={"uploaded": "3s", "max_size_mb": 64}
        )
        path.write_text(yaml.safe_dump(settings))
        found = where / "turns.json"
        with (
            _control() as control,
            agent(where, path, setup=_CLOCKED.format(path=str(found))) as running,
        ):
            running.wait_for_a_tick()
            began = wall_ms()
            with (
                _meanwhile(partial(_watch, page.address(path))),
                _meanwhile(partial(_go_away, way, plan.seconds / _OUTAGES)),
            ):
                time.sleep(plan.seconds)
            ended = wall_ms()
            wait_until(
                lambda: running.ask(_PENDING, ended) == 0, seconds=60, what="the last delivery"
            )
            ticks = [at for at in _delivered(server) if began < at < ended]
            gaps = [after - before for before, after in pairwise([began, *ticks, ended])]
        wait_until(found.exists, seconds=10, what="the turns")
        # The first is the imports and the start, before anything waits for the reactor.
        turns = [(wall * 1000, cpu * 1000) for wall, cpu in json.loads(found.read_text())[1:]]
    longest, its_cpu = max(turns)
    walls = sorted(wall for wall, _ in turns)
    note = f"{len(turns):,} turns in {plan.seconds:.0f} s, {backlog:,} drained at first"
    return [
        Row(NAME, "longest turn of the reactor", longest, "ms", note),
        Row(NAME, "CPU time of that turn", its_cpu, "ms", "else the core was not its own"),
        Row(NAME, f"longer than {_LONG} ms", sum(wall > _LONG for wall in walls), "turns", ""),
        Row(NAME, "99 % are shorter than", walls[len(walls) * 99 // 100], "ms", ""),
        Row(NAME, "most CPU time of a turn", max(cpu for _, cpu in turns), "ms", ""),
        Row(NAME, "longest round of a control", control[0], "ms", "a loop that needs 1 ms"),
        Row(NAME, "most CPU time of such a round", control[1], "ms", ""),
        Row(NAME, "longest time between two ticks", max(gaps) / 1000, "s", "of 1 s"),
    ]


def _delivered(server: Victoria) -> list[int]:
    """Return the times of the ticks at the server, in Unix milliseconds."""
    server.get("/internal/force_flush")
    # Without an end, the server leaves out what is younger than the current second.
    query = "match[]=system_uptime_seconds&start=0&end=4102444800"
    lines = server.get(f"/api/v1/export?{query}").splitlines()
    return sorted(at for line in lines for at in json.loads(line)["timestamps"])


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a function on a thread during the block.

    The end of the block sets the event and waits for the thread. An exception of the function is
    raised here.
    """
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, ended)
        try:
            yield
        finally:
            ended.set()
        working.result()


def _watch(url: str, ended: threading.Event) -> None:
    """Send the requests of a page that is reloaded at times, of a scraper and of a monitor."""
    number = 0
    while not ended.wait(_LOOK_EVERY):
        page.look(url, number % _LOAD_EVERY)
        if number % _LOAD_EVERY == 0:
            page.day(url)
        for path in ("health", "metrics"):
            with suppress(HTTPError):  # A long outage is told with a status.
                page.get(url + path)
        number += 1


def _go_away(way: Gate, period: float, ended: threading.Event) -> None:
    """Close the way to the server for most of each period; it is open at the end."""
    while not ended.wait((1 - _AWAY) * period):
        way.close()
        ended.wait(_AWAY * period)
        way.open()


@contextmanager
def _control() -> Iterator["SynchronizedArray[float]"]:
    """Run a control process, which does the same 1 ms of work as often as the reactor has a turn.

    Its longest rounds show how this machine delays any work.

    :return: its longest time and most CPU time so far, in milliseconds.
    """
    context = get_context("spawn")
    most, ended = context.Array("d", 2), context.Event()
    process = context.Process(target=_loop, args=(most, ended), daemon=True)
    process.start()
    try:
        yield most
    finally:
        ended.set()
        process.join()
    if process.exitcode:
        raise FailedError(f"the control failed with status {process.exitcode}")


def _loop(most: "SynchronizedArray[float]", ended: Event) -> None:
    """Find how much work takes 1 ms without a disturbance, and do it until the event is set."""
    tries = 10_000
    work = int(tries / min(_timed(tries) for _ in range(100))[0])
    while not ended.wait(0.03):
        most[:] = [max(pair) for pair in zip(most[:], _timed(work), strict=True)]


def _timed(work: int) -> tuple[float, float]:
    """Do some work, and return its time and CPU time in milliseconds."""
    wall, cpu = time.perf_counter(), time.thread_time()
    for _ in range(work):
        pass
    return 1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - cpu)
