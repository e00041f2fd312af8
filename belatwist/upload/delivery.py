"""Upload cycles: everything pending goes to the server, whatever it says of parts of it."""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Protocol

from belatwist.metrics.telemetry import Telemetry
from belatwist.store import Batch, Outcome, Row, SampleStore, Settlement
from belatwist.upload import policy
from belatwist.upload.chunks import ChunkSize, cut
from belatwist.upload.cycle import Cycle
from belatwist.upload.jsonl import MAX_AHEAD_MS, Encoder, compress
from belatwist.upload.policy import Accepted, NotAccepted, OnHold, Rejected, Retry
from belatwist.upload.progress import Progress
from belatwist.upload.quarantine import Quarantine
from belatwist.upload.retry import RetryChain
from belatwist.upload.wakeup import Wakeup

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

MAX_SINGLE_RETRIES = 20
"""Suspected samples that are asked about one by one in a cycle, at most: each is a request."""

CANARY_CANDIDATES = 100
"""A probe is one of so many of the newest samples, picked at random."""


class ClockState(Protocol):
    """What is needed of the timekeeper."""

    @property
    def steps(self) -> int:
        """How often the clock was stepped: samples read before may have moved since."""
        ...

    def now_ms(self) -> int:
        """Return Unix time in milliseconds; takes note of a step."""
        ...

    async def hold_reason(self) -> str | None:
        """Say why samples should not be sent now: their times may be wrong."""
        ...


class _Result(Enum):
    """How a step of a cycle ended."""

    DONE = "go on"
    ENDED = "the server takes nothing more now"
    INCONCLUSIVE = (
        "a sample was refused by itself, and the server has taken nothing yet in this cycle"
    )


class Delivery:
    """Runs upload cycles, one at a time.

    :param chain: sends a body, and again if need be.
    :param wakeup: says when the agent stops: a request in flight is the last one then.
    :param reactor: the clock that times cycles; it schedules nothing here.
    :param fresh_every: while a backlog is drained, the newest samples are sent first as soon as
        this many seconds have passed since they were last.
    :param batch_size: samples read from the store at once, and the largest chunk.
    :param chunk_size: samples of the first chunk, and of the first one after a failure.
    :param compression_level: gzip's; ``None`` sends plain bodies.
    :param random: gives numbers from 0 to 1.
    :param endpoint: where bodies go, for the log.
    :ivar progress: how it goes.
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
        self._chain = chain
        self._wakeup = wakeup
        self._reactor = reactor
        self._clock = clock
        self._fresh_every = fresh_every
        self._batch_size = batch_size
        self._compression_level = compression_level
        self._random = random
        self._encoder = Encoder()
        self._size = ChunkSize(chunk_size, batch_size)
        self._quarantine = Quarantine()
        self._number = 0
        self._canary_first = False
        self._not_before = 0.0
        self._unrecorded: list[Settlement] = []

    async def run(self) -> None:
        """Run a cycle: until nothing is left, or the server does not take it, or the agent stops.

        Where the last one ended with a server that asked for time, none begins before that.
        """
        self.progress.look()
        if self._reactor.seconds() < self._not_before:
            return
        await self._settle()
        self._number += 1
        began = self._reactor.seconds()
        cycle = Cycle(self._number, began, newest_at=began)
        if self._store.pending and (reason := await self._hold_reason()) is not None:
            self._failed(OnHold(reason), cycle)
            return
        if not self._canary_first or await self._send_canary(cycle):
            await self._drain(cycle)
        self.progress.ended(cycle)

    async def _settle(self) -> None:
        """Record what the server has taken. While the store cannot, nothing more is sent: it would
        be the same samples again.
        """
        if self._unrecorded:
            await self._store.settle(self._unrecorded, self._clock.now_ms())
            self._unrecorded = []

    async def _drain(self, cycle: Cycle) -> None:
        """Send all that is pending, in order; then ask about what was set aside."""
        after = None
        while not self._wakeup.stopped:
            until_ms = self._until_ms(cycle)
            batch = await self._store.fetch(self._batch_size, until_ms, after)
            result = await self._send(batch, cycle)
            if result is _Result.INCONCLUSIVE:
                # Is it the sample, or would the server refuse anything?
                if not await self._send_canary(cycle):
                    return
                after = None
                cycle.quarantined.clear()
                continue
            if result is _Result.ENDED:
                return
            if len(batch.rows) < self._batch_size:
                await self._retry_quarantined(batch, cycle)
                return
            after = batch.last
            if not await self._send_newest(cycle):
                return

    async def _send_newest(self, cycle: Cycle) -> bool:
        """While a backlog is drained: let the newest samples go before it, from time to time."""
        now = self._reactor.seconds()
        if now - cycle.newest_at < self._fresh_every:
            return True
        cycle.newest_at = now
        batch = await self._store.fetch_newest(self._batch_size, self._until_ms(cycle))
        return await self._send(batch, cycle, in_order=False) is _Result.DONE

    async def _send(self, batch: Batch, cycle: Cycle, *, in_order: bool = True) -> _Result:
        """Send a batch, chunk by chunk, but for samples of suspected series.

        :param in_order: whether it belongs to the pass that meets every sample, once.
        """
        rows, unsendable = self._encoder.partition(batch.rows, batch.series)
        for reason, bad in unsendable.items():
            await self._reject(bad, reason, batch, cycle)
        rows = self._quarantine.divert(
            rows, cycle.quarantined if in_order else {}, self._batch_size
        )
        while rows and not self._wakeup.stopped:
            chunk, body = cut(rows, self._size.samples, lambda part: self._build(part, batch))
            result = await self._deliver(chunk, body, batch, cycle)
            if result is not _Result.DONE:
                return result
            rows = rows[len(chunk) :]
        return _Result.DONE

    async def _deliver(
        self, chunk: Sequence[Row], body: bytes, batch: Batch, cycle: Cycle
    ) -> _Result:
        """Send a chunk; where it is refused, halve it until what is refused is alone."""
        parts = [(chunk, body)]
        while parts:
            part, body = parts.pop()
            outcome = await self._post(part, body, cycle, batch.as_of)
            if isinstance(outcome, Accepted):
                continue
            if not isinstance(outcome, Rejected):
                return _Result.ENDED
            self._size.failed()
            if len(part) > 1:
                middle = len(part) // 2
                halves = part[middle:], part[:middle]
                parts.extend((half, self._build(half, batch)) for half in halves)
            elif not cycle.chunks:
                return _Result.INCONCLUSIVE
            else:
                await self._refused(part, outcome, batch, cycle)
        return _Result.DONE

    async def _send_canary(self, cycle: Cycle) -> bool:
        """Send one sample, to learn whether the server takes anything at all.

        It is picked at random, so that one bad series cannot make the server look bad for ever.

        :return: whether it was taken.
        """
        batch = await self._store.fetch_newest(CANARY_CANDIDATES, self._until_ms(cycle))
        rows, _ = self._encoder.partition(batch.rows, batch.series)
        unsuspected = [row for row in rows if not self._quarantine.contains(row[1])]
        if not unsuspected or self._wakeup.stopped:
            return False
        one = [unsuspected[int(self._random() * len(unsuspected)) % len(unsuspected)]]
        outcome = await self._post(one, self._build(one, batch), cycle)
        self._canary_first = isinstance(outcome, Rejected)
        if isinstance(outcome, Rejected):
            self._failed(outcome, cycle)
        return isinstance(outcome, Accepted)

    async def _retry_quarantined(self, batch: Batch, cycle: Cycle) -> None:
        """Ask about the samples of suspected series, now that the server has taken others.

        Each by itself; or all of a series, once it is clear that it is the series that is refused.
        """
        questions = 0
        for series_id, rows in cycle.quarantined.items():
            if self._quarantine.rejects_whole_series(series_id):
                portions: list[Sequence[Row]] = [rows]
            else:
                portions = [[row] for row in rows[: MAX_SINGLE_RETRIES - questions]]
                questions += len(portions)
            for portion in portions:
                if self._wakeup.stopped or not cycle.chunks:
                    return
                outcome = await self._post(portion, self._build(portion, batch), cycle)
                if isinstance(outcome, Rejected):
                    await self._refused(portion, outcome, batch, cycle)
                elif not isinstance(outcome, Accepted):
                    return

    async def _post(
        self, rows: Sequence[Row], body: bytes, cycle: Cycle, as_of: int | None = None
    ) -> policy.SendResult | OnHold:
        """Send a body; record at once that its samples were taken, if they were.

        :param as_of: that of the batch which the samples are from.
        """

        async def check() -> str | None:
            if (reason := await self._hold_reason()) is not None:
                return reason
            stepped = self._clock.steps != cycle.steps
            return "the clock was stepped, and the samples moved" if stepped else None

        retrying = partial(self.progress.will_retry, cycle, len(rows))
        try:
            sent = await self._chain.send(body, retrying, check)
        finally:
            self.progress.retrying = 0
        outcome = sent.outcome
        if isinstance(outcome, Rejected):
            return outcome
        if not isinstance(outcome, Accepted):
            if not (isinstance(outcome, OnHold) and self._wakeup.stopped):
                self._failed(outcome, cycle, sent.attempt)
            return outcome
        settlement = Settlement(Outcome.ACCEPTED, rows, cycle.batch_id, cycle.chunks, as_of=as_of)
        self._unrecorded.append(settlement)
        self.progress.accepted(cycle, len(rows), len(body), outcome, sent)
        await self._settle()
        self._quarantine.accepted(rows)
        self._size.accepted()
        return outcome

    async def _refused(
        self, rows: Sequence[Row], outcome: Rejected, batch: Batch, cycle: Cycle
    ) -> None:
        """Record a refusal of one series' samples alone; condemn those refused before."""
        self.progress.refused(cycle)
        rejected = self._quarantine.refused(rows, cycle.number)
        if rejected:
            await self._reject(rejected, f"refused twice: {outcome.reason}", batch, cycle)

    async def _reject(self, rows: Sequence[Row], reason: str, batch: Batch, cycle: Cycle) -> None:
        """Mark samples as rejected: they are kept here for inspection, and not sent again."""
        settlement = Settlement(Outcome.REJECTED, rows, cycle.batch_id, cycle.chunks, reason)
        self._unrecorded.append(settlement)
        self.progress.rejected(cycle, rows, batch.series, reason)
        await self._settle()

    def _failed(self, failure: NotAccepted, cycle: Cycle, attempt: int = 1) -> None:
        """The cycle ends: everything else stays pending for the next one, which begins small."""
        self._size.failed()
        if isinstance(failure, Retry):
            self._not_before = self._reactor.seconds() + failure.after
        self.progress.failed(cycle, failure, attempt)

    async def _hold_reason(self) -> str | None:
        reason = await self._clock.hold_reason()
        return None if reason is None else f"the clock is not trusted: {reason}"

    def _build(self, rows: Sequence[Row], batch: Batch) -> bytes:
        body = self._encoder.encode(rows, batch.series)
        level = self._compression_level
        return body if level is None else compress(body, level)

    def _until_ms(self, cycle: Cycle) -> int:
        """Return up to when to read samples, and remember which steps of the clock they have seen.

        What the server would drop as too far ahead waits until the clock has come to it.
        """
        now_ms = self._clock.now_ms()
        cycle.steps = self._clock.steps
        return now_ms + MAX_AHEAD_MS
