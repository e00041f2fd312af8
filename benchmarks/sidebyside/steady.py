"""The cost of each tool while nothing fails."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.board import Board
from benchmarks.harness import FailedError, Memory, filesystem
from benchmarks.server import Victoria
from benchmarks.sidebyside.gate import gate
from benchmarks.sidebyside.landed import landed
from benchmarks.sidebyside.tools import Case, Way, running


@dataclass(frozen=True, slots=True)
class Finding:
    """The figures of one tool in its window.

    :ivar window: its length in seconds.
    :ivar samples: samples that landed at the server meanwhile.
    :ivar series: series that the tool has sent by then.
    :ivar cpu: CPU seconds of all its processes.
    :ivar wire: bytes of both directions.
    :ivar written: bytes that all its processes wrote to storage; ``None`` on tmpfs, where no byte
        counts.
    :ivar memory: memory of all its processes at the end.
    """

    case: Case
    window: float
    samples: int
    series: int
    cpu: float
    wire: int
    written: int | None
    memory: Memory


class Watcher:
    """Measures one group of tools; :meth:`end` ends the measurement early.

    :param where: the directory for the data of the tools.
    :param board: the directory with the board model.
    :param number: the number of the group, unique.
    """

    def __init__(self, where: Path, server: Victoria, board: Path, number: int) -> None:
        self.where = where
        self.server = server
        self.board = board
        self._ended = threading.Event()
        self._devices = itertools.count(1000 + 10 * number)
        self._lock = threading.Lock()

    def device(self) -> str:
        """Return a label that no other measurement has; all have the same length."""
        with self._lock:
            return f"sbs-{next(self._devices)}"

    def end(self) -> None:
        """End all waits with an error."""
        self._ended.set()

    def pause(self, seconds: float) -> None:
        """Wait.

        :raises FailedError: after :meth:`end`.
        """
        if self._ended.wait(max(seconds, 0.0)):
            raise FailedError("given up")

    def until(
        self, true: Callable[[], bool], *, seconds: float, what: str, step: float = 0.05
    ) -> None:
        """Poll until a condition holds.

        :raises FailedError: when it does not hold in time, or after :meth:`end`.
        """
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise FailedError(f"{what} did not come about within {seconds:g} s")
            self.pause(step)

    def watch(self, case: Case, *, flush: float, window: float) -> Finding:
        """Run a tool until its first upload has landed, and count over a window after that.

        :param flush: seconds between uploads.
        :param window: seconds; a multiple of ``flush``, so that it has that many whole uploads.
        """
        device = self.device()
        where = self.where / device
        with (
            gate(self.server.port) as way,
            running(case, where, Way(way.port, device, flush), self.board) as tool,
        ):

            def first() -> bool:
                # Of more than one tick: then what a tool tells of its start has landed as well.
                tool.check()
                return way.began is not None and landed(self.server, device).series > 0

            self.until(first, seconds=2 * flush + 30, what=f"{case.tool}'s first upload", step=0.5)
            # So that no upload is near either end.
            self.pause(min(3.0, flush / 4))
            begun, cpu, wire, written = time.monotonic(), tool.cpu(), way.bytes, tool.written()
            before = landed(self.server, device).samples
            self.pause(begun + window - time.monotonic())
            took = time.monotonic() - begun
            cpu, wire, written = tool.cpu() - cpu, way.bytes - wire, tool.written() - written
            memory = tool.memory()
            tool.check()
            now = landed(self.server, device)
        if now.samples == before:
            raise FailedError(f"nothing of {case.tool} landed in {window:g} s")
        return Finding(
            case=case,
            window=took,
            samples=now.samples - before,
            series=now.series,
            cpu=cpu,
            wire=wire,
            written=None if filesystem(where) == "tmpfs" else written,
            memory=memory,
        )

    def watch_all(self, cases: Sequence[Case], *, flush: float, window: float) -> list[Finding]:
        """Watch tools at the same time, so that whatever disturbs one disturbs the others."""
        with ThreadPoolExecutor(len(cases)) as pool:
            asked = []
            try:
                for case in cases:
                    asked.append(pool.submit(self.watch, case, flush=flush, window=window))
                    self.pause(0.37)  # Ticks of one tool do not fall on those of another.
                return [one.result() for one in asked]
            except BaseException:
                self.end()
                raise


@contextmanager
def board_model(where: Path, *, period: float, step: float) -> Iterator[Path]:
    """Keep the board model changing in files that a node_exporter reads as well.

    :param where: a directory for it, which is made.
    :param period: seconds between two changes.
    :param step: seconds of the board's time in each change.
    """
    board = Board()
    board.write(where, everything=True)
    for zone in (where / "sys/class/thermal").iterdir():
        # A node_exporter wants it, we do not (Documentation/driver-api/thermal/sysfs-api.rst).
        (zone / "policy").write_text("step_wise\n")
    ended = threading.Event()

    def move() -> None:
        while not ended.wait(period):
            board.advance(step)
            board.write(where, everything=False)

    thread = threading.Thread(target=move, name="board")
    thread.start()
    try:
        yield where
    finally:
        ended.set()
        thread.join()
