"""Runs ``twistd`` as its command does; signals hang the database's thread and release it.

SIGUSR1 hangs the thread, as a card does that does not answer; SIGUSR2 lets it go on. A line of the
log says when it hangs. With ``BELA_HANG_FIRST`` it hangs before the database is opened. Everything
else is the real program.
"""

import os
import signal
import threading
from typing import Any

from twisted.scripts.twistd import run

from belatwist import agent
from belatwist.store.sqlite import SQLiteStore

HANGS = "the database's thread hangs"

stores: list[SQLiteStore] = []
released = threading.Event()


class Agent(agent.Agent):
    """Remembers the store."""

    def __init__(self, **parts: Any) -> None:
        stores.append(parts["store"])
        if "BELA_HANG_FIRST" in os.environ:
            hang(0, None)
        super().__init__(**parts)


def hang(_number: int, _frame: object) -> None:
    """Keep the thread busy until SIGUSR2."""
    (store,) = stores
    store.database._pool.threadpool.callInThread(wait)


def wait() -> None:
    """Wait in the thread, having said so."""
    os.write(1, f"{HANGS}\n".encode())
    released.wait()


def release(_number: int, _frame: object) -> None:
    """Let the thread go on."""
    released.set()


if __name__ == "__main__":
    agent.Agent = Agent  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, hang)
    signal.signal(signal.SIGUSR2, release)
    run()
