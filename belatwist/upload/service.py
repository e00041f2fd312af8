"""The uploader: takes what is pending, sends it chunk by chunk, records what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from belatwist.clock import WallClock
from belatwist.store import Batch, Outcome, Row, SampleStore, Verdict
from belatwist.upload.chunks import ChunkSize, cut
from belatwist.upload.client import ImportClient
from belatwist.upload.jsonl import MAX_AHEAD_MS, Encoder, compress
from belatwist.upload.policy import Accepted, Halted, Rejected, Retry

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

GRACE = 5.0
"""Seconds that a request in flight is given at shutdown."""


@dataclass(slots=True)
class _Cycle:
    """What an upload cycle has done so far.

    :ivar batch_id: a UUID; with a chunk's index it names the chunk.
    :ivar began: seconds on the reactor's clock.
    """

    began: float
    batch_id: str = field(default_factory=lambda: str(uuid4()))
    chunks: int = 0
    samples: int = 0
    bytes: int = 0


class Uploader(Service):
    """Uploads what is pending, at an interval, until nothing is left or the server refuses.

    :param client: sends one body; closed when the service stops.
    :param reactor: the timers' clock.
    :param interval: seconds between the beginnings of two cycles.
    :param batch_size: samples read from the store at once, and the largest chunk.
    :param chunk_size: samples of the first chunk, and of the first one after a failure.
    :param compression_level: zlib's; ``None`` sends plain bodies.
    """

    log = Logger()
    name = "uploader"

    def __init__(
        self,
        store: SampleStore,
        client: ImportClient,
        *,
        reactor: "IReactorTime",
        wall_ms: WallClock,
        interval: float,
        batch_size: int,
        chunk_size: int,
        compression_level: int | None,
    ) -> None:
        self._store = store
        self._client = client
        self._reactor = reactor
        self._wall_ms = wall_ms
        self._interval = interval
        self._batch_size = batch_size
        self._compression_level = compression_level
        self._encoder = Encoder()
        self._size = ChunkSize(chunk_size, batch_size)
        self._failing = False
        self._current: Deferred[None] | None = None
        # It waits for what its function returns: there are never two cycles at a time.
        self._loop = LoopingCall(self._begin)
        self._loop.clock = reactor

    def startService(self) -> None:
        """Begin: the first cycle comes one interval from now, when there is something to send."""
        super().startService()
        self.log.info(
            "samples go to {endpoint} every {interval:g} s",
            endpoint=self._client.endpoint,
            interval=self._interval,
        )
        self._loop.start(self._interval, now=False)

    def stopService(self) -> "Deferred[None]":
        """Stop; a request in flight is given :data:`GRACE` seconds to be answered and recorded."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._stopped())

    async def _stopped(self) -> None:
        if self._current is not None:
            timer = self._reactor.callLater(GRACE, self._current.cancel)
            await self._current
            if timer.active():
                timer.cancel()
        await self._client.close()

    def _begin(self) -> "Deferred[None]":
        self._current = Deferred.fromCoroutine(self._guarded())
        return self._current

    async def _guarded(self) -> None:
        """Run a cycle; whatever it raises, the next one comes."""
        try:
            await self._cycle(_Cycle(self._reactor.seconds()))
        except CancelledError:
            self.log.info("upload given up: stopping")
        except Exception:  # noqa: BLE001 - a LoopingCall ends for good at the first failure
            self.log.failure("upload cycle failed; the next one comes at its time")
        finally:
            self._current = None

    async def _cycle(self, cycle: _Cycle) -> None:
        while self.running:
            # What the server would drop as too far ahead waits until the clock has come to it.
            until_ms = self._wall_ms() + MAX_AHEAD_MS
            batch = await self._store.fetch(self._batch_size, until_ms)
            if not batch.rows or not await self._send(batch, cycle):
                break
            if len(batch.rows) < self._batch_size:
                break
        if cycle.samples:
            self.log.info(
                "uploaded {count} samples in {chunks} requests, {bytes_sent} bytes,"
                " {duration_ms:.0f} ms; {pending} pending",
                batch_id=cycle.batch_id,
                count=cycle.samples,
                chunks=cycle.chunks,
                bytes_sent=cycle.bytes,
                duration_ms=(self._reactor.seconds() - cycle.began) * 1000,
                pending=self._store.pending,
            )

    async def _send(self, batch: Batch, cycle: _Cycle) -> bool:
        """Send a batch, chunk by chunk.

        :return: whether all of it was taken.
        """
        rows, unsendable = self._encoder.partition(batch.rows, batch.series)
        if unsendable:
            await self._reject(unsendable, batch, cycle)

        def build(chunk: Sequence[Row]) -> bytes:
            body = self._encoder.encode(chunk, batch.series)
            return (
                body if self._compression_level is None else compress(body, self._compression_level)
            )

        while rows:
            if not self.running:
                return False
            chunk, body = cut(rows, self._size.samples, build)
            outcome = await self._client.post(body)
            if not isinstance(outcome, Accepted):
                self._refused(outcome, len(chunk), cycle)
                return False
            accepted = Verdict(Outcome.ACCEPTED, chunk, cycle.batch_id, cycle.chunks)
            await self._store.settle([accepted], self._wall_ms())
            self._taken(outcome, len(chunk), len(body), cycle)
            rows = rows[len(chunk) :]
        return True

    def _taken(self, outcome: Accepted, samples: int, size: int, cycle: _Cycle) -> None:
        self.log.debug(
            "chunk {chunk_index} accepted: {count} samples, {bytes_sent} bytes",
            batch_id=cycle.batch_id,
            chunk_index=cycle.chunks,
            count=samples,
            http_status=outcome.status,
            bytes_sent=size,
            bytes_rcvd=outcome.received_bytes,
        )
        if self._failing:
            self._failing = False
            self.log.info("the server takes samples again")
        self._size.accepted()
        cycle.chunks += 1
        cycle.samples += samples
        cycle.bytes += size

    def _refused(self, outcome: Retry | Rejected | Halted, samples: int, cycle: _Cycle) -> None:
        """End the cycle: nothing is marked, everything stays pending for the next one.

        This is where a chain of retries belongs, and the halving of a chunk that was rejected.
        """
        say = self.log.debug if self._failing else self.log.warn
        self._failing = True
        self._size.failed()
        say(
            "upload failed, {pending} samples wait for the next cycle: {error}",
            batch_id=cycle.batch_id,
            chunk_index=cycle.chunks,
            count=samples,
            http_status=outcome.status,
            error=outcome.reason,
            error_type=type(outcome).__name__,
            pending=self._store.pending,
        )

    async def _reject(self, unsendable: dict[str, list[Row]], batch: Batch, cycle: _Cycle) -> None:
        """Record what the server would acknowledge and drop: it is kept here, and not sent."""
        await self._store.settle(
            [
                Verdict(Outcome.REJECTED, rows, cycle.batch_id, cycle.chunks, reason)
                for reason, rows in unsendable.items()
            ],
            self._wall_ms(),
        )
        for reason, rows in unsendable.items():
            first = batch.series[rows[0][1]]
            self.log.warn(
                "{count} samples are not sent, {reason}; the first is {metric} {tags}",
                count=len(rows),
                reason=reason,
                metric=first.name,
                tags=first.tags_json[:200],
            )
