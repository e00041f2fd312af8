"""How often the store writes: transactions of 8 and of 20 sources at the same intervals."""

from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from belatwist.clock.sources import wall_ms
from belatwist.collectors.contract import Collector, EnabledSource, Source
from belatwist.metrics.metric import GAUGE, Metric
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample, Series
from belatwist.scheduler.service import CollectorScheduler
from benchmarks.harness import Plan, Row, in_worker

NAME = "ticks"
INTERVALS = (1.0, 2.0, 6.0, 12.0)
"""Seconds: the shipped intervals of 5, 10, 30 and 60 s, divided by five."""

SLOWEST_ANSWER = 0.8
"""Seconds until the slowest source that waits has its answer."""


def measure(plan: Plan) -> list[Row]:
    """Run both schedulers beside each other for the whole window."""
    counted = in_worker(run, None, plan.window)
    note = f"{plan.window:.0f} s at {', '.join(f'{n:g}' for n in INTERVALS)} s, half of them wait"
    return [
        Row(NAME, f"transactions, {number} sources", counted[str(number)], "a minute", note)
        for number in (8, 20)
    ]


async def run(reactor: Any, seconds: float) -> dict[str, float]:
    """Count the ticks that 8 and 20 sources hand over.

    :return: ticks a minute, by the number of sources.
    """
    counts = {8: 0, 20: 0}
    running = [_start(reactor, number, counts) for number in counts]
    await deferLater(reactor, seconds)
    found = {str(number): count * 60 / seconds for number, count in counts.items()}
    for scheduler in running:
        await scheduler.stopService()
    return found


class _Reading:
    """Answers at once, from a worker thread."""

    def __init__(self, series: Series) -> None:
        self._series = series

    def collect(self, now_ms: int) -> Sequence[Sample]:
        return [Sample(self._series, now_ms, 1.0)]


class _Asking:
    """Answers after a while, as from a network."""

    def __init__(self, series: Series, reactor: Any, rng: Random) -> None:
        self._series = series
        self._reactor = reactor
        self._rng = rng

    async def collect(self, now_ms: int) -> Sequence[Sample]:
        await deferLater(self._reactor, self._rng.uniform(0, SLOWEST_ANSWER))
        return [Sample(self._series, now_ms, 1.0)]


def _start(reactor: Any, number: int, counts: dict[int, int]) -> CollectorScheduler:
    rng = Random(number)

    def sink(samples: Sequence[Sample]) -> "Deferred[int]":
        counts[number] += 1
        return succeed(len(samples))

    def enabled(index: int) -> EnabledSource:
        metric = Metric(f"bench.value_{index}", GAUGE, "things", "A number.")
        series = metric.series("bench")
        collector: Collector = _Asking(series, reactor, rng) if index % 2 else _Reading(series)
        every = INTERVALS[index % len(INTERVALS)]
        source = Source(f"bench.source_{index}", every, lambda *_: collector, (metric,))
        return EnabledSource(source, collector, every)

    scheduler = CollectorScheduler(
        [enabled(index) for index in range(number)],
        reactor=reactor,
        wall_ms=wall_ms,
        sink=sink,
        telemetry=Telemetry(),
        session_id="",
        verbose=False,
    )
    scheduler.startService()
    return scheduler
