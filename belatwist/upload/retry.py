"""The retry chain: sends one body until the server has given a final answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from belatwist.metrics.telemetry import Telemetry
from belatwist.upload import ImportClient
from belatwist.upload.policy import Backoff, OnHold, Retryable, SendResult
from belatwist.upload.wakeup import Wakeup

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

Check = Callable[[], Awaitable[str | None]]
"""Returns why a body should not be sent now; ``None`` when it may be."""

Retrying = Callable[[Retryable, int, float], None]
"""Called before a wait, with the failure, the number of the attempt, and the wait in seconds."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a chain has ended.

    :ivar result: of the last attempt; :class:`OnHold` when that attempt was not made.
    :ivar attempt: its number, from 1.
    :ivar seconds: how long its request took; 0 when none was made.
    """

    result: SendResult | OnHold
    attempt: int
    seconds: float = 0.0


class RetryChain:
    """Sends a body again, with growing waits, while the result is :class:`Retryable`.

    :mod:`belatwist.upload.policy` decides what an answer means and how long to wait.

    :param wakeup: sleeps between two attempts, and ends the chain when the agent stops.
    :param reactor: the clock that times requests.
    :param random: returns numbers from 0 to 1, uniformly.
    :param telemetry: observes the duration of each request.
    """

    def __init__(
        self,
        client: ImportClient,
        backoff: Backoff,
        wakeup: Wakeup,
        *,
        reactor: "IReactorTime",
        random: Callable[[], float],
        telemetry: Telemetry,
    ) -> None:
        self._client = client
        self._backoff = backoff
        self._wakeup = wakeup
        self._reactor = reactor
        self._random = random
        self._durations = telemetry.upload_duration

    async def send(self, body: bytes, retrying: Retrying, check: Check) -> Sent:
        """Send a body.

        :param check: called before each attempt. A reason ends the chain.
        :return: the last attempt's result: :class:`Retryable` when the attempts were used up,
            :class:`OnHold` when ``check`` had a reason, or the agent stops.
        """
        attempt = 1
        while True:
            if (reason := await check()) is not None:
                return Sent(OnHold(reason), attempt)
            began = self._reactor.seconds()
            result = await self._client.post(body)
            seconds = self._reactor.seconds() - began
            self._durations.observe(seconds)
            last = attempt >= self._backoff.attempts or self._wakeup.stopped
            if last or not isinstance(result, Retryable):
                return Sent(result, attempt, seconds)
            wait = self._backoff.wait(attempt, asked=result.after, random=self._random())
            retrying(result, attempt, wait)
            attempt += 1
            # A server that asks for the wait can be reached already.
            await self._wakeup.sleep(wait, can_ring=not result.after)
            if self._wakeup.stopped:
                return Sent(OnHold("stopping"), attempt)
