"""What holds in every test."""

import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from belatwist.log.events import COMMON_FIELDS, Event

# How long an example takes depends on the machine, and the first text in a fresh checkout waits for
# Hypothesis's table of Unicode.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

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

STARTS = {
    *("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec"),
    "os.system",
}
"""Audit events with which Python starts a process."""


class Processes:
    """Keeps a test that is not marked ``process`` from starting one.

    :ivar forbidden: whether such a test runs.
    :ivar started: what it tried to start.
    """

    def __init__(self) -> None:
        self.forbidden = False
        self.started: str | None = None

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        """Refuse to start a process."""
        if self.forbidden and event in STARTS:
            self.started = f"{event} {arguments[:2]}"
            raise RuntimeError(f"only a test marked process starts one: {self.started}")


_processes = Processes()
sys.addaudithook(_processes.audit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Forbid processes to a test that is not marked, and to the fixtures that it sets up."""
    _processes.forbidden = item.get_closest_marker("process") is None
    try:
        return (yield)
    finally:
        _processes.forbidden = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, object, object]:
    """Fail a test that has passed over the refusal."""
    result = yield
    started, _processes.started = _processes.started, None
    assert started is None, f"mark the test process: {started}"
    return result


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a ``TestCase`` that runs the reactor by itself: pytest-twisted runs it already."""
    for item in items:
        case = getattr(item, "cls", None)
        if case is not None and issubclass(case, TestCase):
            raise pytest.UsageError(f"{item.nodeid}: take SynchronousTestCase or pytest_twisted")


@pytest.fixture(autouse=True)
def events_are_as_declared() -> Iterator[None]:
    """Fail a test in which an event is logged with a field that it does not declare."""
    globalLogPublisher.addObserver(_observer)
    yield
    globalLogPublisher.removeObserver(_observer)
    found, _observer.found = _observer.found, []
    assert found == []
