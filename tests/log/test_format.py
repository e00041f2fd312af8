"""The two formats of a line."""

import json
import signal
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python import log as legacy
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from belatwist.log.format import ConsoleLine, json_line
from belatwist.text import Listed
from tests.log_events import Captured

MOMENT = 1_800_000_000.25

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=5,
)


class Unspeakable:
    """Has no representation."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def event(form: str | None, /, **fields: object) -> LogEvent:
    """Make an event as Twisted does."""
    return {
        **fields,
        "log_level": LogLevel.info,
        "log_namespace": "test",
        "log_format": form,
        "log_time": MOMENT,
    }


def legacy_events(*message: object, **fields: Any) -> LogEvent:
    """Return what Twisted's older logging makes of a message."""
    events: list[LogEvent] = []
    publisher = legacy.LogPublisher(publishPublisher=events.append)
    publisher.msg(*message, **fields)
    (one,) = events
    return one


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def strict(line: bytes) -> dict[str, Any]:
    """Read a line of JSON as a strict reader does: one object, no NaN, no key twice."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in found}) == len(found)
        return dict(found)

    def constant(text: str) -> None:
        raise AssertionError(text)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    read: dict[str, Any] = json.loads(line, object_pairs_hook=pairs, parse_constant=constant)
    return read


class JSONLineTests(SynchronousTestCase):
    """One object a line."""

    def field(self, value: object) -> Any:
        """Return the value of a field in JSON."""
        return strict(json_line(event("x", field=value)))["field"]

    def test_fields(self) -> None:
        """Time, level and message come first, then the event's own fields, in their order."""
        line = json_line(event("took {count}", path="/z", count=3, alpha=True))
        self.assertEqual(
            line,
            b'{"time":"2027-01-15T08:00:00.250000Z","level":"INFO","msg":"took 3","path":"/z",'
            b'"count":3,"alpha":true}\n',
        )

    def test_the_name_of_an_event(self) -> None:
        """The name follows the text, wherever it was among the fields."""
        line = json_line(event("took {count}", count=3, event="part.took"))
        self.assertEqual(list(strict(line)), ["time", "level", "msg", "event", "count"])

    def test_failure(self) -> None:
        """The failure's text, type and stack follow the event's own fields."""
        line = json_line(event("no", part="x", log_failure=Failure(ValueError("bad"))))
        record = strict(line)
        self.assertEqual(
            list(record), ["time", "level", "msg", "part", "error", "error_type", "stack"]
        )
        self.assertEqual((record["error"], record["error_type"]), ("bad", "ValueError"))
        self.assertIn("ValueError: bad", record["stack"])

    def test_a_list(self) -> None:
        """It is a list in JSON, and its texts on one line for people."""
        one = event("left out: {names}", names=Listed(["a", "\x1b[31m"]))
        record = strict(json_line(one))
        self.assertEqual(record["names"], ["a", "\x1b[31m"])
        self.assertEqual(record["msg"], r"left out: a; \u001b[31m")

    def test_an_event_that_names_its_error(self) -> None:
        """Its failure adds what is missing, and the error is there once, in the event's words."""
        failure = Failure(OSError(28, "No space left"))
        text = "Upload cycle failed: {error}"
        one = event(text, event="upload.cycle_failed", error="disk full", log_failure=failure)
        record = strict(json_line(one))
        self.assertEqual((record["error"], record["error_type"]), ("disk full", "OSError"))
        self.assertNotIn("field_error", record)
        self.assertIn("No space left", record["stack"])
        first = ConsoleLine(colour=False)(one).decode().splitlines()[0]
        self.assertTrue(first.endswith("Upload cycle failed: disk full"), first)

    def test_a_name_that_is_taken(self) -> None:
        """A field whose name is taken gets another name."""
        fields = {"time": 1, "level": 2, "msg": 3, "field_time": 4, "error": "ours"}
        record = strict(json_line(event("x", **fields, log_failure=Failure(ValueError("bad")))))
        self.assertEqual(record["msg"], "x")
        self.assertEqual(
            {key: value for key, value in record.items() if key.startswith(("field_", "error"))},
            {
                "field_time": 1,
                "field_level": 2,
                "field_msg": 3,
                "field_field_time": 4,
                "error": "ours",
                "field_error": "bad",
                "error_type": "ValueError",
            },
        )

    def test_values(self) -> None:
        """Values that JSON can represent stay; others become text."""
        for value, expected in (
            (1.5, 1.5),
            (2**64 - 1, 2**64 - 1),
            (2**64, str(2**64)),
            (True, True),
            (None, None),
            (float("nan"), "nan"),
            (float("-inf"), "-inf"),
            (b"\xc3\xbcber\xff", "über\\xff"),
            ("\udcff", "\\udcff"),
            (signal.SIGHUP, 1),
            ([1, "a", None], [1, "a", None]),
            ((1, {"a": 2.5}), [1, {"a": 2.5}]),
            ([float("nan")], [None]),
            (["\udcff"], "['\\udcff']"),
            ({(1, 2): 3, 4: 5}, {"(1, 2)": 3, "4": 5}),
            (Path("/a"), "PosixPath('/a')"),
            ([Path("/a")], ["PosixPath('/a')"]),
        ):
            self.assertEqual(self.field(value), expected)

    def test_values_that_resist(self) -> None:
        """A value without a representation, or a recursive or very deep one, spoils no line."""
        circle: list[object] = []
        circle.append(circle)
        self.assertIn("Unspeakable", self.field(Unspeakable()))
        self.assertIn("Unspeakable", self.field([Unspeakable()])[0])
        self.assertEqual(self.field(circle), "[[...]]")
        self.assertIn("list", self.field(nested(1_000_000)))
        self.assertIn("int", self.field(10**5000))

    def test_long_values_are_cut(self) -> None:
        """Fields and messages are cut to 8192 characters; a traceback keeps its end."""
        long = "a" * 8192 + "b"
        record = strict(json_line(event("{text}", text=long, data=long.encode(), stack=long)))
        self.assertEqual(record["msg"], "a" * 8191 + "…")
        self.assertEqual(record["text"], "a" * 8191 + "…")
        self.assertEqual(record["data"], "a" * 8191 + "…")
        self.assertEqual(record["stack"], "…" + "a" * 8190 + "b")
        self.assertEqual(self.field(["é" * 9000]), '["' + "é" * 8189 + "…")
        self.assertEqual(len(self.field({i: i for i in range(9000)})), 8192)

    def test_a_long_traceback_keeps_its_end(self) -> None:
        """The end is where the error is."""

        def fall(depth: int) -> None:
            if not depth:
                raise ValueError("deep")
            # Two that call each other, because repeated frames of one are shortened.
            stumble(depth - 1)

        def stumble(depth: int) -> None:
            fall(depth)

        try:
            fall(200)
        except ValueError:
            record = strict(json_line(event("x", log_failure=Failure())))
        self.assertTrue(record["stack"].startswith("…"))
        self.assertTrue(record["stack"].rstrip().endswith("ValueError: deep"))
        self.assertEqual(len(record["stack"]), 8192)

    @given(ANY_TEXT, ANYTHING)
    def test_any_value_is_one_strict_line(self, text: str, value: object) -> None:
        """Nothing in a value breaks the line or the object."""
        line = json_line(event("{text}", text=text, value=value, time=value))
        self.assertEqual(
            list(strict(line)), ["time", "level", "msg", "text", "value", "field_time"]
        )
        self.assertTrue(line.decode().removesuffix("\n").isprintable())

    def test_a_line_cannot_steer_a_terminal(self) -> None:
        """What steers a terminal is escaped; for a program the object is the same."""
        evil = "eth\x1b[31m\u202e\x7f\x9b\u200b"
        line = json_line(event("{name}", name=evil, names=[evil]))
        self.assertEqual(strict(line)["name"], evil)
        self.assertEqual(strict(line)["names"], [evil])
        self.assertTrue(line.decode().removesuffix("\n").isprintable())

    @given(ANY_TEXT)
    def test_any_format_is_one_strict_line(self, text: str) -> None:
        """A text that is not a valid format, such as one with a single brace, is still logged."""
        self.assertEqual(list(strict(json_line(event(text)))), ["time", "level", "msg"])


class TwistedsOwnEventsTests(SynchronousTestCase):
    """Twisted's own events, of its older and its newer logging."""

    def test_legacy_message(self) -> None:
        """Keys of the older logging are left out, and the event's own fields stay."""
        record = strict(json_line(legacy_events("hello", "there", port=9100)))
        self.assertEqual(list(record), ["time", "level", "msg", "port"])
        self.assertEqual(
            (record["level"], record["msg"], record["port"]), ("INFO", "hello there", 9100)
        )

    def test_legacy_error(self) -> None:
        """An error of the older logging has the same fields as one of the newer."""
        failure = Failure(ValueError("bad"))
        for why, message in (("it broke", "it broke"), (None, "Unhandled error")):
            record = strict(json_line(legacy_events(failure=failure, why=why, isError=1)))
            self.assertEqual(list(record), ["time", "level", "msg", "error", "error_type", "stack"])
            self.assertEqual((record["level"], record["msg"]), ("CRITICAL", message))
            self.assertEqual((record["error"], record["error_type"]), ("bad", "ValueError"))

    def test_no_format(self) -> None:
        """An event without a text has an empty one."""
        self.assertEqual(strict(json_line(event(None, a=1)))["msg"], "")

    def test_no_level(self) -> None:
        """An event without a level counts as information."""
        self.assertEqual(strict(json_line({"log_format": "x", "log_time": 0.0}))["level"], "INFO")

    def test_a_format_that_does_not_fit(self) -> None:
        """The text of an event with a wrong format names the mistake."""
        record = strict(json_line(event("{missing}", count=3)))
        self.assertIn("missing", record["msg"])
        self.assertEqual(record["count"], 3)


class ConsoleLineTests(SynchronousTestCase):
    """Lines for people."""

    def line(self, one: LogEvent) -> str:
        """Return an event's lines without time and level."""
        return ConsoleLine(colour=False)(one).decode()[15:-1]

    def test_plain(self) -> None:
        """A line has time of day, level and text, without the fields in the text."""
        line = ConsoleLine(colour=False)(event("took {count}", count=3, other=4)).decode()
        self.assertRegex(line, r"^\d\d:\d\d:\d\d INFO  took 3\n$")

    def test_a_constant_text_is_followed_by_its_fields(self) -> None:
        """The fields follow in their order, short, in quotes where their end would be unclear."""
        line = self.line(
            event(
                "Metrics collected",
                collector="cpu.usage",
                duration_ms=12.3,
                ratio=1 / 3,
                whole=2.0,
                tiny=0.00001234,
                count=8,
                busy=False,
                none=None,
                empty="",
                error='no "route" to host',
                url="http://h/?a=b",
                tags={"core": "0"},
            )
        )
        self.assertEqual(
            line,
            "Metrics collected collector=cpu.usage duration_ms=12.3 ratio=0.333 whole=2"
            ' tiny=1.234e-05 count=8 busy=false none=null empty=""'
            r' error="no \"route\" to host" url="http://h/?a=b" tags={"core":"0"}',
        )

    def test_the_name_of_an_event_is_for_programs(self) -> None:
        """A person reads the text, and the fields where that has no value in it."""
        self.assertEqual(self.line(event("took {count}", event="part.took", count=3)), "took 3")
        self.assertEqual(self.line(event("took", event="part.took", count=3)), "took count=3")

    def test_control_characters(self) -> None:
        """A name from outside cannot steer the terminal, nor begin a line of its own."""
        evil = "eth\x1b[31m\nroot\u202e\x7f\x9b"
        self.assertEqual(
            self.line(event("{name}", name=evil)), "eth\\u001b[31m\\nroot\\u202e\\u007f\\u009b"
        )
        self.assertEqual(
            self.line(event("x", name=evil, names=[evil])),
            'x name="eth\\u001b[31m\\nroot\\u202e\\u007f\\u009b"'
            ' names=["eth\\u001b[31m\\nroot\\u202e\\u007f\\u009b"]',
        )

    @given(ANYTHING)
    def test_any_field_is_one_printable_bounded_line(self, value: object) -> None:
        """Any value of a field gives one printable line of bounded length."""
        line = self.line(event("x", value=value))
        self.assertTrue(line.isprintable())
        self.assertLessEqual(len(line), 4000)

    def test_long_fields_are_cut(self) -> None:
        """A field is cut to 300 characters."""
        self.assertEqual(self.line(event("x", a="b" * 301)), f"x a={'b' * 299}…")

    def test_failure(self) -> None:
        """A traceback follows its line."""
        text = self.line(event("no", part="x", log_failure=Failure(ValueError("bad"))))
        first, *rest = text.split("\n")
        self.assertEqual(first, "no: ValueError: bad part=x")
        self.assertIn("builtins.ValueError: bad", rest[-1])

    def test_stack(self) -> None:
        """The field ``stack`` of an event follows the line, with any text."""
        for form, first in (
            ("Collection failed", "Collection failed error=bad"),
            ("{error}", "bad"),
        ):
            text = self.line(event(form, error="bad", stack="one\n\ttwo"))
            self.assertEqual(text, f"{first}\none\n\\ttwo")

    def test_colour(self) -> None:
        """The colour of a warning ends before the line does."""
        one = {**event("careful"), "log_level": LogLevel.warn}
        line = ConsoleLine(colour=True)(one)
        self.assertTrue(line.startswith(b"\x1b[33m"))
        self.assertTrue(line.endswith(b"\x1b[0m\n"))


class UnhandledTests(SynchronousTestCase):
    """Errors without a handler."""

    def test_the_second_event_of_a_lost_error_has_a_text(self) -> None:
        """Twisted's event with the failure has no text of its own."""
        one = {
            **event("", debugInfo="", log_failure=Failure(ValueError("bad"))),
            "log_namespace": "twisted.internet.defer",
        }
        record = strict(json_line(one))
        self.assertEqual(record["msg"], "Unhandled error in Deferred")
        self.assertEqual(record["error"], "bad")

    def test_logger_failure(self) -> None:
        """An event of ``Logger.failure`` has its own fields and the failure's."""
        captured = Captured()
        try:
            raise KeyError("k")
        except KeyError:
            Logger("x", observer=captured).failure("cannot {what}", what="go")
        record = strict(json_line(captured.events[0]))
        self.assertEqual((record["level"], record["msg"]), ("CRITICAL", "cannot go"))
        self.assertEqual((record["what"], record["error_type"]), ("go", "KeyError"))
