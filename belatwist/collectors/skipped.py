"""Reporting lines that a parser left out: when that begins and when it ends, not at every tick."""

from twisted.logger import Logger


class SkippedLines:
    """Logs the lines of one source that cannot be used.

    :param log: the collector's log.
    """

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._any = False

    def report(self, skipped: tuple[str, ...]) -> None:
        """Log that there are such lines, or that there are none any more.

        :param skipped: quotations of the lines. They may differ at each reading, because counters
            move; only whether there are any is news.
        """
        if bool(skipped) == self._any:
            return
        self._any = bool(skipped)
        if skipped:
            self._log.warn("Lines not as documented are left out: {lines}", lines=skipped)
        else:
            self._log.info("All lines are as documented again")
