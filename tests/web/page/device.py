"""A device to look at: the real service on a board's files that move, with a past of its own."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from belatwist.model import Series
from belatwist.store.sql import queries
from benchmarks.board import Board, ticks
from tests.process import Twistd, free_port, write_config
from tests.store.databases import fresh

INTERVAL = 10.0
"""Seconds between the samples of its past."""

COLLECTORS = (
    "cpu.usage",
    "cpu.temperature",
    "memory.usage",
    "disk.io",
    "network.traffic",
    "system.load",
    "system.uptime",
)


def remember(path: Path, seconds: float) -> Board:
    """Make a database in which the board's last minutes or hours are, all of it uploaded.

    :return: the board as it is now.
    """
    count = round(seconds / INTERVAL)
    begin_ms = round((time.time() - count * INTERVAL) * 1000)
    known: dict[Series, int] = {}
    with closing(fresh(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=wal").fetchall()
        connection.execute(
            "INSERT INTO upload_checkpoints (id, batch_id, chunk_index, upload_time)"
            " VALUES (1, 'past', 0, ?)",
            (begin_ms + round(seconds * 1000),),
        )
        for tick in islice(ticks(begin_ms, INTERVAL), count):
            mine = [one._replace(series=_of(one.series)) for one in tick]
            known |= queries.insert(connection.cursor(), mine, known, 1)[1]
        connection.execute("UPDATE samples SET checkpoint_id = 1")
        connection.execute("UPDATE sessions SET status = 'completed', end_time = start_time")
    # The same steps lead to the same place.
    board = Board()
    for _ in range(count):
        board.advance(INTERVAL)
    board.advance(time.time() - begin_ms / 1000 - (count - 1) * INTERVAL)
    return board


def _of(series: Series) -> Series:
    return Series.of(series.name, "belabox-001", dict(series.tags))


@dataclass
class Device:
    """A running service, and the receiver that it uploads to.

    :ivar url: where its page is.
    """

    folder: Path
    url: str
    receiver_port: int
    service: Twistd | None = None
    receiver: Twistd | None = None

    def start(self) -> None:
        """Start the service, and wait until it answers."""
        self.service = Twistd("bela", "--config", str(self.folder / "config.yaml"), cwd=self.folder)
        self.service.expect_event("listener.opened")
        self.service.expect_event("agent.started")

    def stop(self) -> None:
        """End the service."""
        if self.service is not None:
            self.service.__exit__(None, None, None)
            self.service = None

    def receive(self) -> None:
        """Start the receiver."""
        options = ("--host", "127.0.0.1", "--port", str(self.receiver_port))
        self.receiver = Twistd("bela-receiver", *options, cwd=self.folder)
        self.receiver.expect("(receiver)")

    def receive_no_more(self) -> None:
        """End the receiver."""
        if self.receiver is not None:
            self.receiver.__exit__(None, None, None)
            self.receiver = None


@contextmanager
def running(
    folder: Path,
    *,
    past: float,
    collectors: Sequence[str] = COLLECTORS,
    health: Any = None,
    **remote: Any,
) -> Iterator[Device]:
    """Run a device with its receiver; it collects each second.

    :param past: for how many seconds it has samples already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    board = remember(folder / "metrics.db", past)
    port, receiver_port = free_port(), free_port()
    write_config(
        folder,
        device={"id": "belabox-001"},
        health={"enabled": True, "host": "127.0.0.1", "port": port, **(health or {})},
        remote={
            "enabled": True,
            "url": f"http://127.0.0.1:{receiver_port}/api/v1/import",
            **remote,
        },
        monitoring={"self_metrics_interval": "2s", "clock_skew_check_interval": "1s"},
        paths={"procfs": str(folder / "board/proc"), "sysfs": str(folder / "board/sys")},
        metrics=[{"name": name, "interval": "1s"} for name in collectors],
    )
    device = Device(folder, f"http://127.0.0.1:{port}/", receiver_port)
    with board.moving(folder / "board", period=0.5):
        try:
            device.receive()
            device.start()
            yield device
        finally:
            device.stop()
            device.receive_no_more()
