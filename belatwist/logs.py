"""Log observers: readable lines for people, JSON for machines."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

_LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
_COLOURS = {"debug": "\x1b[2m", "warn": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"}


@implementer(ILogObserver)
class LogOutput:
    """Writes events of a level and above to a stream or a file, one after the other.

    :param level: ``debug``, ``info``, ``warn`` or ``error``.
    :param form: ``json`` or ``console``.
    :param output: ``stdout``, ``stderr`` or the path of a file, which is appended to.
    :raises OSError: when the file cannot be opened.
    """

    def __init__(self, level: str, form: str, output: str) -> None:
        self._path = None if output in {"stdout", "stderr"} else output
        self._stream: IO[str]
        if self._path is None:
            self._stream = getattr(sys, output)
        else:
            self._stream = self._open(self._path)
        self._line = json_line if form == "json" else ConsoleLine(colour=self._stream.isatty())
        self._wanted = LogLevelFilterPredicate(defaultLogLevel=_LEVELS[level])
        if level == "info":
            # They tell of each connection that is opened and closed, and of odd answers.
            for chatty in ("client._HTTP11ClientFactory", "_newclient"):
                self._wanted.setLogLevelForNamespace(f"twisted.web.{chatty}", LogLevel.warn)

    def __call__(self, event: LogEvent) -> None:
        """Write an event, if its level is high enough."""
        if self._wanted(event) is not PredicateResult.no:
            self._stream.write(self._line(event) + "\n")
            self._stream.flush()

    def reopen(self) -> None:
        """Open the file anew, after it was moved away; a stream stays as it is.

        When that fails, the old file is written on.
        """
        if self._path is not None:
            old, self._stream = self._stream, self._open(self._path)
            old.close()

    def close(self) -> None:
        """Close the file; a stream stays open."""
        if self._path is not None:
            self._stream.close()

    @staticmethod
    def _open(path: str) -> IO[str]:
        return Path(path).open("a", encoding="utf-8", errors="backslashreplace")


def _moment(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def _level(event: LogEvent) -> str:
    level = event.get("log_level")
    return level.name if level is not None else "info"


def _failure_fields(event: LogEvent) -> dict[str, Any]:
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        return {}
    return {
        "error": failure.getErrorMessage(),
        "error_type": getattr(failure.type, "__name__", str(failure.type)),
        "stack": failure.getTraceback(),
    }


def _visible(text: str) -> str:
    """Show control characters as escapes: names from outside must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class ConsoleLine:
    """Formats an event for a person: time, level where it is not the usual one, text.

    :param colour: whether to use ANSI colours.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def __call__(self, event: LogEvent) -> str:
        """Return one line, and a traceback below it where there is one."""
        level = _level(event)
        clock = _moment(event).astimezone().strftime("%H:%M:%S")
        text = f"{clock} {level.upper():5} {_visible(formatEvent(event))}"
        fields = _failure_fields(event)
        if fields:
            text += f": {fields['error_type']}: {_visible(fields['error'])}"
            text += "".join(f"\n{_visible(line)}" for line in fields["stack"].splitlines())
        if self._colour and level in _COLOURS:
            text = f"{_COLOURS[level]}{text}\x1b[0m"
        return text


def json_line(event: LogEvent) -> str:
    """Return an event as a JSON object: ``time``, ``level``, ``msg``, then its own fields."""
    record: dict[str, Any] = {
        "time": _moment(event).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": _level(event).upper(),
        "msg": formatEvent(event),
        **_failure_fields(event),
    }
    for key, value in event.items():
        if not key.startswith("log_") and key not in record and key not in _LEGACY:
            record[key] = value
    return json.dumps(record, ensure_ascii=False, default=repr)


# What Twisted's older logging adds to an event.
_LEGACY = {"message", "isError", "system", "format", "time", "failure", "why"}
