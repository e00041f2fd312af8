"""When a trouble is worth a loud line in the log: not each time, where it comes and goes."""

from collections.abc import Callable
from dataclasses import dataclass

CALM = 600.0
"""Seconds after the end of a trouble within which the next one is not told of at once."""

LASTS = 60.0
"""Seconds after which it is told of all the same."""


@dataclass(frozen=True, slots=True)
class Over:
    """A trouble that has ended.

    :ivar seconds: how long it lasted.
    :ivar failures: how often it showed.
    :ivar loud: whether it was told of loudly; then its end should be as well.
    """

    seconds: float
    failures: int
    loud: bool


class Trouble:
    """Something that fails again and again, until it works.

    The first failure is loud and the following ones are not. After its end a new trouble has to
    last, before it is told of: what fails every other second would fill the log.

    :param seconds: a monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._failures = 0
        self._loud = False
        self._calm_until = 0.0

    @property
    def loud(self) -> bool:
        """Whether the present trouble was told of loudly."""
        return self._since is not None and self._loud

    def fails(self) -> bool:
        """Take note of a failure; returns whether it is to be told of loudly."""
        now = self._seconds()
        if self._since is None:
            self._since, self._failures, self._loud = now, 0, False
        self._failures += 1
        if self._loud or (now < self._calm_until and now - self._since < LASTS):
            return False
        self._loud = True
        return True

    def works(self) -> Over | None:
        """Take note that it works; returns what is over, ``None`` when nothing was wrong."""
        if self._since is None:
            return None
        now = self._seconds()
        over = Over(round(now - self._since, 1), self._failures, self._loud)
        self._since = None
        self._calm_until = now + CALM
        return over
