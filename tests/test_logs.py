"""The log's two forms."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from belatwist import logs

MOMENT = 1_800_000_000.25


def event(text: str, **fields: object) -> LogEvent:
    """Make an event as Twisted does."""
    return {"log_time": MOMENT, "log_level": LogLevel.info, "log_format": text, **fields}


class JSONLineTests(SynchronousTestCase):
    """One object a line."""

    def test_fields(self) -> None:
        """Time, level and message come first, then the event's own fields; no others."""
        line = logs.json_line(event("took {count}", count=3, log_namespace="x", system="-"))
        self.assertEqual(
            line,
            '{"time": "2027-01-15T08:00:00.250000Z", "level": "INFO", "msg": "took 3", "count": 3}',
        )

    def test_failure(self) -> None:
        """A failure is told by its text, its type and its stack."""
        record = json.loads(logs.json_line(event("no", log_failure=Failure(ValueError("bad")))))
        self.assertEqual((record["error"], record["error_type"]), ("bad", "ValueError"))
        self.assertIn("ValueError: bad", record["stack"])

    def test_whatever_cannot_be_json_is_quoted(self) -> None:
        """An object that JSON does not know is told by its ``repr``."""
        record = json.loads(logs.json_line(event("x", path=Path("/a"))))
        self.assertEqual(record["path"], repr(Path("/a")))

    @given(st.text())
    def test_any_text_is_one_line(self, text: str) -> None:
        """Nothing in a value breaks the line or the object."""
        line = logs.json_line(event("{value}", value=text))
        self.assertEqual(len(line.split("\n")), 1)
        self.assertEqual(json.loads(line)["value"], text)


class ConsoleLineTests(SynchronousTestCase):
    """For a reader."""

    def test_plain(self) -> None:
        """Time of day, level, text."""
        line = logs.ConsoleLine(colour=False)(event("took {count}", count=3))
        self.assertRegex(line, r"^\d\d:\d\d:\d\d INFO  took 3$")

    def test_control_characters(self) -> None:
        """A name from outside cannot steer the terminal, nor begin a line of its own."""
        line = logs.ConsoleLine(colour=False)(event("{name}", name="eth\x1b[31m\nroot"))
        self.assertTrue(line.endswith("eth\\x1b[31m\\nroot"))

    def test_colour(self) -> None:
        """A warning stands out on a terminal."""
        one = {**event("careful"), "log_level": LogLevel.warn}
        self.assertTrue(logs.ConsoleLine(colour=True)(one).startswith("\x1b[33m"))

    def test_failure(self) -> None:
        """A traceback follows the line that tells of it."""
        text = logs.ConsoleLine(colour=False)(event("no", log_failure=Failure(ValueError("bad"))))
        self.assertIn("no: ValueError: bad\n", text)


def logger(output: logs.LogOutput) -> Logger:
    """Make a logger that writes to one output only."""
    return Logger(namespace="test", observer=output)


def messages(path: Path) -> list[str]:
    """Return what a JSON log says."""
    return [json.loads(line)["msg"] for line in path.read_text().splitlines()]


def test_file_and_level(tmp_path: Path) -> None:
    """A file is appended to; what is below the level is not written."""
    path = tmp_path / "log"
    path.write_text('{"msg": "before"}\n')
    output = logs.LogOutput("warn", "json", str(path))
    logger(output).info("quiet")
    logger(output).warn("loud")
    output.close()
    assert messages(path) == ["before", "loud"]


def test_reopen_after_rotation(tmp_path: Path) -> None:
    """When the file was moved away, a new one is begun under its name; nothing is lost."""
    path, moved = tmp_path / "log", tmp_path / "log.1"
    output = logs.LogOutput("info", "json", str(path))
    logger(output).info("one")
    path.rename(moved)
    logger(output).info("two")
    output.reopen()
    logger(output).info("three")
    output.close()
    assert messages(moved) == ["one", "two"]
    assert messages(path) == ["three"]


def test_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """The error is the caller's to tell, in the log that is still there."""
    path, moved = tmp_path / "log", tmp_path / "log.1"
    output = logs.LogOutput("info", "json", str(path))
    path.rename(moved)
    path.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        output.reopen()
    logger(output).info("still here")
    output.close()
    assert messages(moved) == ["still here"]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """It is an error of the caller's, who knows the key."""
    with pytest.raises(FileNotFoundError):
        logs.LogOutput("info", "json", str(tmp_path / "none" / "log"))


def test_streams_stay_open() -> None:
    """Standard output is neither closed nor reopened."""
    output = logs.LogOutput("info", "json", "stdout")
    output.reopen()
    output.close()
    assert not sys.stdout.closed
