"""The reactor, for the few commands whose work may need it; they load it when it does."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from belatwist.runtime.threads import no_answer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

STOP_TIMEOUT = 1.0
"""Seconds to wait for the reactor's end. The process can end without it."""


def load_reactor() -> Any:
    """Return the reactor, whose time is the monotonic clock."""
    from twisted.internet import reactor

    loaded: Any = reactor
    loaded.seconds = time.monotonic
    return loaded


class ReactorThread:
    """Runs the reactor on a thread of its own within a ``with`` block.

    The command keeps the main thread, and with it Ctrl-C and its own deadlines. The reactor cannot
    be started again in the same process.

    :param deadline: seconds after which a call is cancelled.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._reactor = load_reactor()
        self._pending: set[Deferred[Any]] = set()
        # A daemon, like the threads that the reactor starts: the look-up of a name may hang.
        self._thread = threading.Thread(
            target=self._reactor.run,
            kwargs={"installSignalHandlers": False},
            name="reactor",
            daemon=True,
        )

    def __enter__(self) -> "ReactorThread":
        """Start the reactor."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel what is not done, and stop the reactor."""
        self._reactor.callFromThread(self._stop)
        self._thread.join(STOP_TIMEOUT)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function on the reactor's thread; the caller's thread waits.

        :param function: returns a result, a Deferred or a coroutine.
        :return: the result.
        :raises TimeoutError: when there is none at the deadline.
        """
        from twisted.internet.threads import blockingCallFromThread

        return blockingCallFromThread(self._reactor, self._begin, function)

    def _begin(self, function: Callable[[], Any]) -> "Deferred[Any]":
        from twisted.internet.defer import maybeDeferred

        pending = maybeDeferred(function)
        self._pending.add(pending)

        def timed_out(_result: object, seconds: float) -> NoReturn:
            raise no_answer(seconds)

        def ended(result: Any) -> Any:
            self._pending.discard(pending)
            return result

        return pending.addTimeout(self._deadline, self._reactor, timed_out).addBoth(ended)

    def _stop(self) -> None:
        for pending in list(self._pending):
            pending.cancel()
        self._reactor.stop()
