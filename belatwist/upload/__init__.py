"""From pending samples to the server: names, lines, chunks and policy are pure; the rest acts.

This module names what the other parts need of a client, without HTTP.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # The pure modules of this package need no Twisted.
    from twisted.internet.defer import Deferred

    from belatwist.upload import policy


class ImportClient(Protocol):
    """Sends bodies to a server."""

    @property
    def endpoint(self) -> str:
        """Where they go, fit for a log: without the query, which may hold a secret."""
        ...

    def post(self, body: bytes) -> "Deferred[policy.SendResult]":
        """Send one body. Never fails but by being cancelled: every mishap is an outcome."""
        ...

    def close(self) -> "Deferred[None]":
        """Close the connections that are kept."""
        ...
