"""The retry chain: one body, tried until the server has said something final."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from belatwist.metrics.telemetry import Telemetry
from belatwist.upload import ImportClient
from belatwist.upload.policy import Backoff, OnHold, Retry, SendResult
from belatwist.upload.wakeup import Wakeup

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

Check = Callable[[], Awaitable[str | None]]
"""Says why a body should not be sent now; ``None`` when nothing speaks against it."""

Retrying = Callable[[Retry, int, float], None]
"""Told of a try that failed and is followed by another: why, which one, seconds in between."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a chain has ended.

    :ivar result: the last try's; :class:`OnHold` when that try was not made.
    :ivar attempt: which try it was, from 1.
    :ivar seconds: how long its request took, 0 when none was made.
    """

    result: SendResult | OnHold
    attempt: int
    seconds: float = 0.0


class RetryChain:
    """Tries a body again, with growing waits, while its result is :class:`Retry`.

    It sequences and nothing else: what an answer means and how long to wait is the policy's.

    :param wakeup: sleeps between two tries, and ends the chain when the agent stops.
    :param reactor: the clock that times requests.
    :param random: gives numbers from 0 to 1, uniformly.
    :param telemetry: gets the duration of each request.
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

        :param check: asked before each try; what it says ends the chain.
        :return: the last try's result: :class:`Retry` when the tries were used up,
            :class:`OnHold` when ``check`` spoke against another one, or the chain was stopped.
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
            if last or not isinstance(result, Retry):
                return Sent(result, attempt, seconds)
            wait = self._backoff.wait(attempt, asked=result.after, random=self._random())
            retrying(result, attempt, wait)
            attempt += 1
            # A server that asks for the wait can be reached already.
            await self._wakeup.sleep(wait, can_ring=not result.after)
            if self._wakeup.stopped:
                return Sent(OnHold("stopping"), attempt)
