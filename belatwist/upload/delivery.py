"""Upload cycles: everything pending goes to the server, whatever it says of parts of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from twisted.logger import Logger

from belatwist.store import Batch, Outcome, Row, SampleStore, Verdict
from belatwist.upload import policy
from belatwist.upload.chain import RetryChain
from belatwist.upload.chunks import ChunkSize, cut
from belatwist.upload.jsonl import MAX_AHEAD_MS, Encoder, compress
from belatwist.upload.policy import Accepted, Rejected, Retry
from belatwist.upload.suspects import Suspects

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

QUESTIONS = 20
"""Suspected samples that are asked about one by one in a cycle, at most: each is a request."""

PROBES = 100
"""A probe is one of so many of the newest samples, picked at random."""


class ClockState(Protocol):
    """What is needed of the timekeeper.

    :ivar steps: how often the clock was stepped: what was read before may have moved since.
    """

    @property
    def steps(self) -> int:
        """How often the clock was stepped: samples read before may have moved since."""
        ...

    def now_ms(self) -> int:
        """Return Unix time in milliseconds; takes note of a step."""
        ...

    async def doubt(self) -> str | None:
        """Say why samples should not be sent now: their times may be wrong."""
        ...


class _Result(Enum):
    """How a step of a cycle ended."""

    DONE = "go on"
    ENDED = "the server takes nothing more now"
    DOUBT = "a sample was refused by itself, and the server has taken nothing yet in this cycle"


@dataclass(slots=True)
class _Cycle:
    """What a cycle has done so far.

    :ivar number: counts the cycles of this process.
    :ivar began: seconds on the reactor's clock.
    :ivar batch_id: a UUID; with a chunk's index it names the chunk.
    :ivar aside: samples of suspected series, by series: they wait for the others.
    :ivar steps: the clock's steps when the samples in hand were read.
    """

    number: int
    began: float
    batch_id: str = field(default_factory=lambda: str(uuid4()))
    chunks: int = 0
    samples: int = 0
    bytes: int = 0
    rejected: int = 0
    newest_at: float = 0.0
    aside: dict[int, list[Row]] = field(default_factory=dict)
    steps: int = 0


class Delivery:
    """Runs upload cycles, one at a time.

    :param chain: sends a body, and again if need be.
    :param reactor: the clock that times cycles; it schedules nothing here.
    :param fresh_every: while a backlog is drained, the newest samples are sent first as soon as
        this many seconds have passed since they were last.
    :param batch_size: samples read from the store at once, and the largest chunk.
    :param chunk_size: samples of the first chunk, and of the first one after a failure.
    :param compression_level: zlib's; ``None`` sends plain bodies.
    :param random: gives numbers from 0 to 1.
    :param endpoint: where bodies go, for the log.
    """

    log = Logger()

    def __init__(
        self,
        store: SampleStore,
        chain: RetryChain,
        *,
        reactor: "IReactorTime",
        clock: ClockState,
        fresh_every: float,
        batch_size: int,
        chunk_size: int,
        compression_level: int | None,
        random: Callable[[], float],
        endpoint: str,
    ) -> None:
        self._store = store
        self._chain = chain
        self._reactor = reactor
        self._clock = clock
        self._fresh_every = fresh_every
        self._batch_size = batch_size
        self._compression_level = compression_level
        self._random = random
        self._endpoint = endpoint
        self._encoder = Encoder()
        self._size = ChunkSize(chunk_size, batch_size)
        self._suspects = Suspects()
        self._number = 0
        self._doubt = False
        self._failing_since: float | None = None
        self._failures = 0
        self._not_before = 0.0
        self._owed: list[Verdict] = []
        self._stopping = False

    async def run(self) -> None:
        """Run a cycle: until nothing is left, or the server does not take it, or :meth:`stop`.

        Where the last one ended with a server that asked for time, none begins before that.
        """
        if self._reactor.seconds() < self._not_before:
            return
        await self._settle_owed()
        self._number += 1
        cycle = _Cycle(self._number, self._reactor.seconds())
        cycle.newest_at = cycle.began
        if self._store.pending and (reason := await self._clock.doubt()) is not None:
            self._failed(Retry(reason), "the clock is not known to be good", cycle)
            return
        if not self._doubt or await self._probe(cycle):
            await self._drain(cycle)
        if cycle.samples or cycle.rejected:
            self.log.info(
                "uploaded {count} samples in {chunks} requests, {bytes_sent} bytes,"
                " {duration_ms:.0f} ms; {rejected} rejected, {pending} pending",
                batch_id=cycle.batch_id,
                count=cycle.samples,
                chunks=cycle.chunks,
                bytes_sent=cycle.bytes,
                duration_ms=(self._reactor.seconds() - cycle.began) * 1000,
                rejected=cycle.rejected,
                pending=self._store.pending,
            )

    def stop(self) -> None:
        """End the cycle: a wait at once, a request in flight when it is answered and recorded."""
        self._stopping = True
        self._chain.stop()

    async def _settle_owed(self) -> None:
        """Record what the server has taken. While the store cannot, nothing more is sent: it would
        be the same samples again.
        """
        if self._owed:
            await self._store.settle(self._owed, self._clock.now_ms())
            self._owed = []

    async def _drain(self, cycle: _Cycle) -> None:
        """Send all that is pending, in order; then ask about what was set aside."""
        after = None
        while not self._stopping:
            until_ms = self._until_ms(cycle)
            batch = await self._store.fetch(self._batch_size, until_ms, after)
            result = await self._send(batch, cycle)
            if result is _Result.DOUBT:
                # Is it the sample, or would the server refuse anything?
                if not await self._probe(cycle):
                    return
                after = None
                cycle.aside.clear()
                continue
            if result is _Result.ENDED:
                return
            if len(batch.rows) < self._batch_size:
                await self._ask(batch, cycle)
                return
            after = batch.last
            if not await self._send_newest(cycle):
                return

    async def _send_newest(self, cycle: _Cycle) -> bool:
        """While a backlog is drained: let the newest samples go before it, from time to time."""
        now = self._reactor.seconds()
        if now - cycle.newest_at < self._fresh_every:
            return True
        cycle.newest_at = now
        batch = await self._store.fetch_newest(self._batch_size, self._until_ms(cycle))
        return await self._send(batch, cycle, in_order=False) is _Result.DONE

    async def _send(self, batch: Batch, cycle: _Cycle, *, in_order: bool = True) -> _Result:
        """Send a batch, chunk by chunk, but for samples of suspected series.

        :param in_order: whether it belongs to the pass that meets every sample, once.
        """
        rows, unsendable = self._encoder.partition(batch.rows, batch.series)
        for reason, bad in unsendable.items():
            await self._reject(bad, reason, batch, cycle)
        rows = self._set_aside(rows, cycle.aside if in_order else {})
        while rows and not self._stopping:
            chunk, body = cut(rows, self._size.samples, lambda part: self._build(part, batch))
            result = await self._deliver(chunk, body, batch, cycle)
            if result is not _Result.DONE:
                return result
            rows = rows[len(chunk) :]
        return _Result.DONE

    def _set_aside(self, rows: Sequence[Row], series: dict[int, list[Row]]) -> Sequence[Row]:
        if not any(self._suspects.watches(i) for i in {row[1] for row in rows}):
            return rows
        others = []
        for row in rows:
            if not self._suspects.watches(row[1]):
                others.append(row)
            elif len(aside := series.setdefault(row[1], [])) < self._batch_size:
                aside.append(row)
        return others

    async def _deliver(
        self, chunk: Sequence[Row], body: bytes, batch: Batch, cycle: _Cycle
    ) -> _Result:
        """Send a chunk; where it is refused, halve it until what is refused is alone."""
        parts = [(chunk, body)]
        while parts:
            part, body = parts.pop()
            outcome = await self._post(part, body, cycle)
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
                return _Result.DOUBT
            else:
                await self._refused(part, outcome, batch, cycle)
        return _Result.DONE

    async def _probe(self, cycle: _Cycle) -> bool:
        """Send one sample, to learn whether the server takes anything at all.

        It is picked at random, so that one bad series cannot make the server look bad for ever.

        :return: whether it was taken.
        """
        batch = await self._store.fetch_newest(PROBES, self._until_ms(cycle))
        rows, _ = self._encoder.partition(batch.rows, batch.series)
        unsuspected = [row for row in rows if not self._suspects.watches(row[1])]
        if not unsuspected or self._stopping:
            return False
        one = [unsuspected[int(self._random() * len(unsuspected)) % len(unsuspected)]]
        outcome = await self._post(one, self._build(one, batch), cycle)
        self._doubt = isinstance(outcome, Rejected)
        if isinstance(outcome, Rejected):
            self._failed(outcome, "the server refuses everything (is remote.url right?)", cycle)
        return isinstance(outcome, Accepted)

    async def _ask(self, batch: Batch, cycle: _Cycle) -> None:
        """Ask about the samples of suspected series, now that the server has taken others.

        Each by itself; or all of a series, once it is clear that it is the series that is refused.
        """
        questions = 0
        for series_id, rows in cycle.aside.items():
            if self._suspects.uniform(series_id):
                portions: list[Sequence[Row]] = [rows]
            else:
                portions = [[row] for row in rows[: QUESTIONS - questions]]
                questions += len(portions)
            for portion in portions:
                if self._stopping or not cycle.chunks:
                    return
                outcome = await self._post(portion, self._build(portion, batch), cycle)
                if isinstance(outcome, Rejected):
                    await self._refused(portion, outcome, batch, cycle)
                elif not isinstance(outcome, Accepted):
                    return

    async def _post(self, rows: Sequence[Row], body: bytes, cycle: _Cycle) -> policy.Outcome:
        """Send a body; record at once that its samples were taken, if they were."""
        began = self._reactor.seconds()

        def retrying(outcome: Retry, attempt: int, wait: float) -> None:
            self._log_failure(
                "upload of a chunk failed, next try in {backoff_ms:.0f} ms: {error}",
                outcome,
                cycle,
                attempt=attempt,
                backoff_ms=wait * 1000,
                count=len(rows),
            )

        async def check() -> str | None:
            if (reason := await self._clock.doubt()) is not None:
                return f"the clock is not known to be good: {reason}"
            stepped = self._clock.steps != cycle.steps
            return "the clock was stepped, and the samples moved" if stepped else None

        outcome = await self._chain.send(body, retrying, check)
        if not isinstance(outcome, Accepted):
            if not isinstance(outcome, Rejected):
                self._failed(outcome, "the server does not take samples", cycle)
            return outcome
        self._owed.append(Verdict(Outcome.ACCEPTED, rows, cycle.batch_id, cycle.chunks))
        await self._settle_owed()
        self._suspects.taken(rows)
        self._size.accepted()
        self.log.debug(
            "chunk {chunk_index} accepted: {count} samples, {bytes_sent} bytes",
            batch_id=cycle.batch_id,
            chunk_index=cycle.chunks,
            count=len(rows),
            endpoint=self._endpoint,
            http_status=outcome.status,
            bytes_sent=len(body),
            bytes_rcvd=outcome.received_bytes,
            duration_ms=(self._reactor.seconds() - began) * 1000,
        )
        self._works()
        cycle.chunks += 1
        cycle.samples += len(rows)
        cycle.bytes += len(body)
        return outcome

    async def _refused(
        self, rows: Sequence[Row], outcome: Rejected, batch: Batch, cycle: _Cycle
    ) -> None:
        """Record a refusal of one series' samples alone; condemn those refused before."""
        condemned = self._suspects.refused(rows, cycle.number)
        if condemned:
            await self._reject(condemned, f"refused twice: {outcome.reason}", batch, cycle)

    async def _reject(self, rows: Sequence[Row], reason: str, batch: Batch, cycle: _Cycle) -> None:
        """Mark samples as rejected: they are kept here for inspection, and not sent again."""
        verdict = Verdict(Outcome.REJECTED, rows, cycle.batch_id, cycle.chunks, reason)
        self._owed.append(verdict)
        await self._settle_owed()
        cycle.rejected += len(rows)
        first = batch.series[rows[0][1]]
        self.log.warn(
            "{count} samples are not sent, {reason}; the first is {metric} {tags}",
            count=len(rows),
            reason=reason,
            metric=first.name,
            tags=first.tags_json[:200],
        )

    def _failed(self, outcome: policy.Outcome, what: str, cycle: _Cycle) -> None:
        """The cycle ends: everything else stays pending for the next one, which begins small."""
        self._size.failed()
        if isinstance(outcome, Retry):
            self._not_before = self._reactor.seconds() + outcome.after
        self._log_failure(
            "upload failed, {pending} samples wait; {what}: {error}", outcome, cycle, what=what
        )

    def _log_failure(
        self, text: str, outcome: policy.Outcome, cycle: _Cycle, **fields: object
    ) -> None:
        """Tell of a failure: loudly when it is the first, quietly while it goes on."""
        say = self.log.warn if self._failing_since is None else self.log.debug
        if self._failing_since is None:
            self._failing_since = self._reactor.seconds()
        self._failures += 1
        say(
            text,
            batch_id=cycle.batch_id,
            chunk_index=cycle.chunks,
            endpoint=self._endpoint,
            http_status=outcome.status,
            error=getattr(outcome, "reason", ""),
            error_type=type(outcome).__name__,
            pending=self._store.pending,
            **fields,
        )

    def _works(self) -> None:
        """Tell that failures are over, if there were any."""
        if self._failing_since is not None:
            self.log.info(
                "the server takes samples again, after {seconds:.0f} s and {failures} failures",
                seconds=self._reactor.seconds() - self._failing_since,
                failures=self._failures,
            )
            self._failing_since = None
            self._failures = 0

    def _build(self, rows: Sequence[Row], batch: Batch) -> bytes:
        body = self._encoder.encode(rows, batch.series)
        level = self._compression_level
        return body if level is None else compress(body, level)

    def _until_ms(self, cycle: _Cycle) -> int:
        """Return up to when to read samples, and remember which steps of the clock they have seen.

        What the server would drop as too far ahead waits until the clock has come to it.
        """
        now_ms = self._clock.now_ms()
        cycle.steps = self._clock.steps
        return now_ms + MAX_AHEAD_MS
