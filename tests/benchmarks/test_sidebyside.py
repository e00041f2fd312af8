"""The side-by-side benchmark counts what passes and what lands; how good it is is not tested."""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.harness import FailedError, Memory, UnavailableError
from benchmarks.server import Victoria, victoria
from benchmarks.sidebyside import plot, table, tools
from benchmarks.sidebyside.__main__ import FULL, QUICK, Sizes, groups, main
from benchmarks.sidebyside.gate import gate
from benchmarks.sidebyside.landed import Landed, landed, rows
from benchmarks.sidebyside.outage import Moment, Outage, endure
from benchmarks.sidebyside.steady import Finding, Watcher, board_model
from benchmarks.sidebyside.tools import Case, Running
from tests.victoria.server import require

OURS = Case("belatwist", "same", "board model", 1.0)
THEIRS = replace(OURS, tool="vmagent")
FOUND = Finding(OURS, 60.0, 480, 80, 0.02, 3840, 1_000_000, Memory(40.0, 60.0))
OUTAGE = Outage(
    replace(OURS, interval=0.05), 600.0, 48_000, 2.0, 0.6, 0.5, 3.0, 24_000_000,
    Memory(40.0, 60.0), Memory(50.0, 70.0), Memory(51.0, 71.0), [Moment(2.5, 48_000.0)],
)  # fmt: skip


class Canned(Victoria):
    """A server that answers what it was given, by the beginning of the path."""

    def __init__(self, **answers: str) -> None:
        super().__init__(0)
        self.asked: list[str] = []
        self._answers = answers

    def get(self, path: str) -> str:
        self.asked.append(path)
        return next((said for name, said in self._answers.items() if name in path), "")


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Run a server that answers each piece that it receives; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(connection: socket.socket) -> None:
            with connection:
                while connection.recv(1000):
                    connection.sendall(reply)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_gate_counts_and_tells_when() -> None:
    """Bytes of both directions are counted; the first request and each answer have their time."""
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as port, gate(port) as way:
        assert way.began is None
        with socket.create_connection(("127.0.0.1", way.port), timeout=10) as client:
            client.sendall(b"POST / HTTP/1.1\r\n\r\n")
            answer = client.recv(100)
        assert way.bytes == 19 + len(answer)
        assert way.began is not None
        ((at, size),) = way.answers
        assert at >= way.began
        assert size == way.bytes


def test_closed_gate_refuses_and_opens_again() -> None:
    """Closed, it cuts what is connected and refuses; opened, it takes connections as before."""
    with answering(b"HTTP/") as port, gate(port) as way:
        with socket.create_connection(("127.0.0.1", way.port), timeout=10) as client:
            client.sendall(b"POST ")
            assert client.recv(100) == b"HTTP/"
            way.close()
            assert client.recv(100) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", way.port), timeout=10)
        way.open()
        assert way.began is None
        with socket.create_connection(("127.0.0.1", way.port), timeout=10) as client:
            client.sendall(b"POST ")
            assert client.recv(100) == b"HTTP/"
        assert way.began is not None


def test_what_landed_is_counted() -> None:
    """Points count within the times; a series that came once counts as samples, not as series."""
    lines = [
        {"metric": {"__name__": "a"}, "values": [1, 2], "timestamps": [10, 20]},
        {"metric": {"__name__": "a"}, "values": [3], "timestamps": [30]},
        {"metric": {"__name__": "b"}, "values": [1], "timestamps": [20]},
    ]
    server = Canned(export="\n".join(map(json.dumps, lines)))
    assert landed(server, "sbs-1") == Landed(samples=4, series=1)
    assert server.asked[0] == "/internal/force_flush"
    assert "sbs-1" in server.asked[1]
    assert landed(server, "sbs-1", since_ms=20, until_ms=30) == Landed(samples=2, series=0)
    assert landed(Canned(), "sbs-1") == Landed(0, 0)


def test_rows_of_either_way_are_added() -> None:
    """The server's counters of both endpoints count, and no others."""
    metrics = "\n".join(
        f'vm_rows_inserted_total{{type="{kind}"}} {count}'
        for kind, count in (("vmimport", 3), ("promremotewrite", 4), ("influx", 100))
    )
    assert rows(Canned(metrics=metrics)) == 7


def test_every_tool_is_measured_at_every_interval() -> None:
    """Tools are compared on the same machine at the same interval, and with their defaults."""
    found = [case for group in groups(FULL, quick=False) for case in group]
    for interval in (1.0, 10.0):
        here = {(one.machine, *one.column) for one in found if one.interval == interval}
        for tool in ("belatwist", "vmagent", "Prometheus"):
            assert ("this machine", tool, "same") in here
            assert ("board model", tool, "same") in here
        assert ("this machine", "vmagent", "default") in here
        assert ("this machine", "Prometheus", "default") in here
    assert len(found) == len(set(found))


@pytest.mark.parametrize("sizes", [FULL, QUICK])
def test_windows_are_whole_uploads(sizes: Sizes) -> None:
    """Each window has a whole number of uploads."""
    assert all(window % sizes.flush == 0 for window in sizes.windows.values())


def test_table_has_ratios_to_ours() -> None:
    """Each figure of a peer says how many times ours it is; what is missing is a dash."""
    theirs = replace(FOUND, case=THEIRS, cpu=0.05, samples=960, written=0)
    made = table.lines([FOUND, theirs], [OUTAGE])
    by_name = {(line.place, line.what, line.unit): line for line in made}
    cpu = by_name["board model, 1 s", "CPU", "s / hour"]
    assert cpu.cell(("belatwist", "same")) == "1.20"
    assert cpu.cell(("vmagent", "same")) == "3 (2.50x)"
    assert cpu.cell(("Prometheus", "same")) == "-"
    wire = by_name["board model, 1 s", "wire", "bytes / sample"]
    assert wire.cell(("vmagent", "same")) == "4 (0.50x)"
    drain = by_name["outage of 600 ticks, board model", "drain, of these 95 %", "samples / s"]
    assert drain.cell(("belatwist", "same")) == "91,200"
    assert drain.cell(("vmagent", "same")) == "-"
    plain = table.text(made).splitlines()
    assert len({len(line) for line in plain[1:3]}) == 2
    assert "board model, 1 s:" in plain
    assert "|  | CPU | s / hour | 1.20 | 3 (2.50x) |" in table.markdown(made)
    assert {"belatwist", "vmagent, same families"} == set(table.dump(made)[0]["values"])


def test_bytes_on_tmpfs_are_not_told() -> None:
    """Where no byte counts as written, there is no figure."""
    made = table.lines([replace(FOUND, written=None)], [])
    assert all(not line.values for line in made if line.what == "written")


# matplotlib asks fc-list when it has no list of fonts yet.
@pytest.mark.process
def test_pictures(tmp_path: Path) -> None:
    """Both pictures are drawn of what there is."""
    pytest.importorskip("matplotlib")
    made = table.lines([FOUND, replace(FOUND, case=THEIRS)], [OUTAGE])
    files = plot.draw(made, [OUTAGE], tmp_path)
    assert [file.name for file in files] == ["sidebyside.png", "sidebyside-drain.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert plot.draw([], [], tmp_path) == []


@pytest.mark.process
def test_a_tool_that_ended_is_told(tmp_path: Path) -> None:
    """A process that has ended is an error with the end of its log."""
    (tmp_path / "agent.log").write_text("no such flag")
    process = subprocess.Popen(["sleep", "60"])
    running = Running((process.pid,), tmp_path)
    try:
        running.check()
        assert running.memory().rss > 0
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(FailedError, match="no such flag"):
            running.check()
    finally:
        process.kill()
        process.wait()


def test_missing_programs_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a program nothing is measured, and it says which package is missing."""
    monkeypatch.setenv("PATH", "/nowhere")
    tools.require(["belatwist"])
    assert main(["--quick"]) == 1
    assert "is not installed (Debian's package" in capsys.readouterr().err


def test_board_model_is_whole(tmp_path: Path) -> None:
    """The board moves, and has what a node_exporter wants of a thermal zone."""
    with board_model(tmp_path / "board", period=0.01, step=10.0) as root:
        before = (root / "proc/uptime").read_bytes()
        watcher = Watcher(tmp_path, Victoria(0), root, 0)
        watcher.until(
            lambda: (root / "proc/uptime").read_bytes() != before, seconds=10, what="a move"
        )
        assert len(list(root.glob("sys/class/thermal/*/policy"))) == 7


def test_what_waits_can_be_ended(tmp_path: Path) -> None:
    """One that fails ends the others' waits; a wait that is too long is an error of its own."""
    watcher = Watcher(tmp_path, Victoria(0), tmp_path, 0)
    with pytest.raises(FailedError, match="a wonder did not come about"):
        watcher.until(lambda: False, seconds=0.0, what="a wonder")
    watcher.end()
    with pytest.raises(FailedError, match="given up"):
        watcher.pause(60)


@pytest.mark.process
@pytest.mark.victoria
def test_side_by_side(tmp_path: Path) -> None:
    """Both tools land the same series of the board; an outage's samples land after it."""
    require()
    try:
        tools.require(["vmagent"])
    except UnavailableError as error:
        if os.environ.get("BELA_REQUIRE_VICTORIA") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    with (
        victoria(tmp_path) as server,
        board_model(tmp_path / "board", period=0.05, step=1.0) as board,
    ):
        watcher = Watcher(tmp_path, server, board, 0)
        ours, theirs = watcher.watch_all(
            [OURS, replace(THEIRS, collectors="kept")], flush=2.0, window=4.0
        )
        assert 70 <= ours.series <= 80
        assert abs(ours.series - theirs.series) < 15
        for one in (ours, theirs):
            assert one.samples >= 3 * one.series
            assert one.cpu > 0
            assert one.wire > one.samples
            assert one.memory.pss > 1
        found = endure(watcher, replace(OURS, interval=0.05), seconds=1.0, flush=1.0)
        assert found.backlog > 10 * 70
        assert found.begins > 0
        assert found.rate > 0
        assert found.moments[-1].samples >= found.backlog
