"""What holds in every test."""

import sys
from collections.abc import Iterator

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from belatwist.log.events import COMMON_FIELDS, Event

# What Twisted adds for the observers of its older logging, while a test runner has one.
_LEGACY = {"message", "isError", "system", "format", "time", "failure", "why"}


def declared(name: str) -> Event | None:
    """Find an event among those that the package's modules declare."""
    for module in [m for key, m in sys.modules.items() if key.startswith("belatwist.")]:
        for value in vars(module).values():
            if isinstance(value, Event) and value.name == name:
                return value
    return None


@implementer(ILogObserver)
class UndeclaredFields:
    """Notes the events that have other fields than they declare."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._known: dict[str, Event | None] = {}

    def __call__(self, event: LogEvent) -> None:
        name = event.get("event")
        if not isinstance(name, str):
            return
        if name not in self._known:
            self._known[name] = declared(name)
        if (known := self._known[name]) is not None:
            fields = {key for key in event if not key.startswith("log_")}
            if more := fields - COMMON_FIELDS - _LEGACY - set(known.fields):
                self.found.append(f"{name}: {sorted(more)}")


_observer = UndeclaredFields()


@pytest.fixture(autouse=True)
def events_are_as_declared() -> Iterator[None]:
    """Fail a test in which an event is logged with a field that it does not declare."""
    globalLogPublisher.addObserver(_observer)
    yield
    globalLogPublisher.removeObserver(_observer)
    found, _observer.found = _observer.found, []
    assert found == []
