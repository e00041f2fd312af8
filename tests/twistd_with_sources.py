"""Runs ``twistd`` as its command does, with three sources of the tests' own in the registry.

``test.links`` is a service, to which an event comes every 50 ms. ``test.deaf`` is one that cannot
start. ``test.modem`` asks for the URL in ``BELA_MODEM`` over HTTP. Everything else is the real
program.
"""

import os
from collections.abc import Sequence
from functools import partial

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.scripts.twistd import run

from belatwist.collectors import registry
from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.model import Sample, sample

LINK = Metric("test.link_up", GAUGE, "bool", "Whether the link is up.")
DEAF = Metric("test.deaf_events", GAUGE, "events", "Events that nobody hears.")
SIGNAL = Metric("test.signal_dbm", GAUGE, "dBm", "Signal power.")


class Links(Service):
    """Keeps what comes to it, with its time."""

    def __init__(self, machine: Machine) -> None:
        self._series = machine.series(LINK)
        self._events: list[float] = []
        self._seconds = machine.seconds
        self._source = LoopingCall(self._event)
        self._source.clock = machine.reactor

    def startService(self) -> None:
        super().startService()
        self._source.start(0.05)
        os.write(1, b"links: started\n")

    def stopService(self) -> None:
        super().stopService()
        self._source.stop()
        os.write(1, b"links: stopped\n")

    def _event(self) -> None:
        self._events.append(self._seconds())

    async def collect(self, now_ms: int) -> Sequence[Sample]:
        now, events = self._seconds(), self._events
        self._events = []
        return [sample(self._series, now_ms - round((now - at) * 1000), 1) for at in events]


class Deaf(Service):
    """Cannot start."""

    def startService(self) -> None:
        raise OSError("no such bus")

    async def collect(self, now_ms: int) -> Sequence[Sample]:
        raise AssertionError("collected, although it was not started")


class Modem:
    """Asks over HTTP."""

    def __init__(self, machine: Machine) -> None:
        self._http = machine.http
        self._series = machine.series(SIGNAL)

    async def collect(self, now_ms: int) -> Sequence[Sample]:
        answer = await self._http.get(os.environ["BELA_MODEM"], interface="lo")
        return [sample(self._series, now_ms, float(answer.body))]


SOURCES = (
    Source("test.links", 1.0, lambda machine, _: Links(machine), (LINK,)),
    Source("test.deaf", 1.0, lambda *_: Deaf(), (DEAF,)),
    Source("test.modem", 1.0, lambda machine, _: Modem(machine), (SIGNAL,)),
)

if __name__ == "__main__":
    registry.SOURCES = registry.by_name((*registry.SOURCES.values(), *SOURCES))
    registry.build = partial(registry.build, sources=registry.SOURCES)
    run()
