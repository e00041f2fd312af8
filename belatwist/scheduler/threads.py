"""Threads for reads that may hang: one that does is given up, one that comes back is used again."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Threads:
    """Runs functions off the reactor's thread, as many at a time as there are.

    A read of a dead sensor can hang for ever, and cannot be interrupted. The threads are daemons,
    so that the end of the process does not wait for it. One that is idle is kept: to wake it costs
    a fifth of what a new one does.
    """

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[Callable[[], None]]] = []

    def __call__(self, function: Callable[[], None]) -> None:
        """Run a function, which must not raise, on a thread that is idle, or a new one."""
        try:
            todo = self._idle.pop()
        except IndexError:
            todo = SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(todo,), name="collect", daemon=True)
            thread.start()
        todo.put(function)

    def _serve(self, todo: "SimpleQueue[Callable[[], None]]") -> None:
        while True:
            todo.get()()
            # From here on the next function may come.
            self._idle.append(todo)
