"""How many samples go into one request."""

from collections.abc import Callable, Sequence

from belatwist.store import Row

MAX_BODY_BYTES = 256 * 1024
"""The largest body, as it goes over the wire: what a bad link may have to send again."""


class ChunkSize:
    """A chunk's size in samples: grows while all goes well, falls back when it does not.

    :param start: the size after start-up and after each failure.
    :param limit: the largest size.
    """

    def __init__(self, start: int, limit: int) -> None:
        self._start = min(start, limit)
        self._limit = limit
        self.samples = self._start

    def accepted(self) -> None:
        """The server took a chunk: the next may be twice as large."""
        self.samples = min(self.samples * 2, self._limit)

    def failed(self) -> None:
        """A chunk did not get through: begin small again."""
        self.samples = self._start


def cut(
    rows: Sequence[Row],
    samples: int,
    build: Callable[[Sequence[Row]], bytes],
    max_bytes: int = MAX_BODY_BYTES,
) -> tuple[Sequence[Row], bytes]:
    """Cut the first chunk off ``rows``.

    :param rows: at least one row.
    :param samples: the largest number of rows to take.
    :param build: gives a chunk's body as it goes over the wire. The bound is held against what it
        really is, not against an estimate.
    :return: the rows taken and their body; larger than ``max_bytes`` only where a single row is.
    """
    while True:
        chunk = rows[:samples]
        body = build(chunk)
        if len(body) <= max_bytes or len(chunk) == 1:
            return chunk, body
        samples = len(chunk) // 2
