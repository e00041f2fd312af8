"""Captures what is logged."""

from types import TracebackType

from constantly import NamedConstant
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer


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
