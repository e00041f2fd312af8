"""``bela once`` with collectors that need the reactor, in a process of its own."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.cli.running import CHECKOUT

pytestmark = pytest.mark.process

# The program of the tests: sources that take the reactor in all ways, and what became of them.
PROGRAM = """
import json, sys, time
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from belatwist.cli import once
from belatwist.cli.reactor import load_reactor
from belatwist.collectors.contract import EnabledSource, HiddenError, Source
from belatwist.collectors.registry import SOURCES
from belatwist.config import convert
from belatwist.model import Series, sample

said = []


def series(name):
    return Series.of(f"test.{name}", "box")


class Plain:
    def collect(self, now_ms):
        return [sample(series("plain"), now_ms, 1.0)]


class Asks:
    async def collect(self, now_ms):
        begun = time.monotonic()
        await deferLater(load_reactor(), 0.05)
        said.append(f"waited {time.monotonic() - begun >= 0.05}")
        return [sample(series("asks"), now_ms, 2.0)]


class SilentAtFirst:
    runs = 0

    async def collect(self, now_ms):
        self.runs += 1
        return () if self.runs == 1 else [sample(series("silent"), now_ms, 3.0)]


class Hangs:
    async def collect(self, now_ms):
        try:
            await Deferred()
        except CancelledError:
            said.append("cancelled")
            raise


class Fails:
    async def collect(self, now_ms):
        raise HiddenError("no socket", "install the drop-in")


class Listens(Service):
    heard = False

    def startService(self):
        super().startService()
        said.append("start")
        load_reactor().callLater(0.02, self.event)

    def event(self):
        self.heard = True

    async def collect(self, now_ms):
        return [sample(series("listens"), now_ms, 4.0)] if self.heard else []

    def stopService(self):
        said.append("stop")
        return deferLater(load_reactor(), 0.01)


class CannotStart(Service):
    def startService(self):
        raise OSError("no such bus")

    async def collect(self, now_ms):
        said.append("not started, but collected")
        return []


class CannotStop(Plain, Service):
    def stopService(self):
        raise OSError("no such bus")


class OverHttp:
    def __init__(self):
        loaded = convert.parse("{device: {id: box}, remote: {enabled: false}}", "test", SOURCES)
        self.machine = once.machine(loaded)

    async def collect(self, now_ms):
        await self.machine.http.get("http://127.0.0.1:1/")


class Blocks:
    async def collect(self, now_ms):
        time.sleep(60)


def sources(*collectors):
    for one in collectors:
        name = f"test.{type(one).__name__.lower()}"
        yield EnabledSource(Source(name, 1.0, lambda *_: one, ()), one, 1.0)


collectors = [globals()[name]() for name in sys.argv[2:]]
deadline = float(sys.argv[1])
found = once.collect(list(sources(*collectors)), lambda: 1000, time.sleep, deadline)
json.dump(
    {
        "samples": [one.series.name for one in found.samples],
        "failures": found.failures,
        "said": said,
        "reactor": "twisted.internet.reactor" in sys.modules,
    },
    sys.stdout,
)
"""


def run(*names: str, deadline: float = 5.0) -> dict[str, Any]:
    """Collect once from sources of the program."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(deadline), *names],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_coroutine_runs_on_the_reactor() -> None:
    """Beside plain collectors, in the order of the configuration; a silent one runs twice."""
    found = run("SilentAtFirst", "Plain", "Asks", "Fails")
    assert found["samples"] == ["test.silent", "test.plain", "test.asks"]
    assert found["failures"] == {
        "test.fails": "its source is hidden: no socket; install the drop-in"
    }
    assert found["said"] == ["waited True"]


def test_a_coroutine_that_hangs_is_cancelled() -> None:
    """At the deadline of all collectors; the others are there."""
    found = run("Hangs", "Plain", deadline=0.3)
    assert found["failures"] == {"test.hangs": "no answer within 0.3 s"}
    assert (found["samples"], found["said"]) == (["test.plain"], ["cancelled"])


def test_a_coroutine_that_blocks_is_abandoned() -> None:
    """It takes the reactor with it, and not the process."""
    found = run("Blocks", "Plain", deadline=0.3)
    assert found["failures"] == {"test.blocks": "no answer within 0.3 s"}
    assert found["samples"] == ["test.plain"]


def test_a_service_is_started_and_stopped() -> None:
    """Its events have the time between two rounds to come."""
    found = run("Listens", "Asks")
    assert found["samples"] == ["test.listens", "test.asks"]
    assert (found["said"][0], found["said"][-1]) == ("start", "stop")
    assert found["failures"] == {}


def test_a_service_that_cannot_start_or_stop() -> None:
    """It is a failure of that source, which is not collected from when it could not start."""
    found = run("CannotStart", "CannotStop", "Asks")
    assert found["samples"] == ["test.plain", "test.asks"]
    assert found["failures"] == {
        "test.cannotstart": "no such bus",
        "test.cannotstop": "its service did not stop: no such bus",
    }
    assert found["said"] == ["waited True"]


def test_http_is_there() -> None:
    """The machine of ``bela once`` asks over HTTP as the agent's does."""
    found = run("OverHttp")
    assert found["failures"] == {"test.overhttp": "127.0.0.1:1: the connection was refused"}


def test_without_such_a_source_there_is_no_reactor() -> None:
    """The test's own imports do not load it."""
    assert not run("Plain")["reactor"]
    assert run("Asks")["reactor"]
