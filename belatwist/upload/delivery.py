"""Upload cycles: sends all pending samples in order, and isolates those that the server refuses."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from belatwist.metrics.telemetry import Telemetry
from belatwist.store import Batch, Row, SampleStore
from belatwist.upload.chunks import ChunkSize, cut
from belatwist.upload.cycle import Cycle
from belatwist.upload.jsonl import Encoder, compress
from belatwist.upload.policy import Accepted, OnHold, Rejected, SendResult
from belatwist.upload.progress import Progress
from belatwist.upload.quarantine import Quarantine
from belatwist.upload.retry import RetryChain
from belatwist.upload.sender import ClockState, Sender
from belatwist.upload.wakeup import Wakeup

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

MAX_SINGLE_RETRIES = 20
"""Quarantined samples that a cycle sends one by one, at most. Each takes a request."""

CANARY_CANDIDATES = 100
"""The canary is picked at random from so many of the newest samples."""


class _End(Enum):
    """How a step of a cycle ended."""

    DONE = "the server has taken what it was sent"
    ENDED = "the server takes nothing more in this cycle"
    INCONCLUSIVE = "the server refuses a single sample, and has accepted nothing in this cycle"


class Delivery:
    """Runs upload cycles, one at a time.

    :param chain: sends a body, and retries.
    :param wakeup: says whether the agent stops. A request in flight is the last one then.
    :param reactor: the clock that times cycles; nothing is scheduled on it here.
    :param fresh_every: seconds after which a cycle that drains a backlog sends the newest samples
        first, once.
    :param batch_size: how many samples are read from the store at once; also the largest chunk.
    :param chunk_size: samples of the first chunk, and of the first chunk after a failure.
    :param compression_level: of gzip; ``None`` sends plain bodies.
    :param random: returns numbers from 0 to 1.
    :param endpoint: where bodies go, for the log.
    :ivar progress: how uploads go, for the log and for health.
    """

    def __init__(
        self,
        store: SampleStore,
        chain: RetryChain,
        wakeup: Wakeup,
        *,
        reactor: "IReactorTime",
        clock: ClockState,
        fresh_every: float,
        batch_size: int,
        chunk_size: int,
        compression_level: int | None,
        random: Callable[[], float],
        endpoint: str,
        telemetry: Telemetry,
    ) -> None:
        self.progress = Progress(store, reactor=reactor, telemetry=telemetry, endpoint=endpoint)
        self._store = store
        self._wakeup = wakeup
        self._reactor = reactor
        self._fresh_every = fresh_every
        self._batch_size = batch_size
        self._compression_level = compression_level
        self._random = random
        self._encoder = Encoder()
        self._size = ChunkSize(chunk_size, batch_size)
        self._sender = Sender(
            store,
            chain,
            wakeup,
            reactor=reactor,
            clock=clock,
            size=self._size,
            progress=self.progress,
        )
        self._quarantine = Quarantine()
        self._number = 0
        self._canary_first = False

    async def run(self) -> None:
        """Run a cycle until nothing is pending, a request fails, or the agent stops.

        A server that asked for time at the end of the last cycle gets it: no cycle runs before.
        """
        self.progress.look()
        if self._reactor.seconds() < self._sender.not_before:
            return
        await self._sender.settle()
        self._number += 1
        began = self._reactor.seconds()
        cycle = Cycle(self._number, began, newest_at=began)
        if self._store.pending and (reason := await self._sender.hold_reason()) is not None:
            self._sender.failed(OnHold(reason), cycle)
            return
        if not self._canary_first or await self._send_canary(cycle):
            await self._drain(cycle)
        self.progress.ended(cycle)

    async def _drain(self, cycle: Cycle) -> None:
        """Send all pending samples in order, and then those that the quarantine diverted."""
        after = None
        while not self._wakeup.stopped:
            until_ms = self._sender.until_ms(cycle)
            batch = await self._store.fetch(self._batch_size, until_ms, after)
            end = await self._send(batch, cycle)
            if end is _End.INCONCLUSIVE:
                # A server that takes the canary refuses the sample; another refuses everything.
                if not await self._send_canary(cycle):
                    return
                after = None
                cycle.quarantined.clear()
                continue
            if end is _End.ENDED:
                return
            if len(batch.rows) < self._batch_size:
                await self._retry_quarantined(cycle)
                return
            after = batch.last
            if not await self._send_newest(cycle):
                return

    async def _send_newest(self, cycle: Cycle) -> bool:
        """Send the newest samples first, if a backlog has delayed them for long enough.

        :return: whether the cycle goes on.
        """
        now = self._reactor.seconds()
        if now - cycle.newest_at < self._fresh_every:
            return True
        cycle.newest_at = now
        batch = await self._store.fetch_newest(self._batch_size, self._sender.until_ms(cycle))
        return await self._send(batch, cycle, in_order=False) is _End.DONE

    async def _send(self, batch: Batch, cycle: Cycle, *, in_order: bool = True) -> _End:
        """Send a batch, chunk by chunk, except for samples of quarantined series.

        :param in_order: whether the batch belongs to the pass over all samples, in which diverted
            samples are kept for the end of the cycle.
        """
        rows, unsendable = self._encoder.partition(batch.rows, batch.series)
        for reason, bad in unsendable.items():
            await self._sender.reject(bad, reason, batch, cycle)
        diverted = cycle.quarantined if in_order else {}
        rows = self._quarantine.divert(rows, diverted, self._batch_size)
        cycle.series.update((i, batch.series[i]) for i in diverted if i in batch.series)
        while rows and not self._wakeup.stopped:
            chunk, body = cut(rows, self._size.samples, lambda part: self._build(part, batch))
            end = await self._deliver(chunk, body, batch, cycle)
            if end is not _End.DONE:
                return end
            rows = rows[len(chunk) :]
        return _End.DONE

    async def _deliver(self, chunk: Sequence[Row], body: bytes, batch: Batch, cycle: Cycle) -> _End:
        """Send a chunk. If the server refuses it, halve it until refused samples are alone."""
        parts = [(chunk, body)]
        while parts:
            part, body = parts.pop()
            result = await self._post(part, body, cycle, batch.as_of)
            if isinstance(result, Accepted):
                continue
            if not isinstance(result, Rejected):
                return _End.ENDED
            self._size.failed()
            if len(part) > 1:
                middle = len(part) // 2
                halves = part[middle:], part[:middle]
                parts.extend((half, self._build(half, batch)) for half in halves)
            elif not cycle.chunks:
                return _End.INCONCLUSIVE
            else:
                await self._refused(part, result, batch, cycle)
        return _End.DONE

    async def _send_canary(self, cycle: Cycle) -> bool:
        """Send one sample to learn whether the server accepts anything at all.

        The sample is picked at random, so that one bad series cannot make the server look bad for
        ever.

        :return: whether the server has accepted it.
        """
        batch = await self._store.fetch_newest(CANARY_CANDIDATES, self._sender.until_ms(cycle))
        rows, _ = self._encoder.partition(batch.rows, batch.series)
        candidates = [row for row in rows if not self._quarantine.contains(row[1])]
        if not candidates or self._wakeup.stopped:
            return False
        one = [candidates[int(self._random() * len(candidates)) % len(candidates)]]
        result = await self._post(one, self._build(one, batch), cycle)
        self._canary_first = isinstance(result, Rejected)
        if isinstance(result, Rejected):
            self._sender.failed(result, cycle)
        return isinstance(result, Accepted)

    async def _retry_quarantined(self, cycle: Cycle) -> None:
        """Send the samples of quarantined series, after the server has accepted others.

        Each sample goes by itself. A series that the server always refuses goes as a whole.
        """
        batch = Batch((), cycle.series)
        singles = 0
        for series_id, rows in cycle.quarantined.items():
            if self._quarantine.rejects_whole_series(series_id):
                portions: list[Sequence[Row]] = [rows]
            else:
                portions = [[row] for row in rows[: MAX_SINGLE_RETRIES - singles]]
                singles += len(portions)
            for portion in portions:
                if self._wakeup.stopped or not cycle.chunks:
                    return
                result = await self._post(portion, self._build(portion, batch), cycle)
                if isinstance(result, Rejected):
                    await self._refused(portion, result, batch, cycle)
                elif not isinstance(result, Accepted):
                    return

    async def _post(
        self, rows: Sequence[Row], body: bytes, cycle: Cycle, as_of: int | None = None
    ) -> SendResult | OnHold:
        result = await self._sender.post(rows, body, cycle, as_of)
        if isinstance(result, Accepted):
            self._quarantine.accepted(rows)
        return result

    async def _refused(
        self, rows: Sequence[Row], result: Rejected, batch: Batch, cycle: Cycle
    ) -> None:
        """Note that the server refused samples of one series alone; reject those refused before."""
        self.progress.refused(cycle)
        rejected = self._quarantine.refused(rows, cycle.number)
        if rejected:
            await self._sender.reject(rejected, f"refused twice: {result.reason}", batch, cycle)

    def _build(self, rows: Sequence[Row], batch: Batch) -> bytes:
        body = self._encoder.encode(rows, batch.series)
        level = self._compression_level
        return body if level is None else compress(body, level)
