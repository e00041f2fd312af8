"""Decides how many samples go into one request."""

from collections.abc import Callable, Sequence

from belatwist.store import Row

MAX_BODY_BYTES = 256 * 1024
"""The largest body on the wire. A bad link has to send it again as a whole."""


class ChunkSize:
    """A chunk's size in samples. It grows with each accepted chunk, and falls back on a failure.

    :param start: the size after start-up and after each failure.
    :param limit: the largest size.
    """

    def __init__(self, start: int, limit: int) -> None:
        self._start = min(start, limit)
        self._limit = limit
        self.samples = self._start

    def accepted(self) -> None:
        """Double the size, because the server has accepted a chunk."""
        self.samples = min(self.samples * 2, self._limit)

    def failed(self) -> None:
        """Begin small again, because a chunk did not get through."""
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
    :param build: returns a chunk's body as it goes over the wire. Its real size is compared with
        the bound, not an estimate.
    :return: the rows of the chunk, and their body. Only the body of a single row may be larger than
        ``max_bytes``.
    """
    while True:
        chunk = rows[:samples]
        body = build(chunk)
        if len(body) <= max_bytes or len(chunk) == 1:
            return chunk, body
        samples = len(chunk) // 2
