"""The benchmarks run and give figures that can be true; how good they are is not tested."""

import json
import os
import socket
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import (
    board,
    churn,
    flash,
    floor,
    harness,
    memory,
    migration,
    report,
    retention,
    server,
    stages,
    ticks,
)
from benchmarks.harness import Plan, Row, in_worker
from tests.store.migration import legacy_databases

NOW_MS = 1_767_225_600_000


def test_board_yields_every_host_metric_at_each_tick() -> None:
    """Each tick of the model has the board's 80 samples, stamped at its own time."""
    for number, tick in enumerate(islice(board.ticks(NOW_MS, 10.0), 3)):
        assert len(tick) == 80
        assert {one.timestamp_ms for one in tick} == {NOW_MS + number * 10_000}


def test_board_counters_rise() -> None:
    """No counter of the model goes backwards, and the traffic of a busy modem does move."""
    before, after = (
        {one.series: one.value for one in tick} for tick in islice(board.ticks(NOW_MS, 1.0), 2)
    )
    counters = [series for series in before if series.name.endswith("_total")]
    assert all(float(after[one]) >= float(before[one]) for one in counters)
    busy = next(s for s in counters if s.name.endswith("tx_bytes_total") and "usb0" in s.tags_json)
    assert float(after[busy]) > float(before[busy])


def test_board_files_move(tmp_path: Path) -> None:
    """What the service reads of the model differs from one moment to the next."""
    model = board.Board()
    model.write(tmp_path, everything=True)
    first = (tmp_path / "proc/stat").read_bytes()
    model.advance(1.0)
    model.write(tmp_path, everything=False)
    assert (tmp_path / "proc/stat").read_bytes() != first
    assert not list(tmp_path.rglob("*.new"))


def test_proxy_counts_both_directions() -> None:
    """What goes through the proxy arrives unchanged, and every byte of it is counted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                assert connection.recv(100) == b"question"
                connection.sendall(b"answers")

        thread = threading.Thread(target=answer)
        thread.start()
        with (
            server.proxy(server.Victoria(port)) as wire,
            socket.create_connection(("127.0.0.1", wire.port), timeout=10) as client,
        ):
            client.sendall(b"question")
            received = b""
            while piece := client.recv(100):
                received += piece
            assert received == b"answers"
            assert wire.bytes == len(b"question") + len(b"answers")
        thread.join()


def test_process_counters_are_read() -> None:
    """CPU time, memory and written bytes of a process are those that the kernel keeps of it."""
    own = harness.cpu_seconds(os.getpid())
    assert 0 < own <= harness.cpu_seconds(os.getpid())
    found = harness.memory()
    assert 1 < found.pss <= found.rss < 4096
    assert harness.written_bytes() >= 0
    assert harness.filesystem(Path("/proc/self")) == "proc"


@pytest.mark.process
def test_interpreter_memory() -> None:
    """An import costs memory on top of the bare interpreter."""
    assert 1 < memory.imported("").rss < memory.imported("import twisted.web.client").rss


@pytest.mark.process
def test_ticks_are_counted() -> None:
    """Either scheduler begins with one tick, and hands over at least one a second."""
    found = in_worker(ticks.run, None, 2.5)
    assert found["8"] >= 2 * 60 / 2.5
    assert found["20"] >= 2 * 60 / 2.5


@pytest.mark.process
def test_collect_stage(tmp_path: Path) -> None:
    """The collectors give all of the board model's samples."""
    tree = str(tmp_path / "board")
    found = in_worker(stages.collect, None, tree, tree, 3)
    assert found["samples"] == 80
    assert found["ms"] > 0


@pytest.mark.process
def test_store_stage(tmp_path: Path) -> None:
    """The store takes some CPU time for each sample."""
    assert in_worker(stages.store, None, str(tmp_path / "metrics.db"), 3)["ms"] > 0


@pytest.mark.process
def test_churn(tmp_path: Path) -> None:
    """New names take memory only as long as they are alive, of which there is a limit."""
    found = in_worker(churn.rename, None, str(tmp_path), 60)
    assert found["series"] == found["alive"] == 10_000
    assert found["after"] > found["before"] > 0


@pytest.mark.process
def test_wear(tmp_path: Path) -> None:
    """The store and the uploader run on simulated time; the file holds what was stored."""
    found = in_worker(flash.wear, None, str(tmp_path / "metrics.db"), 400, 10.0, 30.0, "")
    assert found["samples"] == 480
    assert 10 < found["file"] / found["samples"] < 1000


@pytest.mark.process
def test_floor(tmp_path: Path) -> None:
    """The least is some work: it stores and sends what the board model gives, and marks it."""
    tree, database = tmp_path / "board", tmp_path / "metrics.db"
    board.Board().write(tree, everything=True)
    bodies: list[int] = []

    class Import(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response_only(204)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Import) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/api/v1/import"
        found = in_worker(
            floor.least, None, str(tree), str(database), url, interval=0.05, every=0.1, seconds=0.2
        )
        server.shutdown()
    assert found["samples"] == 320
    assert len(bodies) == 2
    assert sum(bodies) == found["body"] > found["bare"] > 0
    assert found["cpu"] > 0
    with closing(sqlite3.connect(database)) as connection:
        states = connection.execute("SELECT uploaded, count(*) FROM metrics GROUP BY 1").fetchall()
    assert states == [(1, 400)]


@pytest.mark.process
def test_migration(tmp_path: Path) -> None:
    """A database of version 2 is migrated in some time, of which a step is a part."""
    path = tmp_path / "metrics.db"
    legacy_databases.version_2(path, legacy_databases.mixed(100))
    found = in_worker(migration.migrate, None, str(path))
    assert 0 < found["longest"] < found["seconds"]


@pytest.mark.process
def test_retention(tmp_path: Path) -> None:
    """Most of what was settled is deleted, the file is smaller, and adding waits little for it."""
    found = in_worker(retention.prune, None, str(tmp_path / "db"), 40_000, 0.02)
    assert found["deleted"] > 0
    assert found["after"] < found["before"]
    assert found["longest"] > 0
    assert found["turn"] > 0


@pytest.mark.process
def test_worker_failure_is_told() -> None:
    """A measurement that fails is an error with a reason, not a figure."""
    with pytest.raises(harness.FailedError, match="failed with status 1"):
        in_worker(flash.wear, None, "/proc/nowhere/metrics.db", 1, 10.0, 30.0, "")


def test_window_is_whole_uploads() -> None:
    """A service is watched for a multiple of its upload interval, never for less than asked."""
    assert Plan(seconds=60, upload_interval=30).window == 60
    assert Plan(seconds=61, upload_interval=30).window == 90


def test_tables() -> None:
    """Each figure is in each form of the report; one that is missing is a dash with its reason."""
    rows = [Row("cpu", "store", 12.345, "ms", "how"), Row("drain", "rate", None, "", "no server")]
    about = {"CPU": "a chip"}
    plain = report.text(about, rows).splitlines()
    assert plain[0] == "CPU: a chip"
    assert plain[-2].split() == ["cpu", "store", "12.3", "ms", "how"]
    assert plain[-1].split() == ["drain", "rate", "-", "no", "server"]
    assert "| cpu | store | 12.3 | ms | how |" in report.markdown(about, rows)
    assert json.loads(report.dump(about, rows))["rows"][0]["value"] == 12.345
