"""Threads for reads that may hang."""

import threading
from queue import SimpleQueue

from belatwist.scheduler.threads import Threads

TIMEOUT = 20.0


def test_a_thread_is_used_again() -> None:
    """One that has done its work does the next; it is a daemon."""
    threads = Threads()
    used: SimpleQueue[threading.Thread] = SimpleQueue()
    for _ in range(3):
        threads(lambda: used.put(threading.current_thread()))
        one = used.get(timeout=TIMEOUT)
        # It is idle a moment after the function has ended.
        while not threads._idle:
            pass
        assert one.daemon
        assert one.is_alive()
    threads(lambda: used.put(threading.current_thread()))
    assert used.get(timeout=TIMEOUT) is one


def test_a_thread_that_hangs_is_left_alone() -> None:
    """What comes meanwhile runs on another; when it returns it is there again."""
    threads = Threads()
    used: SimpleQueue[threading.Thread] = SimpleQueue()
    hangs, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        let_go.wait()
        used.put(threading.current_thread())

    threads(hang)
    assert hangs.wait(TIMEOUT)
    threads(lambda: used.put(threading.current_thread()))
    other = used.get(timeout=TIMEOUT)
    let_go.set()
    assert used.get(timeout=TIMEOUT) is not other
