"""What was logged, as a machine reads it: the level and the fields of each event."""

from typing import Any

from tests.logs import Captured

# What Twisted adds for the observers of its older logging, while a test runner has one.
_LEGACY = {"message", "isError", "system", "format", "time"}

Told = tuple[str, dict[str, Any]]


def told(log: Captured, message: str) -> list[Told]:
    """Return level and fields of the events whose message, unformatted, begins with a text."""
    return [
        (
            event["log_level"].name,
            {k: v for k, v in event.items() if not k.startswith("log_") and k not in _LEGACY},
        )
        for event in log.events
        if str(event.get("log_format")).startswith(message)
    ]


def levels(log: Captured, message: str) -> list[str]:
    """Return the levels of the events whose message, unformatted, begins with a text."""
    return [level for level, _ in told(log, message)]
