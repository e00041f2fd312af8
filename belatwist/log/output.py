"""The log: from Twisted's events, and those of the standard library, to lines of a file."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import implementer

from belatwist.log.events import Event
from belatwist.log.file import LogFile
from belatwist.log.format import ConsoleLine, json_line

_LEVELS = {level.name: level for level in LogLevel.iterconstants()}

ROTATION_FAILED = Event(
    "log.rotation_failed",
    LogLevel.warn,
    "Log file cannot be rotated: {error}",
    cure="Give the service's user write access to the folder of logging.output. Until then the file"
    " grows.",
)
LINES_LOST = Event(
    "log.lines_lost",
    LogLevel.warn,
    "Log could not be written for {seconds:.0f} s (lines lost: {lost}): {error}",
    cure="Free space on the disk of logging.output, or write to stdout and let journald keep it.",
)

# They log each connection that is opened and closed, and odd answers.
_CHATTY = ("twisted.web.client._HTTP11ClientFactory", "twisted.web._newclient")

# Twisted logs a lost error as two events. The first one only announces the second.
_ANNOUNCEMENT = "Unhandled error in Deferred:"


@implementer(ILogObserver)
class LogOutput:
    """Writes the events of a level and above, each as a line, to a stream or a file.

    The output counts the lines that it cannot write, and raises nothing: a full disk must not stop
    the service. The next line that it can write is preceded by their number.

    :param level: ``debug``, ``info``, ``warn`` or ``error``.
    :param form: ``json`` or ``console``.
    :param output: ``stdout``, ``stderr`` or the path of a file; new lines are appended.
    :param max_bytes: the size at which the output rotates the file; ``None`` for never.
    :raises OSError: when the output cannot be opened.
    """

    def __init__(self, level: str, form: str, output: str, *, max_bytes: int | None = None) -> None:
        self._file = LogFile(output, max_bytes=max_bytes)
        colour = self._file.terminal and not os.environ.get("NO_COLOR")
        self._line: Callable[[LogEvent], bytes] = (
            json_line if form == "json" else ConsoleLine(colour=colour)
        )
        self._dropped = {other for other in LogLevel.iterconstants() if other < _LEVELS[level]}
        self._dropped_if_chatty = LogLevel.info if level == "info" else None
        self._lost = 0
        self._lost_since = 0.0
        self._error = ""
        # Reentrant: wherever memory is allocated, a Deferred may be collected and log its error.
        self._lock = threading.RLock()

    def __call__(self, event: LogEvent) -> None:
        """Write an event if its level is high enough."""
        level = event.get("log_level")
        if level in self._dropped or event.get("log_format") == _ANNOUNCEMENT:
            return
        if level is self._dropped_if_chatty and event.get("log_namespace", "").startswith(_CHATTY):
            return
        line = self._line(event)
        with self._lock:
            self._write(line)

    @property
    def lost(self) -> int:
        """How many lines were lost since the last one that was written."""
        return self._lost

    def reopen(self) -> None:
        """Open the file again after another program has moved it; a stream stays as it is.

        :raises OSError: when that fails. Lines then go on into the old file.
        """
        with self._lock:
            self._file.reopen()

    def close(self) -> None:
        """Close the file; a stream stays open."""
        with self._lock:
            self._file.close()

    def _write(self, line: bytes) -> None:
        if self._file.due(len(line)):
            try:
                self._file.rotate()
            except OSError as error:
                line = self._own_line(ROTATION_FAILED, error=str(error)) + line
        if self._lost:
            seconds = round(time.monotonic() - self._lost_since, 1)
            line = (
                self._own_line(LINES_LOST, lost=self._lost, seconds=seconds, error=self._error)
                + line
            )
        try:
            self._file.write(line)
        except OSError as error:
            if not self._lost:
                self._lost_since = time.monotonic()
            self._lost += 1
            self._error = str(error)
        else:
            self._lost = 0

    def _own_line(self, event: Event, **fields: object) -> bytes:
        """Return a line about the log itself. Emitting it would come back here."""
        return self._line(
            {
                "log_time": time.time(),
                "log_level": event.level,
                "log_format": event.text,
                "event": event.name,
                **fields,
            }
        )


class StdlibHandler(logging.Handler):
    """Emits the records of the standard library's logging, such as asyncio's, as Twisted events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Emit a record as an event."""
        fields: dict[str, Any] = {}
        try:
            fields["log_text"] = record.getMessage()
        except Exception:  # noqa: BLE001 - its arguments may not fit its text, or may fail to format
            fields["log_text"] = safe_str(record.msg)
        if record.exc_info and record.exc_info[1]:
            kind, error, trace = record.exc_info
            fields["log_failure"] = Failure(error, kind, trace)
        Logger(record.name).emit(_from_stdlib(record.levelno), "{log_text}", **fields)


def _from_stdlib(number: int) -> Any:
    known = (
        (logging.CRITICAL, LogLevel.critical),
        (logging.ERROR, LogLevel.error),
        (logging.WARNING, LogLevel.warn),
        (logging.INFO, LogLevel.info),
    )
    return next((level for least, level in known if number >= least), LogLevel.debug)
