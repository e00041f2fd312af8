"""Signs of life of a thread that is at something long, and how it is made to interrupt that."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from twisted.internet.task import Clock

from belatwist.store.sql.interrupt import StepInterruptedError, StepMonitor
from tests.process import TIMEOUT

FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


class Worker:
    """A thread in a step, which runs one function after the other."""

    def __init__(self, monitor: StepMonitor) -> None:
        self._monitor = monitor
        self._wanted = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._works: list[Callable[[], object] | None] = []

    def __call__(self) -> None:
        with self._monitor.step():
            self._done.release()
            while True:
                self._wanted.acquire()
                work = self._works.pop()
                if work is None:
                    return
                work()
                self._done.release()

    def begun(self) -> None:
        """Wait until it is in the step."""
        assert self._done.acquire(timeout=TIMEOUT)

    def do(self, work: Callable[[], object] | None) -> None:
        """Have something done; ``None`` ends the step."""
        self._works.append(work)
        self._wanted.release()
        if work is not None:
            assert self._done.acquire(timeout=TIMEOUT)


@contextmanager
def running(target: Callable[[], object]) -> Iterator[threading.Thread]:
    """Run something in a thread, which must come to its end."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    yield thread
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def burn() -> None:
    """Use the processor for a moment."""
    until = time.thread_time() + 0.001
    while time.thread_time() < until:
        pass


def test_between_two_steps_there_is_nothing_to_tell() -> None:
    """Before a step and after it there is no sign of life, whether it failed or not."""
    monitor = StepMonitor(Clock().seconds)
    assert monitor.last_progress() is None
    with monitor.step():
        assert monitor.last_progress() == 0
    assert monitor.last_progress() is None
    with pytest.raises(ZeroDivisionError), monitor.step():
        _ = 1 / 0
    assert monitor.last_progress() is None


def test_a_thread_that_computes_gets_on_and_one_that_waits_does_not() -> None:
    """The last sign of life stays where it is while the thread is blocked."""
    clock = Clock()
    monitor = StepMonitor(clock.seconds)
    worker = Worker(monitor)
    with running(worker):
        worker.begun()
        worker.do(burn)
        clock.advance(10)
        assert monitor.last_progress() == 10
        monitor.last_progress()  # What it took to begin to wait.
        clock.advance(100)
        assert monitor.last_progress() == 10
        worker.do(burn)
        assert monitor.last_progress() == 110
        worker.do(None)
    assert monitor.last_progress() is None


def test_what_can_be_left_is_left() -> None:
    """A statement that would never end is interrupted from another thread, and says so."""
    monitor = StepMonitor(time.monotonic)
    begun = threading.Event()
    left: list[bool] = []

    def count() -> None:
        with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
            try:
                with monitor.step(connection.interrupt):
                    connection.create_function("begun", 0, begun.set)
                    connection.execute("SELECT begun()").fetchall()
                    connection.execute(FOR_EVER).fetchall()
            except StepInterruptedError:
                left.append(monitor.interrupted())
            # What comes after the step is not meant.
            monitor.interrupt()
            left.append(connection.execute("SELECT 1").fetchone() == (1,))

    with running(count):
        assert begun.wait(TIMEOUT)
        # Between two statements an interruption is forgotten: say it until it is heard.
        until = time.monotonic() + TIMEOUT
        while monitor.last_progress() is not None and time.monotonic() < until:
            monitor.interrupt()
    assert left == [False, True]


def test_as_a_progress_handler() -> None:
    """It ends a statement that came after the wish to interrupt; only within a step."""
    monitor = StepMonitor(time.monotonic)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_progress_handler(monitor.interrupted, 1000)
        connection.create_function("interrupt", 0, monitor.interrupt)
        with pytest.raises(StepInterruptedError), monitor.step(lambda: None):
            connection.execute(
                FOR_EVER.replace("SELECT 1 UNION", "SELECT interrupt() UNION")
            ).fetchall()
        numbers = FOR_EVER.replace("FROM n)", "FROM n LIMIT 5000)")
        assert connection.execute(numbers).fetchall() == [(5000,)]


def test_what_cannot_be_left_is_not() -> None:
    """A step that says nothing of how to interrupt it is begun and ended as ever."""
    monitor = StepMonitor(time.monotonic)
    monitor.interrupt()
    with monitor.step():
        assert not monitor.interrupted()
    with pytest.raises(StepInterruptedError), monitor.step(lambda: None):
        raise AssertionError("it must not be begun")


def test_another_failure_stays_what_it_is() -> None:
    """Only an interruption that was wished for says that the step was left."""
    monitor = StepMonitor(time.monotonic)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_progress_handler(lambda: True, 100)
        with (
            pytest.raises(sqlite3.OperationalError, match="interrupted"),
            monitor.step(lambda: None),
        ):
            connection.execute(FOR_EVER)
        with pytest.raises(sqlite3.OperationalError, match="syntax"), monitor.step(lambda: None):
            connection.execute("nonsense")
