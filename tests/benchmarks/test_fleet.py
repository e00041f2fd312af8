"""The fleet benchmark's own parts do what they stand for, and a small fleet loses nothing."""

import gzip
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from belatwist.model import Sample
from belatwist.store import Batch, Outcome, Settlement
from belatwist.upload import policy
from belatwist.upload.jsonl import Encoder, compress
from belatwist.upload.policy import Accepted, Retryable
from benchmarks.fleet import device, plot, run, table
from benchmarks.fleet.link import Link, LinkClient
from benchmarks.fleet.proxy import Down, Proxy, Server, count
from benchmarks.fleet.recording import RecordedStore, Recording
from benchmarks.fleet.run import Finding
from benchmarks.fleet.scenarios import SCENARIOS
from benchmarks.fleet.timeline import Timeline
from tests.fakes import MemoryStore
from tests.victoria.server import require

START_MS = 1_767_225_600_000
BODY = b'{"metric":{"__name__":"a"},"values":[1,2],"timestamps":[10,20]}\n'


class TimelineTests(SynchronousTestCase):
    """Simulated time passes as ``task.Clock``'s does."""

    def setUp(self) -> None:
        self.clock = Timeline()
        self.calls: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        self.calls.append((what, self.clock.seconds()))

    def test_order(self) -> None:
        """Calls come at their times, those of one moment in the order of asking."""
        for name, delay in (("c", 3.0), ("a", 1.0), ("b", 1.0), ("later", 9.0)):
            self.clock.callLater(delay, self.note, name)
        self.clock.run_until(5.0)
        self.assertEqual(self.calls, [("a", 1.0), ("b", 1.0), ("c", 3.0)])
        self.assertEqual(self.clock.seconds(), 5.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_changed_calls(self) -> None:
        """A call that was cancelled does not come; others come when they were put off to."""
        given_up, later, sooner = (self.clock.callLater(2.0, self.note, name) for name in "abc")
        given_up.cancel()
        later.delay(2.0)
        sooner.reset(1.0)
        self.clock.run_until(9.0)
        self.assertEqual(self.calls, [("c", 1.0), ("b", 4.0)])

    def test_call_that_calls(self) -> None:
        """What is asked for meanwhile comes in the same run, if it is due."""
        self.clock.callLater(1.0, lambda: self.clock.callLater(1.0, self.note, "second"))
        self.clock.run_until(2.0)
        self.assertEqual(self.calls, [("second", 2.0)])


@cache
def short() -> Recording:
    """Return three minutes of the board."""
    return Recording(180.0)


def batch(deferred: "Deferred[Batch]") -> Batch:
    """Return what a store has answered at once."""
    found: list[Batch] = []
    deferred.addCallback(found.append)
    return found[0]


def test_recording_keeps_the_default_intervals() -> None:
    """Each collector is there at its own pace: those of 10 s three times as often as of 30 s."""
    recording = short()
    names = {number: one.name for number, one in recording.series.items()}
    times: dict[str, set[int]] = {}
    for at, number, _ in recording.rows:
        times.setdefault(names[number], set()).add(at)
    assert len(times["cpu.usage_percent"]) == 18
    assert len(times["system.load_1m"]) == 6
    assert len(times["system.uptime_seconds"]) == 3
    assert recording.rows == sorted(recording.rows)
    assert sum(len(rows) for _, rows in recording.ticks()) == len(recording.rows)


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 400), st.booleans()), min_size=1, max_size=12
    )
)
def test_recorded_store_answers_as_the_twin(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is read and settled at whatever time, it is what a store of samples gives."""
    recording, clock = short(), Timeline()

    def now_ms() -> int:
        return START_MS + round(clock.seconds() * 1000)

    store, twin = RecordedStore(recording, "d", START_MS, now_ms), MemoryStore()
    series, ticks = recording.of("d"), list(recording.ticks())
    for seconds, limit, newest in steps:
        clock.run_until(clock.seconds() + seconds)
        while ticks and ticks[0][0] <= clock.seconds():
            _, rows = ticks.pop(0)
            twin.add([Sample(series[i], START_MS + at, value) for at, i, value in rows])
        assert store.pending == twin.pending
        far_ms = START_MS + 10**9
        if newest:
            found, wanted = (batch(one.fetch_newest(limit, far_ms)) for one in (store, twin))
        else:
            found, wanted = (batch(one.fetch(limit, far_ms)) for one in (store, twin))
            behind = [batch(one.fetch(limit, far_ms, found.last)).rows for one in (store, twin)]
            assert behind[0] == behind[1]
        assert found.last == wanted.last
        assert found.rows == wanted.rows
        assert all(found.series[i] == wanted.series[i] for _, i, _ in found.rows)
        for one in (store, twin):
            one.settle([Settlement(Outcome.ACCEPTED, found.rows, "batch", 0)], now_ms())
    assert store.pending == twin.pending


def test_samples_of_a_body_are_counted() -> None:
    """The proxy counts what the encoder has put into a body."""
    recording = short()
    body = compress(Encoder().encode(recording.rows, recording.of("d")), 6)
    assert count(body) == len(recording.rows)


class _Answers(Server):
    """A server that takes everything."""

    def __init__(self) -> None:
        self.seconds = []

    def post(self, body: bytes) -> int:
        self.seconds.append(0.001)
        return 204


class LinkTests(SynchronousTestCase):
    """What a device's link and the proxy make of a request."""

    def post(
        self, at: float, answer: Down = "refuses", rate: float | None = None
    ) -> tuple[policy.SendResult, float]:
        """Post a body at some time; the proxy is down from 100 to 200. Returns how long it took."""
        clock = Timeline()
        proxy = Proxy(
            _Answers(),
            reactor=clock,
            epoch_ms=START_MS,
            down=(100.0, 200.0),
            answer=answer,
            rate=rate,
        )
        client = LinkClient(
            Link(round_trip=0.1, bandwidth=1000.0, loss=0.0, cut=0.0),
            proxy,
            reactor=clock,
            random=Random(1),
            timeout=30.0,
            now=lambda: START_MS / 1000 + clock.seconds(),
        )
        clock.run_until(at)

        async def timed() -> tuple[policy.SendResult, float]:
            return await client.post(gzip.compress(BODY)), clock.seconds() - at

        posted = Deferred.fromCoroutine(timed())
        clock.run_until(at + 60)
        return self.successResultOf(posted)

    def test_time(self) -> None:
        """Three round trips, two of them for the handshakes, and the bytes at the link's pace."""
        outcome, took = self.post(0.0)
        self.assertEqual(outcome, Accepted(204))
        size = 300 + len(gzip.compress(BODY))
        self.assertAlmostEqual(took, 0.3 + 0.005 + size / 1000)

    def test_refused(self) -> None:
        """A proxy that is down refuses after one round trip."""
        outcome, took = self.post(150.0)
        assert isinstance(outcome, Retryable)
        self.assertEqual(outcome.error_type, "ConnectionRefusedError")
        self.assertAlmostEqual(took, 0.1)

    def test_retry_after(self) -> None:
        """It may ask for time, in seconds or until the moment of its return."""
        outcome, _ = self.post(150.0, answer="seconds")
        assert isinstance(outcome, Retryable)
        self.assertEqual((outcome.status, outcome.after), (503, 300.0))
        outcome, took = self.post(150.0, answer="date")
        assert isinstance(outcome, Retryable)
        self.assertAlmostEqual(outcome.after, 50.0 - took, places=3)

    def test_slow_server(self) -> None:
        """What is not answered in time is given up."""
        outcome, took = self.post(0.0, rate=0.01)
        assert isinstance(outcome, Retryable)
        self.assertEqual((outcome.error_type, took), ("TimeoutError", 30.0))


def test_proposed_backoff() -> None:
    """It never waits for less than was asked, nor for much longer; without a wish it is as ever."""
    today = device.backoff(jitter=None, spread_asked=False)
    proposed = device.backoff(jitter=None, spread_asked=True)
    for random in (0.0, 0.5, 1.0):
        assert proposed.wait(1, asked=0.0, random=random) == today.wait(1, asked=0.0, random=random)
        assert 300.0 <= proposed.wait(1, asked=300.0, random=random) <= 312.0


def small(name: str, where: Path) -> Finding:
    """Run a scenario with few devices."""
    (scenario,) = (one for one in SCENARIOS if one.name == name)
    where.mkdir()
    return run.run(scenario, 2, run.recording(), 7, where)


@pytest.mark.process
@pytest.mark.victoria
def test_small_fleet(tmp_path: Path) -> None:
    """Nothing is lost, all drain soon after the return, and a seed gives the same run again."""
    require()
    first, second = (small("in step", tmp_path / name) for name in "ab")
    assert first.lost == 0
    assert first.twice >= 0
    assert len(first.drained) == 2
    assert 0 < first.drained[-1] < 60
    assert first.seen.attempts == second.seen.attempts
    assert first.seen.bodies == second.seen.bodies
    assert not any(first.seen.samples[second] for second in range(320, int(first.back)))
    assert "| in step |" in table.scenarios([first], markdown=True)
    assert table.scenarios([first], markdown=False).count("\n") == 1


@pytest.mark.process
@pytest.mark.victoria
def test_small_fleet_on_disk(tmp_path: Path) -> None:
    """The same with the real store: every sample that it was given is on the server."""
    require()
    found = small("on disk", tmp_path / "disk")
    assert found.lost == 0
    assert 0 < found.drained[-1] < 60


@pytest.mark.process
@pytest.mark.victoria
def test_plots(tmp_path: Path) -> None:
    """Where there is matplotlib, pictures are drawn of what was run."""
    require()
    pytest.importorskip("matplotlib")
    names = ("asked, a date", "asked, a date, spread", "overload")
    files = plot.draw([small(name, tmp_path / name) for name in names], tmp_path)
    assert [one.name for one in files] == ["fleet.png", "fleet-overload.png"]
    assert all(one.stat().st_size > 10_000 for one in files)
