"""Runs one scenario, and checks on the real server that nothing is missing."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from random import Random
from urllib.parse import urlencode

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from belatwist.config import Remote
from belatwist.upload.wakeup import Wakeup
from benchmarks.fleet import device
from benchmarks.fleet.device import Device
from benchmarks.fleet.link import Link, LinkClient
from benchmarks.fleet.proxy import Proxy, Seen, Server
from benchmarks.fleet.recording import Points, Recording
from benchmarks.fleet.scenarios import AFTERWARDS, OUTAGE, WARM, Scenario
from benchmarks.fleet.timeline import Timeline
from benchmarks.harness import FailedError
from benchmarks.server import Victoria, victoria

EPOCH_MS = 1_767_225_600_000
"""Unix time in milliseconds when simulated time begins."""

COMPARED = 3
"""The number of devices of which every value is compared, not only counted."""

_DRAIN_TIMEOUT = 7200.0  # Seconds of simulated time for draining.


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a scenario.

    :ivar back: the moment of the proxy's return, in seconds of simulated time.
    :ivar seen: the traffic at the proxy.
    :ivar drained: for each device the seconds from then until all that it had collected before was
        delivered; sorted.
    :ivar collected: samples of all devices together.
    :ivar lost: how many of them the server does not have.
    :ivar twice: how many of them it received twice.
    :ivar latencies: seconds that the real server needed for each request, sorted.
    :ivar took: real seconds of the whole run.
    """

    scenario: Scenario
    devices: int
    back: float
    seen: Seen
    drained: list[float]
    collected: int
    lost: int
    twice: int
    latencies: list[float]
    took: float


def run(scenario: Scenario, devices: int, recording: Recording, seed: int, where: Path) -> Finding:
    """Run a scenario against a new server.

    :param where: databases are made below.
    :raises FailedError: when a value on the server differs from the collected one.
    """
    begun = time.monotonic()
    with _no_complaint(scenario), victoria(where) as real, _server(real) as server:
        clock = Timeline()
        proxy = Proxy(
            server,
            reactor=clock,
            epoch_ms=EPOCH_MS,
            down=scenario.down,
            answer=scenario.answer,
            rate=None if scenario.rate is None else scenario.rate * devices,
        )
        fleet = [_device(scenario, i, recording, seed, clock, proxy, where) for i in range(devices)]
        drained = _drain(fleet, scenario, clock)
        missing = devices * len(recording.rows) - sum(_counts(real, clock.seconds()).values())
        for one in fleet[:COMPARED]:
            _compare(real, one, recording)
        sent = sum(proxy.seen.samples.values())
        if real.rows() != sent:
            raise FailedError(f"the server has counted {real.rows()} of {sent} samples")
    collected = devices * len(recording.rows)
    return Finding(
        scenario=scenario,
        devices=devices,
        back=scenario.down[1],
        seen=proxy.seen,
        drained=sorted(drained),
        collected=collected,
        lost=missing,
        twice=sent - collected + missing,
        latencies=sorted(server.seconds),
        took=time.monotonic() - begun,
    )


def recording() -> Recording:
    """Make the recording that every device plays."""
    return Recording(WARM + OUTAGE + AFTERWARDS)


@implementer(ILogObserver)
class _Complaints:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] in {LogLevel.error, LogLevel.critical}:
            self.texts.append(formatEvent(event))


@contextmanager
def _no_complaint(scenario: Scenario) -> Iterator[None]:
    """Fail if an error is logged; an absent server is none."""
    complaints = _Complaints()
    globalLogPublisher.addObserver(complaints)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(complaints)
    if complaints.texts:
        raise FailedError(f"{scenario.name}: logged an error, {complaints.texts[0]}")


@contextmanager
def _server(real: Victoria) -> Iterator[Server]:
    server = Server(real.port)
    try:
        yield server
    finally:
        server.close()


def _device(
    scenario: Scenario,
    number: int,
    recording: Recording,
    seed: int,
    clock: Timeline,
    proxy: Proxy,
    where: Path,
) -> Device:
    """Make a device that will start at its time.

    The link does not depend on the scenario, so that scenarios differ only in their parameters.
    """
    name = f"device-{number:04}"
    start = Random(f"{seed} {name} start").random() * scenario.apart
    link = Link.of(Random(f"{seed} {name} link"))

    def now_ms() -> int:
        return EPOCH_MS + round(clock.seconds() * 1000)

    client = LinkClient(
        link,
        proxy,
        reactor=clock,
        random=Random(f"{seed} {name} losses"),
        timeout=Remote().timeout,
        now=lambda: EPOCH_MS / 1000 + clock.seconds(),
    )
    if scenario.on_disk:
        store = device.sqlite_store(
            recording, name, start, now_ms, reactor=clock, path=where / f"{name}.db"
        )
    else:
        store = device.recorded_store(recording, name, start, now_ms)
    wakeup = Wakeup(clock)
    uploader = device.uploader(
        store,
        client,
        device.backoff(jitter=scenario.jitter, spread_asked=scenario.spread_asked),
        wakeup,
        reactor=clock,
        random=Random(f"{seed} {name} waits"),
        now_ms=now_ms,
        first=Random(f"{seed} {name} offset").random() if scenario.offset else 1.0,
    )
    # The figures of docs/fleet.md were made with this seed.
    spread = Random(f"{seed} {name} lookout").random
    reconnect_probe = device.reconnect_probe(
        client, wakeup, reactor=clock, random=(lambda: 0.0) if scenario.jitter == 0.0 else spread
    )
    for service in (reconnect_probe, uploader):
        clock.callLater(start, service.startService)
    return Device(name, start, store, uploader, reconnect_probe)


def _drain(fleet: list[Device], scenario: Scenario, clock: Timeline) -> list[float]:
    """Let time pass until everything is delivered, and check every second.

    :return: seconds from the proxy's return until a device had delivered what it had then.
    """
    back = scenario.down[1]
    clock.run_until(back)
    back_ms = EPOCH_MS + back * 1000
    waiting, drained = list(fleet), []
    while waiting:
        clock.run_until(clock.seconds() + 1)
        if clock.seconds() > back + _DRAIN_TIMEOUT:
            raise FailedError(f"{len(waiting)} devices have not drained in {_DRAIN_TIMEOUT:g} s")
        still = [one for one in waiting if (one.oldest_ms() or back_ms) < back_ms]
        drained += [clock.seconds() - back] * (len(waiting) - len(still))
        waiting = still
    clock.run_until(max(clock.seconds(), WARM + OUTAGE + AFTERWARDS + scenario.apart))
    while any(one.store.pending for one in fleet):
        clock.run_until(clock.seconds() + 1)
    for one in fleet:
        one.stop(EPOCH_MS + round(clock.seconds() * 1000))
    return drained


def _ask(real: Victoria, path: str, **arguments: str) -> str:
    text = real.get(f"{path}?{urlencode(arguments)}")
    if not text:
        raise FailedError(f"the server does not answer {path}")
    return text


def _counts(real: Victoria, until: float) -> dict[str, int]:
    """Ask the server for the number of samples of each device."""
    real.get("/internal/force_flush")
    answer = json.loads(
        _ask(
            real,
            "/api/v1/query",
            query='sum(count_over_time({__name__!=""}[1d])) by (device_id)',
            time=str(EPOCH_MS / 1000 + until + 60),
            nocache="1",
        )
    )
    return {one["metric"]["device_id"]: int(one["value"][1]) for one in answer["data"]["result"]}


def _compare(real: Victoria, one: Device, recording: Recording) -> None:
    """Check that the server has each sample of a device once, and nothing else.

    VictoriaMetrics keeps 12 significant digits of a fraction.
    """
    found: Points = {}
    text = _ask(
        real,
        "/api/v1/export",
        **{"match[]": f'{{device_id="{one.name}"}}', "start": "0", "end": "4000000000"},
    )
    for line in text.splitlines():
        series = json.loads(line)
        points = zip(series["timestamps"], series["values"], strict=True)
        found.setdefault(tuple(sorted(series["metric"].items())), []).extend(points)
    wanted = recording.points(one.name, EPOCH_MS + round(one.start * 1000))
    if found.keys() != wanted.keys() or not all(
        [at for at, _ in found[key]] == [at for at, _ in points]
        and all(
            isclose(got, sent, rel_tol=1e-11)
            for (_, got), (_, sent) in zip(found[key], points, strict=True)
        )
        for key, points in wanted.items()
    ):
        raise FailedError(f"{one.name}: what the server has is not what was collected")
