"""What was logged, as a machine reads it: the level and the fields of each event."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any

from constantly import NamedConstant
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from belatwist.log.events import singular


@implementer(ILogObserver)
class Captured:
    """Keeps every event that is logged within its ``with`` block."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)

    def __enter__(self) -> "Captured":
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        globalLogPublisher.removeObserver(self)

    def texts(self, level: NamedConstant) -> list[str]:
        """Return the texts of one level's events."""
        return [formatEvent(e) for e in self.events if e.get("log_level") is level]


def shown(events: Iterable[LogEvent]) -> list[str]:
    """Return the texts of the events that a log at level info shows."""
    return [formatEvent(e) for e in events if e["log_level"] >= LogLevel.info]


# What Twisted adds for the observers of its older logging, while a test runner has one.
_LEGACY = {"message", "isError", "system", "format", "time"}

Logged = tuple[str, dict[str, Any]]


def logged(log: Captured, message: str) -> list[Logged]:
    """Return level and fields of the events whose message, unformatted, begins with a text."""
    return [
        (
            event["log_level"].name,
            {k: v for k, v in event.items() if not k.startswith("log_") and k not in _LEGACY},
        )
        for event in log.events
        if str(event.get("log_format")).startswith(singular(message, event))
    ]


def levels(log: Captured, message: str) -> list[str]:
    """Return the levels of the events whose message, unformatted, begins with a text."""
    return [level for level, _ in logged(log, message)]
