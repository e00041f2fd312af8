"""A model of a server: samples that it has, samples that it refuses for ever, and faults."""

from collections.abc import Callable, Collection
from enum import Enum

from twisted.internet.defer import Deferred, succeed

from belatwist.upload import policy
from belatwist.upload.policy import Accepted, Misconfigured, Rejected, Retryable
from tests.upload.scripted import points

ASKED = 7.0
"""Seconds that a server asks for."""

Point = tuple[str, int]
"""Name and time of a sample, which identify it here."""


class Fault(Enum):
    """A fault, which can happen to a request."""

    NONE = "it is answered as it deserves"
    LOST = "it never arrives"
    CUT = "it is taken, and the answer is lost"
    BUSY = "503"
    ASKS = "503, and asks to be left alone for a while"
    SLOW = "400, though nothing is wrong with it: a proxy found it too slow"
    DENIED = "401"


class ModelServer:
    """Takes bodies, all of a body or nothing, and refuses those that hold a bad point.

    :param bad: whether a point is refused for ever.
    :ivar taken: how often each point was taken.
    :ivar faults: what will happen to the next requests; then nothing will.
    :ivar sizes: points of each request.
    """

    endpoint = "http://model/api/v1/import"

    def __init__(self, bad: Callable[[Point], bool] = lambda _: False) -> None:
        self.bad = bad
        self.taken: dict[Point, int] = {}
        self.faults: list[Fault] = []
        self.sizes: list[int] = []
        self.refuses_everything = False

    def post(self, body: bytes) -> "Deferred[policy.SendResult]":
        found = [(name, at) for name, at, _ in points(body)]
        assert len(found) == len(set(found)), "a point twice in one body"
        self.sizes.append(len(found))
        return succeed(self._answer(found, self.faults.pop(0) if self.faults else Fault.NONE))

    def close(self) -> "Deferred[None]":
        return succeed(None)

    def _answer(self, found: Collection[Point], fault: Fault) -> policy.SendResult:
        match fault:
            case Fault.LOST:
                return Retryable("connection refused", error_type="ConnectionRefusedError")
            case Fault.BUSY:
                return Retryable("HTTP 503", 503)
            case Fault.ASKS:
                return Retryable("HTTP 503", 503, after=ASKED)
            case Fault.DENIED:
                return Misconfigured(401, "HTTP 401")
            case Fault.SLOW:
                return Rejected(400, "HTTP 400: too slow")
        if self.refuses_everything or any(self.bad(point) for point in found):
            return Rejected(400, "HTTP 400: cannot parse")
        for point in found:
            self.taken[point] = self.taken.get(point, 0) + 1
        return Retryable("cut short") if fault is Fault.CUT else Accepted(204)
