"""A device of the fleet: the real uploader, on simulated time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.internet.defer import Deferred

from belatwist.config import Remote
from belatwist.metrics.telemetry import Telemetry
from belatwist.model import Sample
from belatwist.store import Batch, Row, SampleStore
from belatwist.store.sqlite import SQLiteStore
from belatwist.upload import ImportClient
from belatwist.upload.delivery import Delivery
from belatwist.upload.http.reconnect import ReconnectProbe
from belatwist.upload.policy import Backoff
from belatwist.upload.retry import RetryChain
from belatwist.upload.service import Uploader
from belatwist.upload.wakeup import Wakeup
from benchmarks.fleet.link import LinkClient
from benchmarks.fleet.recording import RecordedStore, Recording
from tests.fakes import inline_store

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

_FAR_MS = 10**14


class SpreadBackoff(Backoff):
    """A proposal: adds jitter to the wait that a server asks for."""

    def wait(self, attempt: int, *, asked: float, random: float) -> float:
        """Return how long to wait after a failed attempt; see :class:`Backoff`."""
        own = Backoff.wait(self, attempt, asked=0.0, random=random)
        return max(own, asked + self.jitter * random * min(asked, self.maximum))


@dataclass(frozen=True, slots=True)
class Device:
    """A device.

    :ivar start: seconds of simulated time at which its agent starts.
    """

    name: str
    start: float
    store: SampleStore
    uploader: Uploader
    reconnect_probe: ReconnectProbe

    def oldest_ms(self) -> int | None:
        """Return the time of the oldest pending sample; ``None`` if there is none."""
        found: list[Batch] = []
        self.store.fetch(1, _FAR_MS).addCallback(found.append)
        return found[0].rows[0][0] if found[0].rows else None

    def stop(self, now_ms: int) -> None:
        """Stop the uploader, and close the store if it is on a disk."""
        self.reconnect_probe.stopService()
        self.uploader.stopService()
        if isinstance(self.store, SQLiteStore):
            Deferred.fromCoroutine(self.store.close(now_ms))


class _TrustedClock:
    """A device's clock that is right and never jumps."""

    steps = 0

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms

    async def hold_reason(self) -> None:
        """Return no reason to hold uploads."""


def backoff(*, jitter: float | None, spread_asked: bool) -> Backoff:
    """Make the backoff of the default configuration.

    :param jitter: replaces the default jitter.
    :param spread_asked: whether to make a :class:`SpreadBackoff`.
    """
    retry = Remote().retry
    kind = SpreadBackoff if spread_asked else Backoff
    return kind(
        attempts=retry.max_attempts,
        initial=retry.initial_backoff,
        maximum=retry.max_backoff,
        multiplier=retry.backoff_multiplier,
        jitter=retry.jitter_percent / 100 if jitter is None else jitter,
    )


def uploader(
    store: SampleStore,
    client: ImportClient,
    waits: Backoff,
    wakeup: Wakeup,
    *,
    reactor: "IReactorTime",
    random: Random,
    now_ms: Callable[[], int],
    first: float,
) -> Uploader:
    """Make the uploader of the default configuration.

    :param first: the part of an interval after which its first cycle begins.
    """
    remote, telemetry = Remote(), Telemetry()
    delivery = Delivery(
        store,
        RetryChain(
            client, waits, wakeup, reactor=reactor, random=random.random, telemetry=telemetry
        ),
        wakeup,
        reactor=reactor,
        clock=_TrustedClock(now_ms),
        fresh_every=remote.upload_interval,
        batch_size=remote.batch_size,
        chunk_size=remote.chunk_size,
        compression_level=remote.compression_level,
        random=random.random,
        endpoint=client.endpoint,
        telemetry=telemetry,
    )
    return Uploader(
        delivery,
        client,
        wakeup,
        reactor=reactor,
        interval=remote.upload_interval,
        random=lambda: first,
    )


def reconnect_probe(
    client: LinkClient,
    wakeup: Wakeup,
    *,
    reactor: "IReactorTime",
    random: Callable[[], float],
) -> ReconnectProbe:
    """Make the probe that detects the server's return and wakes the uploader, as the agent does."""
    made = ReconnectProbe(
        client.probe,
        reactor=reactor,
        interval=Remote().reconnect_interval,
        random=random,
        reached=wakeup.ring,
    )
    client.watch(made.connection_attempted)
    return made


def recorded_store(
    recording: Recording, name: str, start: float, now_ms: Callable[[], int]
) -> SampleStore:
    """Make a store in memory that plays the recording."""
    return RecordedStore(recording, name, now_ms() + round(start * 1000), now_ms)


def sqlite_store(
    recording: Recording,
    name: str,
    start: float,
    now_ms: Callable[[], int],
    *,
    reactor: "IReactorTime",
    path: Path,
) -> SampleStore:
    """Make the real store on a real file, and add the recording to it tick by tick.

    The store works on the calling thread, so that simulated time does not pass meanwhile.
    """
    store = inline_store(path)
    opened: Deferred[None] = Deferred.fromCoroutine(store.open(str(uuid4()), now_ms()))
    assert opened.called
    series, start_ms = recording.of(name), now_ms() + round(start * 1000)

    def add(rows: Iterator[Row]) -> None:
        store.add([Sample(series[i], start_ms + at, value) for at, i, value in rows])

    for at, rows in recording.ticks():
        reactor.callLater(start + at, add, rows)
    return store
