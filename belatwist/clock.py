"""The wall clock, which stamps samples. Timers run on the reactor's, which is monotonic."""

import time
from collections.abc import Callable

WallClock = Callable[[], int]
"""Gives Unix time in milliseconds."""


def wall_ms() -> int:
    """Return Unix time in milliseconds, from the system's clock."""
    return time.time_ns() // 1_000_000
