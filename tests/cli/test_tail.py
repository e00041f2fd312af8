"""``bela tail`` prints new samples."""

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from belatwist.cli import tail
from belatwist.cli.database import DatabaseReader, SampleRow
from belatwist.cli.tail import LATE_MS, Follower, pattern
from belatwist.model import Sample, Series, sample
from tests.cli.running import bela, make, start, ticks
from tests.process import Lines
from tests.store.databases import CORE, LOAD, STATE, insert

NOON = 1_767_268_800_000
"""Of the first day of 2026, in milliseconds."""


class Box:
    """An agent's database and its follower.

    :ivar now: the wall clock.
    """

    def __init__(self, path: Path, glob: str | None = None) -> None:
        self.now = NOON
        self.path = make(path, [])
        self.agent = sqlite3.connect(path)
        self.follower = Follower(DatabaseReader(path), pattern(glob), lambda: self.now)

    def store(self, *samples: Sample) -> None:
        """Store samples as the agent does."""
        insert(self.agent, samples)

    def new(self) -> list[int]:
        """Return the times of the new samples, in milliseconds since noon."""
        return [row.timestamp_ms - NOON for row, _ in self.follower.new()]

    def last(self, count: int) -> list[int]:
        """Return the times of the last samples."""
        return [row.timestamp_ms - NOON for row, _ in self.follower.last(count)]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """A box without samples."""
    one = Box(tmp_path / "m.db")
    with closing(one.agent):
        yield one


def test_last_ones_then_new_ones(box: Box) -> None:
    """Each sample is shown once, oldest first."""
    box.store(*ticks(LOAD, NOON - 9000, 10))
    assert box.last(3) == [-2000, -1000, 0]
    assert box.new() == []
    box.now += 2000
    box.store(*ticks(LOAD, NOON + 1000, 2))
    assert box.new() == [1000, 2000]
    assert box.new() == []


def test_none_of_the_last_ones(box: Box) -> None:
    """With a count of 0 only new samples are shown."""
    box.store(*ticks(LOAD, NOON - 9000, 10))
    assert box.last(0) == []
    assert box.new() == []


def test_the_first_samples_of_all(box: Box) -> None:
    """The follower waits for the first sample of an empty database."""
    assert box.last(10) == []
    box.store(sample(LOAD, NOON, 1))
    assert box.new() == [0]
    assert box.new() == []


def test_texts_are_among_them(box: Box) -> None:
    """Texts, which have a table of their own, are shown in order of time."""
    box.store(Sample(STATE, NOON - 500, "up"), *ticks(LOAD, NOON - 1000, 2))
    assert box.last(2) == [-500, 0]
    box.store(Sample(STATE, NOON + 500, "down"))
    assert box.new() == [500]


def test_what_comes_late(box: Box) -> None:
    """A sample that is stored up to two minutes late is shown."""
    box.store(sample(LOAD, NOON, 1))
    box.last(1)
    box.store(sample(CORE, NOON - LATE_MS, 1), sample(CORE, NOON - LATE_MS - 1, 1))
    assert box.new() == [-LATE_MS]


def test_after_a_pause(box: Box) -> None:
    """After a pause of hours every new sample is shown."""
    box.store(sample(LOAD, NOON, 1))
    box.last(1)
    box.now += 7_200_000
    box.store(*ticks(LOAD, NOON + 3_600_000, 2))
    assert box.new() == [3_600_000, 3_601_000]


def test_the_clock_is_set_back(box: Box) -> None:
    """New samples hours before the newest one are shown, and no old ones with them."""
    box.store(*ticks(LOAD, NOON - 7_200_000, 7200))
    assert box.last(1) == [-1000]
    box.now = NOON - 3_600_000
    assert box.new() == []
    box.store(sample(LOAD, box.now + 500, 1))
    assert box.new() == [-3_599_500]
    box.now += 1000
    box.store(sample(LOAD, box.now + 500, 1))
    assert box.new() == [-3_598_500]


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    """A pattern selects stored names among the last samples and the new ones."""
    box = Box(tmp_path / "m.db", "cpu.*")
    with closing(box.agent):
        box.store(sample(CORE, NOON - 50_000, 1), *ticks(LOAD, NOON - 20_000, 20))
        assert box.last(5) == [-50_000]
        box.store(sample(CORE, NOON, 1), sample(LOAD, NOON, 1))
        assert [series for _, series in box.follower.new()] == [CORE]


def test_a_rare_metric_does_not_cost_the_whole_table(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the newest pages are searched for the last samples."""
    monkeypatch.setattr(tail, "MAX_PAGES_BACK", 2)
    monkeypatch.setattr("belatwist.cli.database.PAGE", 5)
    box.store(sample(CORE, NOON - 100_000, 1), *ticks(LOAD, NOON - 20_000, 10))
    rare = Follower(DatabaseReader(box.path), pattern("cpu.*"), lambda: NOON)
    assert rare.last(1) == []


def test_trouble_is_waited_out(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure that lasts is printed once, another one at once, and then the recovery."""
    box.store(sample(LOAD, NOON, 1))
    aside = box.path.with_suffix(".aside")
    turns = iter(
        [
            lambda: box.path.rename(aside),
            lambda: None,
            box.path.mkdir,
            box.path.rmdir,
            lambda: aside.rename(box.path),
            lambda: box.store(sample(LOAD, NOON + 1000, 2)),
        ]
    )

    def wait(_: float) -> bool:
        turn = next(turns, None)
        if turn is not None:
            turn()
        return turn is not None

    tail.tail(
        DatabaseReader(box.path),
        wanted=pattern(None),
        count=0,
        interval=1,
        as_json=True,
        wall_ms=lambda: NOON,
        wait=wait,
    )
    out, err = capsys.readouterr()
    assert [json.loads(line)["value"] for line in out.splitlines()] == [2]
    lines = err.splitlines()
    assert len(lines) == 4
    assert "no such file" in lines[0]
    assert "is not a regular file" in lines[1]
    assert "no such file" in lines[2]
    assert lines[3] == "bela: the database can be read again"


def test_lines_are_aligned_and_harmless() -> None:
    """A line has time, name, tags, value, unit and state, without control characters."""
    odd = Series.of("a\x1b[31m", "box", {"core": "0\n"})
    line = tail.Lines()
    one = line(SampleRow(NOON, 1, 0.5, "s", "pending"), CORE)
    two = line(SampleRow(NOON, 2, 7, "s", "uploaded"), odd)
    assert one.split()[2:] == ["cpu.usage_percent", "core=0", "0.500", "percent", "pending"]
    assert two.isprintable()
    assert one.index("0.500") + 5 == two.index(" 7 ") + 2


@pytest.mark.process
def test_a_process_ends_well(tmp_path: Path) -> None:
    """It prints a sample of another process, and Ctrl-C ends it with status 0 and no message."""
    path = make(tmp_path / "m.db", ticks(LOAD, NOON, 3))
    with closing(sqlite3.connect(path)) as agent:
        running = start("tail", "-d", path, "-n", "1", "--interval", "0.1", "--json")
        assert running.stdout is not None
        lines = Lines(running.stdout)
        with running:
            lines.until(lambda line: json.loads(line)["value"] == 2.5, "the last one")
            insert(agent, [sample(LOAD, NOON + 9000, 42.5)])
            line = json.loads(lines.until(lambda line: "42.5" in line, "the new one"))
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 0
            assert running.stderr is not None
            assert running.stderr.read() == ""
        lines.thread.join()
    assert line == {
        "time": "2026-01-01T12:00:09.000Z",
        "timestamp_ms": NOON + 9000,
        "metric": "system.load_1m",
        "tags": {},
        "value": 42.5,
        "device": "box",
        "session": "s1",
        "state": "pending",
    }


@pytest.mark.process
@pytest.mark.parametrize("count", ["0", "1000"])
def test_nobody_reads_any_more(count: str, tmp_path: Path) -> None:
    """A closed pipe ends the command with status 0, with or without new samples."""
    path = make(tmp_path / "m.db", ticks(LOAD, NOON, 1000))
    running = start("tail", "-d", path, "-n", count, "--interval", "0.1")
    with running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.wait(20) == 0
        assert running.stderr is not None
        assert running.stderr.read() == ""


def test_nothing_to_follow(tmp_path: Path) -> None:
    """If the first reading fails, the command fails."""
    done = bela("tail", "--database", tmp_path / "none.db")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"bela: database {tmp_path}/none.db: no such file")


@pytest.mark.parametrize("interval", ["nan", "inf", "-inf", "0", "3601"])
def test_an_interval_is_a_number_of_seconds(interval: str, tmp_path: Path) -> None:
    """An interval out of bounds is a usage error, and so is nan."""
    done = bela("tail", "--database", tmp_path, "--interval", interval)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Invalid value for '--interval'" in done.stderr


def test_one_source(tmp_path: Path) -> None:
    """Giving both a configuration and a database is a usage error."""
    done = bela("tail", "--database", tmp_path, "--config", tmp_path)
    assert done.exit_code == 2
    assert "exclude each other" in done.stderr
