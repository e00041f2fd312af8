"""Events are declared by modules, and every line that the program logs is one of them."""

import ast
from pathlib import Path

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import belatwist
from belatwist.log.events import Event
from tests.log_events import Captured

PACKAGE = Path(belatwist.__file__).parent

LEVELS = {"debug", "info", "warn", "error", "critical", "failure", "emit"}

SAVED = Event(
    "disk.saved", LogLevel.info, "Saved {count} in {took:.1f} s to {path!r}", fields=("id",)
)


def direct_calls(module: Path) -> list[str]:
    """Find the lines of a module that log something else than an event."""
    found = []
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            logger = ast.unparse(node.func.value).rpartition(".")[2]
            if node.func.attr in LEVELS and logger.lstrip("_") in {"log", "logger"}:
                found.append(f"{module.relative_to(PACKAGE)}:{node.lineno}")
    return found


def test_every_line_is_an_event() -> None:
    """No module but that of the events calls a logger itself."""
    modules = [one for one in PACKAGE.rglob("*.py") if one != PACKAGE / "log" / "events.py"]
    assert [call for module in modules for call in direct_calls(module)] == []


class EventTests(SynchronousTestCase):
    """Events that are emitted, with and without a failure."""

    log = Logger()

    def test_fields(self) -> None:
        """The fields of the text come first, in their order, then the others."""
        self.assertEqual(SAVED.fields, ("count", "took", "path", "id"))

    def test_emit(self) -> None:
        """An event has its level, its text and its name."""
        with Captured() as captured:
            SAVED.emit(self.log, count=3, took=0.25, path="/a", id=7)
        (event,) = captured.events
        self.assertIs(event["log_level"], LogLevel.info)
        self.assertEqual((event["event"], event["count"], event["id"]), ("disk.saved", 3, 7))
        self.assertEqual(captured.texts(LogLevel.info), ["Saved 3 in 0.2 s to '/a'"])

    def test_another_level_and_more_text(self) -> None:
        """A caller may choose another level, and add to the text."""
        with Captured() as captured:
            SAVED.emit(
                self.log,
                level=LogLevel.debug,
                suffix="; {flips} flips",
                count=3,
                took=1.0,
                path="/a",
                flips=2,
            )
        self.assertEqual(captured.texts(LogLevel.debug), ["Saved 3 in 1.0 s to '/a'; 2 flips"])

    def test_a_single_thing(self) -> None:
        """The noun behind a number agrees with it, and nothing else changes."""
        text = "{count} samples of {n:,} series in {size} bytes, {rows:,} pending rows; it answers"
        event = Event("disk.counted", LogLevel.info, text)
        with Captured() as captured:
            event.emit(self.log, suffix=" {flips} times", count=1, n=1, size=1, rows=1, flips=1)
            event.emit(self.log, suffix=" {flips} times", count=0, n=2, size=2, rows=2, flips=2)
        self.assertEqual(
            captured.texts(LogLevel.info),
            [
                "1 sample of 1 series in 1 byte, 1 pending row; it answers 1 time",
                "0 samples of 2 series in 2 bytes, 2 pending rows; it answers 2 times",
            ],
        )

    def test_failure(self) -> None:
        """A failure is logged with its traceback; without one, the present exception is."""
        given = Failure(ValueError("given"))
        with Captured() as captured:
            SAVED.failure(self.log, given, count=1, took=1.0, path="/a")
            try:
                raise ValueError("present")
            except ValueError:
                SAVED.failure(self.log, level=LogLevel.warn, count=2, took=1.0, path="/a")
        first, second = captured.events
        self.assertIs(first["log_failure"], given)
        self.assertIs(first["log_level"], LogLevel.info)
        self.assertEqual(str(second["log_failure"].value), "present")
        self.assertIs(second["log_level"], LogLevel.warn)
        self.assertEqual(second["event"], "disk.saved")
        self.flushLoggedErrors(ValueError)
