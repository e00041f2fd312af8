"""A client with prepared answers, and a reader of the bodies that it was given."""

import gzip
import json
from collections.abc import Iterable

from twisted.internet.defer import Deferred, succeed

from belatwist.upload import policy
from belatwist.upload.policy import Accepted


class ScriptedClient:
    """Answers each body with the next of its outcomes, or the last; ``None`` is no answer yet.

    :ivar bodies: what was posted.
    :ivar waiting: the posts that are not answered.
    """

    endpoint = "http://server/api/v1/import"

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.outcomes: list[policy.SendResult | None] = [Accepted(204)]
        self.waiting: list[Deferred[policy.SendResult]] = []
        self.cancelled = 0
        self.closed = False

    def post(self, body: bytes) -> "Deferred[policy.SendResult]":
        self.bodies.append(body)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is not None:
            return succeed(outcome)
        waiting: Deferred[policy.SendResult] = Deferred(self._cancel)
        self.waiting.append(waiting)
        return waiting

    def close(self) -> "Deferred[None]":
        self.closed = True
        return succeed(None)

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def points(self) -> list[list[tuple[str, int, float]]]:
        """Return the points of each body: name, time, value."""
        return [list(points(body)) for body in self.bodies]


def points(body: bytes) -> Iterable[tuple[str, int, float]]:
    """Read a body: name, time and value of each point."""
    plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    for line in plain.splitlines():
        one = json.loads(line)
        for at, value in zip(one["timestamps"], one["values"], strict=True):
            yield one["metric"]["__name__"], at, value


class DeviceClock:
    """The device's clock, as the uploader sees it.

    :ivar wrong: why nothing should be sent; ``None`` while all is well.
    :ivar steps: how often it was stepped.
    """

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self.wrong: str | None = None
        self.steps = 0

    def now_ms(self) -> int:
        """It stands still."""
        return self._now_ms

    async def hold_reason(self) -> str | None:
        """Return the test's reason."""
        return self.wrong
