"""Shared by all measurements: rows, the kernel's counters of a process, and worker processes."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, NoReturn, ParamSpec

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

P = ParamSpec("P")


class UnavailableError(Exception):
    """A measurement is impossible here, because something that it needs is missing."""


class FailedError(Exception):
    """A measurement was possible here and failed."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    :ivar question: the module that answers it.
    :ivar what: the quantity.
    :ivar value: the figure; ``None`` when it could not be measured, and then ``note`` says why.
    :ivar note: how, or on what, it was measured.
    """

    question: str
    what: str
    value: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    :ivar seconds: how long whole processes are watched; rounded up to a multiple of
        ``upload_interval``, so that uploads have their share of the long run.
    :ivar upload_interval: seconds between uploads of the processes watched.
    :ivar ticks: collections of the stages that are measured alone.
    :ivar samples: how many are stored for the figures of flash and memory.
    :ivar backlog: how many are pending when the drain begins.
    :ivar starts: how often the start-up is timed.
    :ivar directory: where databases are made. On tmpfs no byte counts as written.
    """

    seconds: float = 60.0
    upload_interval: float = 30.0
    ticks: int = 500
    samples: int = 100_000
    backlog: int = 500_000
    starts: int = 7
    directory: Path | None = None

    @property
    def window(self) -> float:
        """``seconds``, rounded up to a multiple of the upload interval."""
        return math.ceil(self.seconds / self.upload_interval) * self.upload_interval


QUICK = Plan(
    seconds=10.0, upload_interval=10.0, ticks=100, samples=10_000, backlog=50_000, starts=3
)


@contextmanager
def workspace(plan: Plan) -> Iterator[Path]:
    """Make a new directory, and remove it afterwards."""
    where = Path(mkdtemp(prefix="bela-bench-", dir=plan.directory))
    try:
        yield where
    finally:
        rmtree(where, ignore_errors=True)


def cpu_seconds(pid: int) -> float:
    """Return the user and system CPU time of all threads of a process, also of ended ones.

    This is the process' CPU clock, whose id is made of the pid (clock_getcpuclockid(3)). It has
    utime + stime of ``/proc/PID/stat`` in nanoseconds instead of hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB.

    :ivar pss: shared pages divided among the processes that share them.
    :ivar rss: shared pages counted whole.
    """

    pss: float
    rss: float


def memory(pid: int | str = "self") -> Memory:
    """Read a process' memory (``/proc/PID/smaps_rollup``, Documentation/filesystems/proc.rst)."""
    kib = {
        key: int(rest.split()[0])
        for key, _, rest in (
            line.partition(":")
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        )
    }
    return Memory(kib["Pss"] / 1024, kib["Rss"] / 1024)


def written_bytes(pid: int | str = "self") -> int:
    """Return the bytes that a process caused to be written to storage, in whole pages."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        key, _, amount = line.partition(": ")
        if key == "write_bytes":
            return int(amount)
    raise FailedError(f"/proc/{pid}/io has no write_bytes")


def filesystem(path: Path) -> str:
    """Return the type of the file system that a path is on (``ext4``, ``tmpfs``)."""
    found = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        inside = path.resolve().is_relative_to(where)
        if inside and len(where) >= len(found[0]):
            found = (where, kind)
    return found[1]


def wait_until(true: Callable[[], bool], *, seconds: float, what: str, step: float = 0.05) -> None:
    """Poll until a condition holds.

    :param what: names the condition in the error.
    :raises FailedError: when the condition does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise FailedError(f"{what} did not come about within {seconds:g} s")
        time.sleep(step)


def stop(process: "subprocess.Popen[bytes]", *, seconds: float = 10.0) -> None:
    """End a process that was started here: with SIGTERM, and if necessary with SIGKILL."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def in_worker(
    function: Callable[P, Coroutine[Any, Any, dict[str, float]]], *args: P.args, **kwargs: P.kwargs
) -> dict[str, float]:
    """Run a coroutine function in a new process, on its reactor.

    The memory, caches and CPU time of a new process are all its own.

    :param function: a module's function; its first argument, here ``None``, becomes the reactor.
    :return: the function's result.
    :raises FailedError: when the function fails.
    """
    name = f"{function.__module__}:{function.__name__}"
    command = [sys.executable, "-m", "benchmarks.worker", name, json.dumps([args[1:], kwargs])]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, check=False, timeout=300, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{name} took longer than 300 s") from error
    if done.returncode:
        raise FailedError(f"{name} failed with status {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_program(main: Callable[[list[str]], int]) -> NoReturn:
    """Run a program with its command line, and exit with its status.

    SIGTERM and Ctrl-C unwind it, so that it ends its processes and removes its directories.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
