"""Threads for calls that may hang."""

import errno
import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from belatwist.runtime.threads import Calls, Threads, run_all

TIMEOUT = 20.0


def test_a_thread_is_used_again() -> None:
    """A thread that has done its work does the next; it is a daemon."""
    threads = Threads("test")
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
    """Other functions run on another thread meanwhile; when it returns it is there again."""
    threads = Threads("test")
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


def test_all_results_in_their_order() -> None:
    """The order of returning does not matter; an exception is a result as well."""
    first, second = threading.Event(), threading.Event()

    def late() -> str:
        assert second.wait(TIMEOUT)
        return "late"

    def broken() -> str:
        first.set()
        raise ValueError("broken")

    def last() -> str:
        assert first.wait(TIMEOUT)
        second.set()
        return "last"

    found = run_all([late, broken, last], TIMEOUT)
    assert [str(one) for one in found] == ["late", "broken", "last"]
    assert isinstance(found[1], ValueError)
    assert run_all([], TIMEOUT) == []


def test_a_call_that_hangs_is_abandoned() -> None:
    """The others' results are there; its thread is a daemon, and what it returns is dropped."""
    used: SimpleQueue[threading.Thread] = SimpleQueue()
    let_go = threading.Event()

    def hang() -> str:
        used.put(threading.current_thread())
        let_go.wait()
        return "stale"

    stuck, well = run_all([hang, lambda: "well"], 1.0)
    assert isinstance(stuck, TimeoutError)
    assert (str(stuck), well) == ("no answer within 1 s", "well")
    thread = used.get(timeout=TIMEOUT)
    assert thread.daemon
    let_go.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert isinstance(stuck, TimeoutError)


def ask(calls: Calls, key: str, function: Callable[[], int], deadline: float) -> int:
    """Make a single call; raise its exception."""
    answer = calls.ask_all({key: function}, deadline)[key]
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_a_call_that_hangs_is_not_made_again() -> None:
    """The next one fails at once, without a thread; the others are made."""
    calls = Calls("test")
    release = threading.Event()
    made = []

    def hang() -> int:
        made.append(1)
        release.wait()
        return 1

    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        ask(calls, "a", hang, 0.01)
    with pytest.raises(TimeoutError, match="an earlier call has not returned"):
        ask(calls, "a", hang, 60.0)
    assert ask(calls, "b", lambda: 2, 60.0) == 2
    assert len(made) == 1
    release.set()


def test_the_errors_of_a_call_are_the_callers() -> None:
    """And the next call for the same thing is made."""
    calls = Calls("test")

    def fail() -> int:
        raise OSError(errno.EIO, "dead")

    with pytest.raises(OSError, match="dead"):
        ask(calls, "a", fail, 60.0)
    assert ask(calls, "a", lambda: 3, 60.0) == 3


def test_one_that_hangs_does_not_keep_the_others_waiting() -> None:
    """The others have their results or exceptions; while it hangs it is not asked again."""
    calls, let_go = Calls("test"), threading.Event()
    asked: SimpleQueue[str] = SimpleQueue()

    def hang() -> str:
        asked.put("hang")
        let_go.wait()
        return "late"

    def broken() -> str:
        raise ValueError("broken")

    for reason in ("no answer within 0.3 s", "an earlier call has not returned"):
        answers = calls.ask_all(
            {"a": lambda: "first", "hangs": hang, "b": broken, "c": lambda: "last"}, 0.3
        )
        assert list(answers) == ["a", "hangs", "b", "c"]
        assert (answers["a"], answers["c"]) == ("first", "last")
        assert str(answers["b"]) == "broken"
        assert str(answers["hangs"]) == reason
    assert asked.get() == "hang"
    assert asked.empty()
    let_go.set()
    while calls._running:
        pass
    assert calls.ask_all({"hangs": lambda: "again"}, TIMEOUT) == {"hangs": "again"}


def test_nothing_to_ask() -> None:
    """No thread is needed."""
    assert Calls("test").ask_all({}, TIMEOUT) == {}
