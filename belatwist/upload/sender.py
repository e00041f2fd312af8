"""Sends bodies, and records what became of the samples in them."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from belatwist.store import Batch, Outcome, Row, SampleStore, Settlement
from belatwist.upload.chunks import ChunkSize
from belatwist.upload.cycle import Cycle
from belatwist.upload.jsonl import MAX_AHEAD_MS
from belatwist.upload.policy import Accepted, NotAccepted, OnHold, Rejected, Retryable, SendResult
from belatwist.upload.progress import Progress
from belatwist.upload.retry import RetryChain
from belatwist.upload.wakeup import Wakeup

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class ClockState(Protocol):
    """What the uploader needs of the timekeeper."""

    @property
    def steps(self) -> int:
        """How often the clock was stepped. Samples that were read before may have moved since."""
        ...

    def now_ms(self) -> int:
        """Return Unix time in milliseconds; takes note of a step."""
        ...

    async def hold_reason(self) -> str | None:
        """Return why samples should not be sent yet; ``None`` when they may be."""
        ...


class Sender:
    """Sends one body at a time, and settles its samples with the store before the next one.

    :param chain: sends a body, and again if need be.
    :param wakeup: says whether the agent stops.
    :param size: of the chunks; an accepted body lets it grow, a failure lets it fall back.
    :ivar not_before: no cycle should begin before this moment on the reactor's clock, because the
        server has asked for time.
    """

    def __init__(
        self,
        store: SampleStore,
        chain: RetryChain,
        wakeup: Wakeup,
        *,
        reactor: "IReactorTime",
        clock: ClockState,
        size: ChunkSize,
        progress: Progress,
    ) -> None:
        self._store = store
        self._chain = chain
        self._wakeup = wakeup
        self._reactor = reactor
        self._clock = clock
        self._size = size
        self._progress = progress
        self._unrecorded: list[Settlement] = []
        self.not_before = 0.0

    async def post(
        self, rows: Sequence[Row], body: bytes, cycle: Cycle, as_of: int | None = None
    ) -> SendResult | OnHold:
        """Send a body. If the server accepts it, record at once that it has the samples.

        :param rows: the samples in the body.
        :param as_of: that of the batch which the samples are from.
        """

        async def check() -> str | None:
            if (reason := await self.hold_reason()) is not None:
                return reason
            stepped = self._clock.steps != cycle.steps
            return "the clock was stepped, and the samples moved" if stepped else None

        retrying = partial(self._progress.will_retry, cycle, len(rows))
        try:
            sent = await self._chain.send(body, retrying, check)
        finally:
            self._progress.retrying = 0
        result = sent.result
        if isinstance(result, Rejected):
            return result
        if not isinstance(result, Accepted):
            if not (isinstance(result, OnHold) and self._wakeup.stopped):
                self.failed(result, cycle, sent.attempt)
            return result
        self._unrecorded.append(
            Settlement(Outcome.ACCEPTED, rows, cycle.batch_id, cycle.chunks, as_of=as_of)
        )
        self._progress.accepted(cycle, len(rows), len(body), result, sent)
        await self.settle()
        self._size.accepted()
        return result

    async def reject(self, rows: Sequence[Row], reason: str, batch: Batch, cycle: Cycle) -> None:
        """Mark samples as rejected: the store keeps them, and they are not sent again."""
        self._unrecorded.append(
            Settlement(Outcome.REJECTED, rows, cycle.batch_id, cycle.chunks, reason)
        )
        self._progress.rejected(cycle, rows, batch.series, reason)
        await self.settle()

    async def settle(self) -> None:
        """Record what became of samples, as far as it is not recorded yet.

        While the store fails, so does this. The same samples would be sent again otherwise.
        """
        if self._unrecorded:
            await self._store.settle(self._unrecorded, self._clock.now_ms())
            self._unrecorded = []

    def until_ms(self, cycle: Cycle) -> int:
        """Return the latest timestamp to read, and note the clock's steps in the cycle.

        The server would drop later samples as too far ahead: they wait until the clock reaches
        them.
        """
        now_ms = self._clock.now_ms()
        cycle.steps = self._clock.steps
        return now_ms + MAX_AHEAD_MS

    async def hold_reason(self) -> str | None:
        """Return why nothing should be sent now; ``None`` when samples may be sent."""
        reason = await self._clock.hold_reason()
        return None if reason is None else f"the clock is not trusted: {reason}"

    def failed(self, failure: NotAccepted, cycle: Cycle, attempt: int = 1) -> None:
        """End a cycle. The other samples stay pending for the next one, which begins small."""
        self._size.failed()
        if isinstance(failure, Retryable):
            self.not_before = self._reactor.seconds() + failure.after
        self._progress.failed(cycle, failure, attempt)
