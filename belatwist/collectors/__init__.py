"""Collectors: one module a source, from kernel text to samples.

This module names what the scheduler needs of a collector; the table of all of them is in
:mod:`belatwist.collectors.registry`.
"""

from collections.abc import Sequence
from typing import Protocol

from belatwist.model import Sample


class Collector(Protocol):
    """One source of samples.

    It runs off the reactor thread and never on two threads at once. It may raise anything: the
    scheduler alone guards, counts and goes on.
    """

    @property
    def name(self) -> str:
        """The configuration's name of the source (``cpu.usage``)."""
        ...

    def collect(self, now_ms: int) -> Sequence[Sample]:
        """Read the source once.

        :param now_ms: Unix time in milliseconds; the timestamp of every sample returned.
        :return: the samples; none when there is nothing to report (no such hardware, or a delta
            that needs a second reading).
        """
        ...
