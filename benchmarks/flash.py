"""Bytes written to flash: the real store and the real uploader, on simulated time.

Bytes do not depend on how fast time passes: a tick is one transaction, an upload's answer another,
and the write-ahead log is emptied by its size. The hourly checkpoint and the file system's own
commits depend on it, and add little: each tick's flush commits anyway.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater

from belatwist.clock.sources import wall_ms
from belatwist.upload.policy import Accepted, SendResult
from benchmarks import board
from benchmarks.harness import Plan, Row, UnavailableError, filesystem, in_worker, workspace
from benchmarks.harness import written_bytes as written_by
from benchmarks.stages import open_store, open_uploader

NAME = "flash"
UNIT = "bytes / sample"


def measure(plan: Plan) -> list[Row]:
    """Store and upload the board model at the pace of 10 s and of 1 s."""
    rows = []
    for interval in (10.0, 1.0):
        with workspace(plan) as where:
            note = f"80 a tick, uploads every {plan.upload_interval:g} s"
            at = f"{interval:g} s ticks"
            journal = f"written, journal included, {at}"
            try:
                with loop_device(where) as (mounted, device):
                    found = in_worker(
                        wear, None, str(mounted / "db"), plan.samples, interval,
                        plan.upload_interval, device,
                    )  # fmt: skip
                value = found["device"] / found["samples"]
                rows.append(Row(NAME, journal, value, UNIT, f"block device under ext4, {note}"))
                kind = "ext4"
            except UnavailableError as error:
                rows.append(Row(NAME, journal, None, UNIT, str(error)))
                kind = filesystem(where)
                found = in_worker(
                    wear, None, str(where / "db"), plan.samples, interval, plan.upload_interval, ""
                )
            written = None if kind == "tmpfs" else found["written"] / found["samples"]
            rows.append(Row(NAME, f"written by the process, {at}", written, UNIT, f"on {kind}"))
            size = found["file"] / found["samples"]
            rows.append(
                Row(NAME, f"file, {at}", size, UNIT, f"after {found['samples']:,.0f} samples")
            )
    return rows


@contextmanager
def loop_device(where: Path, *, mib: int = 512) -> Iterator[tuple[Path, str]]:
    """Mount a new ext4 on a loop device of its own, with ext4's defaults.

    :return: the directory, and the device's name (``loop0``).
    :raises UnavailableError: when this is not root, or there are no loop devices.
    """
    if os.geteuid():
        raise UnavailableError("needs root, for a file system of its own")
    image, mounted = where / "image", where / "mounted"
    mounted.mkdir()
    with image.open("wb") as made:
        made.truncate(mib << 20)
    _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    _run("mount", "-o", "loop", str(image), str(mounted))
    try:
        yield mounted, Path(_run("findmnt", "-no", "SOURCE", str(mounted)).strip()).name
    finally:
        _run("umount", str(mounted))


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise UnavailableError(f"{command[0]}: {said.strip()}") from error
    return done.stdout


def device_bytes(device: str) -> int:
    """Return the bytes written to a block device (Documentation/block/stat.rst), after a sync."""
    if not device:
        return 0
    os.sync()
    return int(Path(f"/sys/block/{device}/stat").read_text().split()[6]) * 512


class _AcceptingClient:
    """A client whose server accepts everything."""

    endpoint = "nowhere"

    def post(self, body: bytes) -> "Deferred[SendResult]":
        return succeed(Accepted(204))

    def close(self) -> "Deferred[None]":
        return succeed(None)


async def wear(
    reactor: Any, path: str, samples: int, interval: float, upload_interval: float, device: str
) -> dict[str, float]:
    """Store and upload on simulated time, and close the database at the end.

    :param samples: the least number of samples.
    :param interval: seconds between ticks.
    :param device: the block device to watch; empty for none.
    """
    clock = Clock()
    start_ms = wall_ms() - 30 * 24 * 3600 * 1000

    def now_ms() -> int:
        return start_ms + round(clock.seconds() * 1000)

    database = open_store(reactor, path)
    await database.open(str(uuid4()), now_ms())
    uploader = open_uploader(
        database, _AcceptingClient(), clock, interval=upload_interval, wall=now_ms
    )
    uploader.startService()
    ticks = board.ticks(start_ms, interval)
    await database.add(next(ticks))
    flash, written, stored = device_bytes(device), written_by(), 0
    while stored < samples:
        for tick in islice(ticks, round(upload_interval / interval)):
            stored += await database.add(tick)
            clock.advance(interval)
        while database.pending:
            await deferLater(reactor, 0)
    await uploader.stopService()
    await database.close(now_ms())
    return {
        "samples": stored,
        "device": device_bytes(device) - flash,
        "written": written_by() - written,
        "file": Path(path).stat().st_size,
    }
