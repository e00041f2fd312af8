"""A full disk and a damaged database, under the real program."""

import json
import os
import random
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from belatwist.model import Series, sample
from belatwist.store.sql.schema import PAGE_SIZE
from tests.fakes import inline_store
from tests.process import TIMEOUT, Twistd, free_port, write_config
from tests.store.stores import query

pytestmark = pytest.mark.process

PAGE = PAGE_SIZE
COLLECTORS = [
    {"name": name, "interval": "200ms"}
    for name in ("cpu.usage", "memory.usage", "network.traffic", "system.load", "system.uptime")
]
REMOTE = {"enabled": True, "upload_interval": "500ms", "retry": {"enabled": False}}
OLD = [Series.of("old.value", "test-device", {"n": str(n)}, priority=n % 4) for n in range(50)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    if os.geteuid() != 0:
        if os.environ.get("BELA_REQUIRE_ROOT_TESTS") == "1":
            pytest.fail("BELA_REQUIRE_ROOT_TESTS is set, and this is not root")
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (PAGE, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def config(folder: Path, disk: Path) -> tuple[Path, str]:
    """Write a configuration for a service with its database on a disk; and the receiver's URL."""
    url = f"http://127.0.0.1:{free_port()}"
    path = write_config(
        folder,
        storage={"path": str(disk / "metrics.db")},
        remote={**REMOTE, "url": f"{url}/api/v1/import"},
        metrics=COLLECTORS,
        monitoring={"clock_hold": "100ms"},
    )
    return path, url


def received(url: str) -> tuple[int, int]:
    """Ask a receiver how many samples it has, and how many of them came twice."""
    with urllib.request.urlopen(f"{url}/api/v1/series", timeout=TIMEOUT) as answer:
        series = json.load(answer)
    with urllib.request.urlopen(f"{url}/health", timeout=TIMEOUT) as answer:
        return json.load(answer)["samples"], sum(one["duplicates"] for one in series)


def collected(service: Twistd) -> int:
    """Count the samples that were collected, as the log has it to its end."""
    events = [json.loads(line) for line in service.log.rest() if line.startswith("{")]
    assert "buffer.samples_lost" not in {e.get("event") for e in events}
    return sum(e["count"] for e in events if e.get("event") == "scheduler.tick_stored")


def rows(database: Path) -> list[tuple[Any, ...]]:
    """Read every sample and its state."""
    return query(database, "SELECT timestamp_ms, metric_name, tags, uploaded FROM metrics")


def until_delivered(service: Twistd) -> None:
    """Wait until a cycle leaves nothing pending but what was collected meanwhile."""
    while service.expect_event("upload.completed")["pending"] > 100:
        pass


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """While the disk is full samples wait, and nothing is sent twice; then everything is there."""
    path, url = config(tmp_path, small_disk)
    with Twistd("bela", "--config", str(path), "--with-receiver", cwd=tmp_path) as service:
        service.expect_event("upload.completed")
        ballast = fill(small_disk)
        first = service.expect_event("buffer.write_failed")
        while service.expect_event("buffer.write_failed")["waiting"] < 8 * first["waiting"]:
            pass
        during, _ = received(url)
        service.expect_event("buffer.write_failed")
        assert received(url)[0] == during
        ballast.unlink()
        again = service.expect_event("buffer.recovered")
        service.expect_event("upload.completed")
        service.expect_event("upload.completed")
        count, twice = received(url)
        assert service.stop() == 0
        total = collected(service)
    database = small_disk / "metrics.db"
    found = rows(database)
    assert first["level"] == "ERROR"
    assert "full" in first["error"]
    assert (again["level"], again["dropped"]) == ("INFO", 0)
    assert again["waited"] >= 8 * first["waiting"]
    assert len(found) == total
    assert (twice, sum(row[3] for row in found) >= count) == (0, True)
    assert query(database, "PRAGMA integrity_check") == [("ok",)]


def test_stopping_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """It ends in time and in order, and says how many samples are lost; the file stays whole."""
    path, _ = config(tmp_path, small_disk)
    with Twistd("bela", "--config", str(path), cwd=tmp_path) as service:
        service.expect_event("scheduler.tick_stored")
        ballast = fill(small_disk)
        service.expect_event("buffer.write_failed")
        assert service.stop() == 0
        events = [json.loads(line) for line in service.log.rest() if line.startswith("{")]
    (lost,) = [e for e in events if e.get("event") == "buffer.samples_lost"]
    assert lost["count"] > 0
    ballast.unlink()
    database = small_disk / "metrics.db"
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert query(database, "SELECT count(*) FROM metrics")[0][0] > 0


def make_database(path: Path) -> set[tuple[int, str, str]]:
    """Make a database with 5,000 pending samples; returns them."""
    store = inline_store(path)
    begin = int(time.time() * 1000) - 3_600_000
    Deferred.fromCoroutine(store.open("before", begin))
    for at in range(100):
        store.add([sample(s, begin + at * 1000, at + n / 7) for n, s in enumerate(OLD)])
    Deferred.fromCoroutine(store.close(begin + 100_000))
    return {row[:3] for row in rows(path)}


def leaves(path: Path) -> list[int]:
    """Return the pages of the samples' tree, in their order, but for its root."""
    return [
        row[0]
        for row in query(
            path,
            "SELECT pageno FROM dbstat WHERE name = 'samples' AND pagetype = 'leaf' ORDER BY path",
        )
    ]


def overwrite(path: Path, pages: list[int]) -> None:
    """Write garbage over pages of a database."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(random.Random(page).randbytes(PAGE))


def damage_leaves(path: Path) -> None:
    """Overwrite two of the samples' pages."""
    middle = leaves(path)
    overwrite(path, [middle[len(middle) // 3], middle[len(middle) // 2]])


def damage_header(path: Path) -> None:
    """Overwrite what says that it is a database."""
    with path.open("r+b") as file:
        file.write(b"\xa5" * 100)


def cut(path: Path) -> None:
    """Keep two thirds of the file."""
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize(
    ("damage", "least"), [(damage_leaves, 4600), (damage_header, 5000), (cut, 1000)]
)
def test_damaged_while_stopped(damage: Any, least: int, tmp_path: Path) -> None:
    """The damaged database is kept aside; what can be read of it is delivered, and only that."""
    database = tmp_path / "metrics.db"
    before = make_database(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE sessions SET status = 'active'")
    damage(database)
    size = database.stat().st_size
    path, url = config(tmp_path, tmp_path)
    with Twistd("bela", "--config", str(path), "--with-receiver", cwd=tmp_path) as service:
        begun = service.expect_event("database.replaced")
        until_delivered(service)
        count, twice = received(url)
        assert service.stop() == 0
    assert begun["level"] == "WARN"
    assert Path(begun["backup_path"]).stat().st_size == size
    found = rows(database)
    old = {row[:3] for row in found if row[1] == "old.value"}
    assert old <= before
    assert len(old) == begun["recovered"] >= least
    assert {row[3] for row in found if row[1] == "old.value"} == {1}
    assert (twice, count >= len(old)) == (0, True)
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert query(database, "SELECT status FROM sessions ORDER BY number") == [
        ("failed",),
        ("completed",),
    ]


def test_damaged_while_running(tmp_path: Path) -> None:
    """Collection goes on, in the same session; what can be read is delivered."""
    database = tmp_path / "metrics.db"
    before = make_database(database)
    path, url = config(tmp_path, tmp_path)
    with Twistd("bela", "--config", str(path), cwd=tmp_path) as service:
        service.expect_event("upload.failed")
        with closing(sqlite3.connect(database)) as connection:
            middle = leaves(database)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            overwrite(database, [middle[len(middle) // 3], middle[len(middle) // 2]])
            with connection:  # So that the service reads its pages again.
                connection.execute("UPDATE schema_version SET applied_at = 'later'")
        begun = service.expect_event("database.replaced")
        port = url.rpartition(":")[2]
        with Twistd("bela-receiver", "--port", port, cwd=tmp_path) as receiver:
            receiver.expect("(receiver)")
            until_delivered(service)
            count, twice = received(url)
            assert service.stop() == 0
            assert receiver.stop() == 0
        total = collected(service)
    found = rows(database)
    old = {row[:3] for row in found if row[1] == "old.value"}
    aside = Path(begun["backup_path"])
    assert old <= before
    assert len(old) >= 4600
    assert (twice, count >= len(old)) == (0, True)
    # A row or two of ours may have stood next to damage; all others are there.
    assert len(found) - len(old) >= total - 40
    assert aside.exists()
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert query(database, "SELECT status FROM sessions ORDER BY number")[-1] == ("completed",)
    assert query(database, "SELECT count(*) FROM sessions") == [(2,)]
