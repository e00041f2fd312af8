"""Runs ``twistd`` as its command does; SIGUSR1 then hangs the database's thread, for tests.

``BELA_HANG`` says for how many seconds; with ``BELA_HANG_FIRST`` it hangs from the beginning.
Everything else is the real program.
"""

import os
import signal
import time
from typing import Any

from twisted.scripts.twistd import run

from belatwist import agent
from belatwist.store.sqlite import SQLiteStore

stores: list[SQLiteStore] = []


class Agent(agent.Agent):
    """Remembers the store."""

    def __init__(self, **parts: Any) -> None:
        stores.append(parts["store"])
        if "BELA_HANG_FIRST" in os.environ:
            hang(0, None)
        super().__init__(**parts)


def hang(_number: int, _frame: object) -> None:
    """Keep the thread busy, as a card that does not answer does."""
    (store,) = stores
    store._pool.threadpool.callInThread(time.sleep, float(os.environ["BELA_HANG"]))


if __name__ == "__main__":
    agent.Agent = Agent  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, hang)
    run()
