"""Sends pending samples to the server.

Lines, chunks, policy and quarantine are pure functions and values; the other modules act. This
module declares what they need of a client, without HTTP.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # The pure modules of this package need no Twisted.
    from twisted.internet.defer import Deferred

    from belatwist.upload import policy


class ImportClient(Protocol):
    """Sends bodies to a server."""

    @property
    def endpoint(self) -> str:
        """The URL without its query, which may hold a secret."""
        ...

    def post(self, body: bytes) -> "Deferred[policy.SendResult]":
        """Send one body. It fails only when it is cancelled: any other failure is a result."""
        ...

    def close(self) -> "Deferred[None]":
        """Close the idle connections."""
        ...
