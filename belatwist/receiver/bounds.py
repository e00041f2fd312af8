"""Limits on request bodies: on each body, and on all of them together."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from twisted.web import http
from twisted.web.http import HTTPChannel

from belatwist.web.site import BoundedRequest, Limits

MAX_BODY_BYTES = 8 * 1024 * 1024
"""The longest request body, before it is unpacked."""

MAX_BODIES_BYTES = 32 * 1024 * 1024
"""The most bytes of all bodies that are arriving or being parsed."""

RETRY_AFTER_SECONDS = 10
"""``Retry-After`` of a body that did not fit beside the others."""

LIMITS = Limits(connections=64, idle=60, request=120)


@dataclass(slots=True)
class Budget:
    """A number of bytes that may be in use at the same time.

    :ivar limit: the most bytes.
    :ivar used: the bytes in use.
    """

    limit: int
    used: int = 0


class Body(BytesIO):
    """A request body in memory, counted against a budget until it is closed.

    Twisted closes the content of a request when that is answered or its connection is lost.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget
        self._counted = 0

    def add(self, data: bytes) -> bool:
        """Append a piece.

        :return: whether the budget allowed it; nothing is appended otherwise.
        """
        if self._budget.used + len(data) > self._budget.limit:
            return False
        self._budget.used += len(data)
        self._counted += len(data)
        self.write(data)
        return True

    def close(self) -> None:
        """Free the bytes and return them to the budget."""
        self._budget.used -= self._counted
        self._counted = 0
        super().close()


class UploadRequest(BoundedRequest):
    """A request that refuses its body by itself.

    It answers 413 as soon as the body is known to be too long, and 503 when the body does not fit
    beside the bodies of other requests.

    :param on_refused: called with the reason when the request refuses its body.
    """

    def __init__(
        self, channel: HTTPChannel, budget: Budget, on_refused: Callable[[str], None]
    ) -> None:
        super().__init__(channel)
        self._on_refused = on_refused
        # In memory always: Twisted writes a longer body to a file.
        self._body = Body(budget)

    def gotLength(self, length: int | None) -> None:
        """Refuse a declared length over the bound.

        :param length: the ``Content-Length``; ``None`` for a chunked body.
        """
        self.content = self._body
        if length is not None and length > MAX_BODY_BYTES:
            self._refuse_length()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, unless it is too much."""
        if self.refused:
            return
        if self._body.tell() + len(data) > MAX_BODY_BYTES:
            self._refuse_length()
        elif not self._body.add(data):
            reason = "too many bodies at the same time"
            retry_after = {b"Retry-After": [b"%d" % RETRY_AFTER_SECONDS]}
            self.refuse(http.SERVICE_UNAVAILABLE, reason, retry_after)
            self._discard(reason)

    def take_body(self) -> Body:
        """Return the complete body; the caller closes it.

        Parsing a body may outlast its request, when the client disconnects.
        """
        self.content = BytesIO()
        return self._body

    def _refuse_length(self) -> None:
        reason = f"the body is longer than {MAX_BODY_BYTES} bytes"
        self.refuse(http.REQUEST_ENTITY_TOO_LARGE, reason)
        self._discard(reason)

    def _discard(self, reason: str) -> None:
        self._body.close()
        self._on_refused(reason)
