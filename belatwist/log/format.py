"""The two formats of the log's lines: JSON for programs, text for people."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_repr, safe_str

from belatwist.text import escape, shorten

_COLOURS = {"debug": "\x1b[2m", "warn": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}

# Twisted's older logging adds these keys to an event. Its events have the key isError.
_LEGACY = {"message", "isError", "system", "format", "time", "failure", "why"}

_MAX_LENGTH = 8192
"""Maximum number of characters of a field or a message."""

_MAX_SHOWN = 300
"""Maximum number of characters of a field on the console."""

# twisted.logger adds these keys to an event. A field of ours may begin with log_ as well.
_TWISTED = {
    f"log_{name}"
    for name in (
        "failure",
        "flattened",
        "format",
        "io",
        "isError",
        "legacy",
        "level",
        "logger",
        "namespace",
        "source",
        "system",
        "text",
        "time",
        "trace",
    )
}

# What a failure adds to a line, unless the event says it itself.
_FAILURE_FIELDS = {"error", "error_type", "stack"}

_json = msgspec.json.Encoder(enc_hook=safe_repr)


def json_line(event: LogEvent) -> bytes:
    """Return an event as a JSON object: ``time``, ``level``, ``msg``, ``event``, then its fields.

    Events of libraries have no name, and so no ``event``. A field whose name is already taken gets
    the name ``field_…``. Where an event has an ``error`` of its own, its failure adds no other.
    """
    record: dict[str, Any] = {
        "time": _moment(event).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": _level(event).upper(),
        "msg": _message(event),
    }
    fields = dict(_fields(event))
    if "event" in fields:
        record["event"] = fields.pop("event")
    for key, value in (*fields.items(), *_failure_fields(event)):
        name = key
        if "event" in record and key in _FAILURE_FIELDS and key in record:
            continue  # The event has it in words of its own.
        while name in record:
            name = f"field_{name}"
        record[name] = value
    try:
        line = _json.encode(record)
    except UnicodeEncodeError:  # Half a surrogate pair, as in a file name that is no UTF-8.
        line = _json.encode({escape(key): _encodable(value) for key, value in record.items()})
    return f"{escape(line.decode())}\n".encode()


class ConsoleLine:
    """Formats an event for people: time, level, text, and fields that the text leaves out.

    The fields follow a text that contains none of them. A stack follows on further lines.

    :param colour: whether to use ANSI colours.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, event: LogEvent) -> bytes:
        """Return one line, and a traceback below it if the event has one."""
        level = _level(event)
        clock = _moment(event).astimezone().strftime("%H:%M:%S")
        text = f"{clock} {level.upper():5} {escape(_message(event))}"
        fields = dict(_fields(event))
        stack = fields.pop("stack", "")
        failure = dict(_failure_fields(event))
        if failure:
            stack = failure["stack"]
        if failure and ("event" not in fields or "error" not in fields):
            text += f": {failure['error_type']}: {escape(failure['error'])}"
        fields.pop("event", None)
        if _constant(event) is not None:
            text += "".join(f" {escape(key)}={_shown(value)}" for key, value in fields.items())
        if isinstance(stack, str):
            text += "".join(f"\n{escape(line)}" for line in stack.splitlines())
        if self._colour and level in _COLOURS:
            text = f"{_COLOURS[level]}{text}\x1b[0m"
        return f"{text}\n".encode()


def _moment(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return "info" if level is None else str(level.name)


def _failure(event: LogEvent) -> Failure | None:
    failure = event.get("log_failure", event.get("failure") if "isError" in event else None)
    return failure if isinstance(failure, Failure) else None


def _constant(event: LogEvent) -> str | None:
    """Return the text of an event, if the text contains no field."""
    form = event.get("log_format")
    return form if isinstance(form, str) and "{" not in form and "}" not in form else None


def _message(event: LogEvent) -> str:
    if "log_failure" not in event and _failure(event) is not None:
        # An event of log.err(). Its own text would repeat the traceback.
        return _cut(safe_str(event.get("why") or "Unhandled error"))
    text = _constant(event)
    if text == "" and event.get("log_namespace") == "twisted.internet.defer":
        # The second event of a lost error. LogOutput leaves out the first, which only announces it.
        return "Unhandled error in Deferred"
    return _cut(formatEvent(event) if text is None else text)


def _fields(event: LogEvent) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an event, in their order."""
    foreign = _LEGACY if "isError" in event else ()
    for key, value in event.items():
        if key not in _TWISTED and key not in foreign:
            yield key, _plain(value, end=key == "stack")


def _failure_fields(event: LogEvent) -> Iterator[tuple[str, str]]:
    failure = _failure(event)
    if failure is not None:
        yield "error", _cut(safe_str(failure.value))
        yield "error_type", getattr(failure.type, "__name__", str(failure.type))
        yield "stack", _cut(failure.getTraceback(), end=True)


def _plain(value: object, *, end: bool = False) -> Any:
    """Return a value that JSON can represent. A long one becomes text, which is cut.

    :param end: whether to keep the end of the text instead of its beginning.
    """
    if type(value) is str:
        return _cut(value, end=end)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, (list, tuple, dict)):
        try:
            encoded = _json.encode(value)
        except (ValueError, TypeError, RecursionError):
            encoded = _json.encode(_cut(safe_repr(value)))
        return msgspec.Raw(encoded) if len(encoded) <= _MAX_LENGTH else _cut(encoded.decode())
    return _cut(_text(value), end=end)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return safe_str(value) if isinstance(value, str) else safe_repr(value)


def _cut(text: str, *, end: bool = False) -> str:
    return shorten(text, _MAX_LENGTH, end=end)


def _encodable(value: object) -> object:
    return escape(value, keep="\r\n\t") if isinstance(value, str) else value


def _shown(value: Any) -> str:
    """Return a field's value in few characters, in quotes where its end would be unclear."""
    if isinstance(value, float):
        exact = 0.001 <= abs(value) < 1e15
        return f"{value:.3f}".rstrip("0").rstrip(".") if exact else f"{value:g}"
    if not isinstance(value, str):
        return escape(shorten(_json.encode(value).decode(), _MAX_SHOWN))
    text = shorten(value, _MAX_SHOWN)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return escape(json.dumps(text, ensure_ascii=False))
