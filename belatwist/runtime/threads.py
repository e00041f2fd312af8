"""Threads for calls that may hang: a read of a dead sensor, the look-up of a name.

Nothing can interrupt such a call. A caller waits until a deadline and then abandons the thread; it
is a daemon, so that the process can end without it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE = 0.02
"""Seconds after which :meth:`Calls.ask_all` does not let the next functions wait for one."""


class Threads:
    """Runs functions off the reactor's thread, as many at a time as there are.

    Waking an idle thread costs a fifth of starting a new one, so idle threads are kept. A thread
    that hangs is used again as soon as its function returns.

    :param name: names the threads, for the dump of their stacks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[SimpleQueue[Callable[[], None]]] = []

    def __call__(self, function: Callable[[], None]) -> None:
        """Run a function, which must not raise, on an idle thread or a new one."""
        try:
            todo = self._idle.pop()
        except IndexError:
            todo = SimpleQueue()
            _start(self._name, partial(self._serve, todo))
        todo.put(function)

    def _serve(self, todo: "SimpleQueue[Callable[[], None]]") -> None:
        while True:
            todo.get()()
            # From here on the next function may come.
            self._idle.append(todo)


class Calls:
    """Calls that may hang, at most one at a time for each thing that is asked.

    :param name: names the threads, for the dump of their stacks.
    """

    def __init__(self, name: str) -> None:
        self._threads = Threads(name)
        self._running: set[str] = set()

    def ask_all(
        self, functions: Mapping[str, Callable[[], Result]], deadline: float
    ) -> dict[str, Result | Exception]:
        """Run functions one after the other on another thread, and wait for them.

        A function that takes longer than :data:`PATIENCE` keeps its thread, and the next ones run
        on a new one, so that one that hangs does not keep the others waiting.

        :param functions: by what they ask. While an earlier call for it hangs, no other is made.
        :param deadline: seconds that all of them have together. A later result is dropped.
        :return: the results or exceptions of the functions, by the same keys. A function that did
            not return in time has a ``TimeoutError``.
        """
        results: dict[str, Result | Exception] = {
            key: TimeoutError("an earlier call has not returned") for key in functions
        }
        todo = deque((k, call) for k, call in functions.items() if k not in self._running)
        done: deque[tuple[str, Result | Exception]] = deque()
        # One wake-up for all that a thread has done: each would cost more than a read does.
        wakeups: SimpleQueue[None] = SimpleQueue()
        waiting = {key for key, _ in todo}
        results.update((key, no_answer(deadline)) for key in waiting)

        def serve() -> None:
            # The last function may be taken by another thread meanwhile.
            with suppress(IndexError):
                while todo:
                    key, function = todo.popleft()
                    self._running.add(key)
                    try:
                        answer: Result | Exception = function()
                    except Exception as error:  # noqa: BLE001 - the caller gets it
                        answer = error
                    self._running.discard(key)
                    done.append((key, answer))
            wakeups.put(None)

        until = time.monotonic() + deadline
        starts = True
        while waiting and (left := until - time.monotonic()) > 0:
            if starts and todo:
                self._threads(serve)
            with suppress(Empty):
                wakeups.get(timeout=min(PATIENCE, left) if todo else left)
            starts = not done
            while done:
                key, results[key] = done.popleft()
                waiting.discard(key)
        todo.clear()
        return results


def run_all(functions: Sequence[Callable[[], Result]], deadline: float) -> list[Result | Exception]:
    """Run functions side by side and wait for them; for a caller without a reactor.

    :param deadline: seconds that all of them have together.
    :return: the results or exceptions of the functions, in their order. A function that did not
        return in time has a :func:`no_answer`, and its later result is dropped.
    """
    answers: SimpleQueue[tuple[int, Result | Exception]] = SimpleQueue()

    def run(number: int) -> None:
        try:
            answers.put((number, functions[number]()))
        except Exception as error:  # noqa: BLE001 - the caller gets it
            answers.put((number, error))

    until = time.monotonic() + deadline
    for number in range(len(functions)):
        _start("call", partial(run, number))
    results: list[Result | Exception] = [no_answer(deadline)] * len(functions)
    for _ in functions:
        try:
            number, answer = answers.get(timeout=max(until - time.monotonic(), 0))
        except Empty:
            break
        results[number] = answer
    return results


def no_answer(seconds: float) -> TimeoutError:
    """Make the error of a call that did not return in time."""
    return TimeoutError(f"no answer within {seconds:g} s")


def _start(name: str, function: Callable[[], None]) -> None:
    threading.Thread(target=function, name=name, daemon=True).start()
