"""``bela export`` copies samples out of the database."""

import csv
import json
import os
import pty
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from unittest import mock

import pytest

from belatwist.cli import database
from belatwist.model import Sample, Series, sample
from tests.cli.running import CHECKOUT, PROGRAM, bela, make, process, start, ticks
from tests.process import TIMEOUT
from tests.store.databases import CORE, LOAD, STATE, accept, pending, reading, settle
from tests.victoria.compare import assert_same, expected
from tests.victoria.server import Points, VictoriaMetrics

NOON = 1_767_268_800_000
"""Of the first day of 2026, in milliseconds."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with ten samples of each of two series and a text, a second apart from noon."""
    samples = [*ticks(LOAD, NOON, 10), *ticks(CORE, NOON, 10), Sample(STATE, NOON + 500, "up")]
    return make(tmp_path / "m.db", samples)


def points(jsonl: str) -> Points:
    """Read the import format."""
    result: Points = {}
    for line in jsonl.splitlines():
        one = json.loads(line)
        assert one["timestamps"] == sorted(one["timestamps"])
        pairs = zip(one["timestamps"], one["values"], strict=True)
        result.setdefault(tuple(sorted(one["metric"].items())), []).extend(pairs)
    return result


def test_jsonl(path: Path) -> None:
    """Every number is exported under its uploaded name; stderr counts the skipped samples."""
    done = bela("export", "-d", path, "--all")
    assert done.exit_code == 0
    wanted = [(NOON + n * 1000, n + 0.5) for n in range(10)]
    assert points(done.stdout) == {
        (("__name__", "system_load_1m"), ("device_id", "box")): wanted,
        (("__name__", "cpu_usage_percent"), ("core", "0"), ("device_id", "box")): wanted,
    }
    assert done.stderr.splitlines() == [
        "bela: 20 samples exported",
        "bela: 1 sample skipped: text, which VictoriaMetrics does not store",
    ]


def test_csv(path: Path) -> None:
    """All samples are exported, including texts, in order of time."""
    done = bela("export", "-d", path, "--all", "--format", "csv")
    assert done.exit_code == 0
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 21
    assert [int(row["timestamp_ms"]) for row in rows] == sorted(
        int(row["timestamp_ms"]) for row in rows
    )
    assert next(row for row in rows if row["metric"] == "srt.state") == {
        "time": "2026-01-01T12:00:00.500Z",
        "timestamp_ms": str(NOON + 500),
        "metric": "srt.state",
        "tags": "{}",
        "value": "up",
        "device": "box",
        "session": "s1",
        "state": "local",
    }
    core = next(row for row in rows if row["metric"] == "cpu.usage_percent")
    assert (core["tags"], core["value"], core["state"]) == ('{"core":"0"}', "0.5", "pending")


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("size", [1, 7, 21])
def test_pages_make_no_difference(path: Path, form: str, size: int) -> None:
    """Pages of any size give the same samples."""
    whole = bela("export", "-d", path, "--all", "--format", form)
    with (
        mock.patch.object(database, "PAGE", size),
        mock.patch("belatwist.cli.export.PAGE", size),
    ):
        done = bela("export", "-d", path, "--all", "--format", form)
    assert done.stderr == whole.stderr
    if form == "csv":
        assert done.stdout == whole.stdout
    else:
        assert points(done.stdout) == points(whole.stdout)


def test_since_and_until(path: Path) -> None:
    """The export includes both ends; a time may have any zone."""
    done = bela(
        *("export", "-d", path, "--since", "2026-01-01T12:00:02Z"),
        *("--until", "2026-01-01T14:00:04+02:00", "--metric", "system.*"),
    )
    (found,) = points(done.stdout).values()
    assert [at - NOON for at, _ in found] == [2000, 3000, 4000]


def test_so_long_ago(tmp_path: Path) -> None:
    """A duration counts back from now."""
    now = time.time_ns() // 1_000_000
    path = make(tmp_path / "m.db", ticks(LOAD, now - 3_600_000, 2, 3_000_000))
    done = bela("export", "-d", path, "--since", "30m", "--until", "1s")
    (found,) = points(done.stdout).values()
    assert [at - now for at, _ in found] == [-600_000]


def test_what_the_server_would_not_keep(tmp_path: Path) -> None:
    """Such samples are skipped and counted by reason, including foreign values."""
    many = Series.of("m", "box", {f"tag{n}": "x" for n in range(40)})
    path = make(tmp_path / "m.db", [*ticks(LOAD, NOON, 3), *ticks(many, NOON, 2)])
    with reading(path) as connection, connection:
        connection.execute("UPDATE samples SET value = 9e999 WHERE timestamp_ms = ?", [NOON + 2000])
    done = bela("export", "-d", path, "--all")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.splitlines() == [
        "bela: 2 samples exported",
        "bela: 1 sample skipped: not a number",
        "bela: 2 samples skipped: 42 labels, the server keeps 30",
    ]


def test_nothing(path: Path) -> None:
    """An export without samples succeeds."""
    done = bela("export", "-d", path, "--all", "--metric", "nothing")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "bela: 0 samples exported\n"


def test_a_file(path: Path, tmp_path: Path) -> None:
    """The file has the output of stdout and the usual permissions, and no other file is left."""
    to = tmp_path / "out.jsonl"
    done = bela("export", "-d", path, "--all", "--output", to)
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"20 samples exported to {to}" in done.stderr
    assert to.read_text() == bela("export", "-d", path, "--all").stdout
    (tmp_path / "other").touch()
    assert to.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.db", "other", "out.jsonl"]


def test_a_file_that_is_there(path: Path, tmp_path: Path) -> None:
    """An existing file is replaced only with ``--force``."""
    to = tmp_path / "out.jsonl"
    to.write_text("precious")
    done = bela("export", "-d", path, "--all", "-o", to)
    assert (done.exit_code, to.read_text()) == (1, "precious")
    assert done.stderr == f"bela: {to}: already exists; --force replaces it\n"
    assert bela("export", "-d", path, "--all", "-o", to, "--force").exit_code == 0
    assert len(points(to.read_text())) == 2


def test_a_file_that_comes_meanwhile(path: Path, tmp_path: Path) -> None:
    """A file that another program creates during the export is not replaced either."""
    to = tmp_path / "out.jsonl"

    def written(_: int) -> None:
        to.write_text("precious")

    with mock.patch("os.fsync", written):
        done = bela("export", "-d", path, "--all", "-o", to)
    assert (done.exit_code, to.read_text()) == (1, "precious")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.db", "out.jsonl"]


@pytest.mark.parametrize("name", [".", "missing/out", "fifo"])
def test_a_place_that_cannot_be_written(path: Path, tmp_path: Path, name: str) -> None:
    """Folders, pipes and missing folders are refused, even with ``--force``."""
    os.mkfifo(tmp_path / "fifo")
    done = bela("export", "-d", path, "--all", "-o", tmp_path / name, "--force")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"bela: {tmp_path / name}: ")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["fifo", "m.db"]


def test_a_failure_leaves_the_old_file(path: Path, tmp_path: Path) -> None:
    """If reading fails, neither a partial nor a temporary file is left."""
    to = tmp_path / "out.jsonl"
    to.write_text("precious")
    with reading(path) as connection, connection:
        connection.execute("UPDATE series SET tags = 'rubbish' WHERE name LIKE 'cpu%'")
    with mock.patch.object(database, "PAGE", 1):
        done = bela("export", "-d", path, "--all", "-o", to, "--force")
    assert (done.exit_code, to.read_text()) == (1, "precious")
    assert "is damaged" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.db", "out.jsonl"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "--since", "2h"),
        ("--since", "yesterday"),
        ("--since", "2026-01-01T12:00:00"),
        ("--since", "-2h"),
        ("--since", "1h", "--until", "2h"),
        ("--all", "--format", "xml"),
    ],
)
def test_mistakes_of_usage(path: Path, arguments: tuple[str, ...]) -> None:
    """The exit status is 2, and the message names the allowed values."""
    done = bela("export", "-d", path, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: " in done.stderr


@pytest.mark.process
def test_a_full_disk(path: Path) -> None:
    """If stdout cannot be written, the command prints one line and exits with 1."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "export", "-d", str(path), "--all"],
            cwd=CHECKOUT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "bela: the output cannot be written: No space left on device\n"


@pytest.mark.process
def test_nobody_reads_any_more(tmp_path: Path) -> None:
    """A closed pipe ends the command without output."""
    path = make(tmp_path / "m.db", ticks(LOAD, NOON, 30_000))
    with start("export", "-d", path, "--all") as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == ""
        assert running.wait(20) == 1


@pytest.mark.process
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_from_the_beginning(path: Path, stream: str) -> None:
    """The command refuses to run without its streams, whose numbers other files would get."""
    code = f"import sys; sys.{stream} = None; from belatwist.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "-d", str(path), "--all"],
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr


@pytest.mark.process
def test_progress_on_a_terminal(path: Path, tmp_path: Path) -> None:
    """A progress bar appears on a terminal, and nowhere else."""
    ours, theirs = pty.openpty()
    to = tmp_path / "out.jsonl"
    done = subprocess.run(
        [*PROGRAM, "export", "-d", str(path), "--all", "-o", str(to)],
        cwd=CHECKOUT,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "Exporting" in shown
    assert "100%" in shown
    assert "20 samples exported" in shown
    assert "Exporting" not in process("export", "-d", path, "--all").stderr


def deliver(body: bytes, url: str) -> None:
    """Post a body, again until the server listens, shortly after it reports its start."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            urllib.request.urlopen(url, body, timeout=TIMEOUT).close()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
        else:
            return


@pytest.mark.process
@pytest.mark.victoria
def test_a_real_server_takes_it(tmp_path: Path) -> None:
    """VictoriaMetrics imports the file, and then has the samples of the database."""
    odd = Series.of("thermal.zone_temp", "box", {"zone": 'a"b\\c é', "device_id": "x"})
    other = [sample(odd, NOON + n * 1000, value) for n, value in enumerate([0.1, -7, 1e12, 0])]
    path = make(tmp_path / "m.db", [*ticks(LOAD, NOON, 5000), *ticks(CORE, NOON, 5000), *other])
    with reading(path) as connection:
        settle(connection, accept(pending(connection)))
    to = tmp_path / "out.jsonl"
    with mock.patch.object(database, "PAGE", 999):
        assert bela("export", "-d", path, "--all", "-o", to).exit_code == 0
    with VictoriaMetrics(tmp_path / "data") as server:
        deliver(to.read_bytes(), server.import_url)
        exported = server.export("box")
    wanted = expected(path)
    assert sum(map(len, wanted.values())) == 10_004
    assert_same(exported, wanted)
