"""The real service as a process of its own: ``twistd bela`` with a configuration made here."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import yaml

from belatwist.clock.sources import wall_ms
from benchmarks.board import METRICS
from benchmarks.harness import ROOT, FailedError, stop, wait_until
from benchmarks.server import free_port


class Agent:
    """A running service.

    :ivar pid: the id of the process.
    :ivar database: the path of the database.
    :ivar spawned: when it was started, on the monotonic clock.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", database: Path, log: Path) -> None:
        self.spawned = time.monotonic()
        self.pid = process.pid
        self.database = database
        self._process = process
        self._log = log

    def ask(self, sql: str, *parameters: int) -> int:
        """Return the number that a query on the database yields; 0 if it yields none.

        :raises FailedError: when the service has ended.
        """
        if self._process.poll() is not None:
            tail = self._log.read_text(errors="replace").strip()[-500:]
            raise FailedError(f"twistd bela ended with {self._process.returncode}: {tail}")
        if not self.ready():
            return 0
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            found = connection.execute(sql, parameters).fetchone()
        return int(found[0] or 0) if found else 0

    def ready(self) -> bool:
        """Return whether the tables exist, without opening the database.

        The schema's first commit is written to the file at once; before that the file has one page
        or none. An earlier reader would delay the start that it watches.
        """
        try:
            return self.database.stat().st_size > 4096
        except FileNotFoundError:
            return False

    def wait_for_a_tick(self) -> None:
        """Wait until something was collected in the last minute."""
        wait_until(
            lambda: self.stored(wall_ms() - 60_000, wall_ms()) > 0,
            seconds=20,
            what="the first tick",
        )

    def stored(self, since_ms: int, until_ms: int) -> int:
        """Return how many samples are stamped from one moment until before another."""
        return self.ask(
            "SELECT count(*) FROM samples WHERE timestamp_ms >= ? AND timestamp_ms < ?",
            since_ms,
            until_ms,
        )


def config(
    where: Path,
    *,
    interval: float,
    url: str | None,
    upload_interval: float,
    root: Path,
    device: str = "bench",
) -> Path:
    """Write a configuration: every host collector at one interval, the rest as shipped.

    :param where: a directory for the database and the log.
    :param url: where to upload; ``None`` switches uploads off.
    :param root: the directory with ``proc`` and ``sys``.
    """
    where.mkdir(parents=True, exist_ok=True)
    metrics = [
        {"name": one.name, "interval": f"{interval}s", "config": msgspec.to_builtins(one.config)}
        for one in METRICS
    ]
    remote = {"enabled": url is not None, "upload_interval": f"{upload_interval}s"}
    tree = {
        "device": {"id": device},
        "storage": {"path": str(where / "metrics.db")},
        "remote": remote | ({"url": url} if url else {}),
        "health": {"host": "127.0.0.1", "port": free_port()},
        "monitoring": {"clock_skew_url": url.replace("/api/v1/import", "/health")} if url else {},
        "paths": {"procfs": str(root / "proc"), "sysfs": str(root / "sys")},
        "metrics": metrics,
    }
    path = where / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@contextmanager
def agent(where: Path, configuration: Path, *, setup: str = "") -> Iterator[Agent]:
    """Run the service until the block ends.

    :param where: the directory that was given to :func:`config`.
    :param setup: Python that runs first, in its process.
    """
    log = where / "agent.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", f"{setup}from twisted.scripts.twistd import run; run()"),
                *("--nodaemon", "--pidfile=", "bela", "--config", str(configuration)),
            ],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Agent(process, where / "metrics.db", log)
        finally:
            stop(process)
