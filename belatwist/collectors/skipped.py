"""Logs the lines that a parser left out."""

from collections.abc import Callable

from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.text import Listed

LINES_SKIPPED = Event(
    "collector.lines_skipped",
    LogLevel.warn,
    "Lines of {path} that are not as documented are left out: {lines}",
    cure="Report the lines: this kernel writes them in a way that belatwist does not know.",
)
LINES_COMPLETE = Event(
    "collector.lines_complete", LogLevel.info, "All lines of {path} are as documented again"
)


class SkippedLines:
    """Logs the unusable lines of one file.

    :param path: the file, as an operator would name it.
    :param log: the collector's log.
    :param seconds: a monotonic clock.
    """

    def __init__(self, path: str, log: Logger, seconds: Callable[[], float]) -> None:
        self._path = path
        self._failures = FailureLog(log, seconds)

    def report(self, lines: tuple[str, ...]) -> None:
        """Log that there are such lines, or that there are none any more.

        :param lines: quotations. They differ at each reading, because counters move, and so they
            are no kinds of failure.
        """
        if lines:
            self._failures.failed(LINES_SKIPPED, path=self._path, lines=Listed(lines))
        else:
            self._failures.recovered(LINES_COMPLETE, path=self._path)
