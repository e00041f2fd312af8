"""Failures are logged at once when they are new, and rarely when they go on."""

import sqlite3
from contextlib import closing
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from belatwist.errors import ParseError, ReadError
from belatwist.log.events import Event
from belatwist.log.throttle import (
    MAX_ITEMS,
    MAX_KINDS,
    REPEAT_AFTER,
    FailureLog,
    ItemFailureLog,
    kind_of,
)
from tests.log_events import Captured

FAILED = Event("thing.failed", LogLevel.warn, "The thing failed: {error}")
WORKS = Event("thing.recovered", LogLevel.info, "The thing works again")
NAMED = Event("thing.works", LogLevel.info, "The {thing} works again")
ZONE_FAILED = Event("zone.failed", LogLevel.warn, "Zone {zone} failed: {error}")
ZONE_WORKS = Event("zone.recovered", LogLevel.info, "Zone {zone} works again")
ZONE_GONE = Event("zone.removed", LogLevel.info, "Zone {zone} was removed")


class FailureLogTests(SynchronousTestCase):
    """A thing that fails and recovers at known moments."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.captured = Captured()
        self.failures = FailureLog(Logger("test", observer=self.captured), self.clock.seconds)

    def lines(self) -> list[str]:
        """Take the lines above debug that came since the last call."""
        events = [e for e in self.captured.events if e["log_level"] > LogLevel.debug]
        self.captured.events.clear()
        return [formatEvent(event) for event in events]

    def fail(self, error: str = "no answer", kind: str = "", after: float = 0.0) -> list[str]:  # type: ignore[override]
        """Let it fail some time from now."""
        self.clock.advance(after)
        self.failures.failed(FAILED, kind, error=error)
        return self.lines()

    def work(self, after: float = 0.0) -> list[str]:
        """Let it work some time from now."""
        self.clock.advance(after)
        self.failures.recovered(NAMED, thing="thing")
        return self.lines()

    def test_a_failure_and_its_end(self) -> None:
        """Each is one line, at once."""
        self.assertEqual(self.work(), [])
        self.assertEqual(self.fail(), ["The thing failed: no answer"])
        self.assertEqual(self.fail(after=30), [])
        self.assertEqual(self.work(after=30), ["The thing works again, after 60 s and 2 failures"])
        self.assertEqual(self.work(after=30), [])

    def test_what_goes_on_is_repeated_with_its_count(self) -> None:
        """Once in ten minutes."""
        lines = [line for _ in range(121) for line in self.fail(after=10)]
        self.assertEqual(
            lines,
            [
                "The thing failed: no answer",
                "The thing failed: no answer; 61 failures in 600 s",
                "The thing failed: no answer; 121 failures in 1200 s",
            ],
        )
        self.assertEqual(
            self.work(after=10), ["The thing works again, after 1210 s and 121 failures"]
        )

    def test_a_new_kind_is_logged_at_once(self) -> None:
        """Within an outage, and soon after another: a 401 must not hide behind a dead link."""
        self.assertEqual(len(self.fail("refused", "connection")), 1)
        self.assertEqual(
            self.fail("token", "401", after=1), ["The thing failed: token; 2 failures in 1 s"]
        )
        self.assertEqual(self.fail("refused", "connection", after=1), [])
        self.assertEqual(len(self.work(after=1)), 1)
        self.assertEqual(self.fail("gone", "404", after=1), ["The thing failed: gone"])
        self.assertEqual(len(self.work(after=1)), 1)

    def test_what_flips_is_logged_once_in_ten_minutes(self) -> None:
        """With how often it did; its end when it has lasted."""
        self.assertEqual(len(self.fail()), 1)
        self.assertEqual(len(self.work(after=1)), 1)
        lines = []
        for _ in range(1439):  # The rest of a day, a flip a minute.
            lines += self.fail(after=59)
            lines += self.work(after=1)
        self.assertEqual(len(lines), 143)
        self.assertEqual(
            set(lines), {"The thing failed: no answer; it failed and recovered 9 times meanwhile"}
        )
        self.assertEqual(self.work(after=REPEAT_AFTER - 1), [])
        self.assertEqual(
            self.work(after=1),
            ["The thing works again; it failed and recovered 9 times meanwhile"],
        )
        self.assertTrue(self.failures.settled)
        self.assertEqual(self.fail(after=1), ["The thing failed: no answer"])

    def test_a_long_failure_after_a_short_one_ends_aloud(self) -> None:
        """Whoever read that it fails still reads that it works."""
        self.fail()
        self.work(after=1)
        lines = [line for _ in range(200) for line in self.fail(after=10)]
        self.assertEqual(len(lines), 3)
        self.assertEqual(len(self.work(after=1)), 1)

    def test_a_text_of_the_specification_stays_as_it_is(self) -> None:
        """What is to be counted stands in its fields."""
        event = Event("thing.failed", LogLevel.error, "Collection failed", fields=("error",))
        for _ in range(2):
            self.failures.failed(event, error="x")
            self.clock.advance(REPEAT_AFTER)
        self.failures.recovered(WORKS)
        first, second, last = self.captured.events
        self.assertEqual(formatEvent(second), "Collection failed")
        self.assertNotIn("failures", first)
        self.assertEqual((second["failures"], second["seconds"]), (2, 600.0))
        self.assertEqual((last["failures"], last["event"]), (2, "thing.recovered"))

    def test_a_traceback(self) -> None:
        """It comes with the line at its level, and not again at debug."""
        failure = Failure(ValueError("bad"))
        self.failures.failed(FAILED, failure=failure, error="bad")
        self.failures.failed(FAILED, failure=failure, error="bad")
        loud, quiet = self.captured.events
        self.assertEqual((loud["log_failure"], loud["event"]), (failure, "thing.failed"))
        self.assertNotIn("log_failure", quiet)

    def test_kinds_are_bounded(self) -> None:
        """Whatever a server makes up, the log and the memory stay small."""
        lines = [line for n in range(1000) for line in self.fail(kind=str(n))]
        self.assertEqual(len(lines), MAX_KINDS + 1)

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from("ab"), st.floats(0, 400))))
    def test_any_history(self, history: list[tuple[bool, str, float]]) -> None:
        """No two lines about one kind within ten minutes; and the log's last word comes true."""
        self.setUp()
        logged: dict[str, float] = {}
        for fails, kind, after in history:
            if fails:
                was_new = self.failures.settled
                lines = self.fail(kind, kind, after=after)
                now = self.clock.seconds()
                if lines and not was_new and kind in logged:
                    worked_long = now - logged[kind] >= REPEAT_AFTER
                    self.assertTrue(worked_long)
                if lines:
                    logged[kind] = now
            else:
                self.work(after=after)
        last: Any = self.work() or self.work(after=REPEAT_AFTER + 1)
        self.assertFalse(self.failures.failing)
        self.assertTrue(len(last) <= 1)
        self.work(after=REPEAT_AFTER + 1)
        self.assertTrue(self.failures.settled)


class ItemFailureLogTests(SynchronousTestCase):
    """Zones that fail, recover and disappear at known moments."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.captured = Captured()
        log = Logger("test", observer=self.captured)
        self.zones = ItemFailureLog(log, self.clock.seconds, "zone")

    def lines(self) -> list[str]:
        """Take the lines above debug that came since the last call."""
        events = [e for e in self.captured.events if e["log_level"] > LogLevel.debug]
        self.captured.events.clear()
        return [formatEvent(event) for event in events]

    def tick(self, after: float = 10.0, **zones: str) -> list[str]:
        """Let zones be there some time from now; each with its error, or an empty text."""
        self.clock.advance(after)
        for zone, error in zones.items():
            if error:
                self.zones.failed(zone, ZONE_FAILED, error, error=error)
            else:
                self.zones.recovered(zone, ZONE_WORKS)
        self.zones.removed(zones, ZONE_GONE)
        return self.lines()

    def test_each_item_has_its_own_lines(self) -> None:
        """A second item that fails is logged at once, however recently another was."""
        self.assertEqual(self.tick(gpu="EIO", npu=""), ["Zone gpu failed: EIO"])
        self.assertEqual(self.tick(gpu="EIO", npu="EIO"), ["Zone npu failed: EIO"])
        self.assertEqual(
            self.tick(gpu="", npu="EIO"), ["Zone gpu works again, after 20 s and 2 failures"]
        )

    def test_recovered_is_not_removed(self) -> None:
        """The line says which of the two ended the failure."""
        self.tick(gpu="EIO", npu="EIO")
        self.assertEqual(
            self.tick(gpu=""),
            [
                "Zone gpu works again, after 10 s and 1 failure",
                "Zone npu was removed, after 10 s and 1 failure",
            ],
        )
        self.assertEqual(self.tick(gpu=""), [])

    def test_an_item_that_alternates(self) -> None:
        """A day of it has one line in ten minutes, and not 2,880; a new kind is logged at once."""
        lines = [line for _ in range(4320) for line in self.tick(gpu="EINVAL") + self.tick(gpu="")]
        self.assertEqual(lines[1], "Zone gpu works again, after 10 s and 1 failure")
        flips = "Zone gpu failed: EINVAL; it failed and recovered 29 times meanwhile"
        self.assertEqual(set(lines[2:]), {flips})
        self.assertEqual(len(lines), 2 + 4320 // 30 - 1)
        self.assertEqual(len(self.tick(gpu="EIO")), 1)

    def test_what_is_calm_or_gone_is_forgotten(self) -> None:
        """Names that come and go for ever leave nothing behind."""
        for number in range(500):
            zones: Any = {f"usb{number}": "EIO", "gpu": "EIO" if number < 9 else ""}
            self.tick(**zones)
        self.assertLessEqual(len(self.zones._items), REPEAT_AFTER / 10 + 2)
        self.assertFalse(self.zones.settled)
        self.assertNotIn("gpu", self.zones._items)
        self.tick(after=REPEAT_AFTER)
        self.tick(after=REPEAT_AFTER)
        self.assertTrue(self.zones.settled)

    def test_items_are_bounded(self) -> None:
        """Beyond the bound all others have one line in ten minutes together; then it is as ever."""
        many: Any = {f"zone{number}": "EIO" for number in range(1000)}
        self.assertEqual(len(self.tick(**many)), MAX_ITEMS + 1)
        self.assertEqual(self.tick(**many), [])
        self.tick()
        self.tick(after=REPEAT_AFTER)
        self.assertEqual(len(self.tick(**many)), MAX_ITEMS + 1)

    def test_kinds(self) -> None:
        """An error's type, with the name that the system or SQLite has for it."""
        with closing(sqlite3.connect(":memory:")) as connection:
            refused = self.assertRaises(sqlite3.OperationalError, connection.execute, "?")
        for error, kind in [
            (ReadError("temp: Input/output error (EIO)", "EIO"), "ReadError EIO"),
            (ReadError("temp: larger than allowed"), "ReadError"),
            (ParseError("temp", "is empty"), "ParseError"),
            (FileNotFoundError(2, "No such file or directory"), "FileNotFoundError ENOENT"),
            (OSError("odd"), "OSError"),
            (sqlite3.OperationalError("made here"), "OperationalError"),
            (refused, "OperationalError SQLITE_ERROR"),
        ]:
            self.assertEqual(kind_of(error), kind)
