"""The contract of a collector: its interface to the scheduler, and the machine that it may use."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from belatwist.model import Sample
from belatwist.procfs.reader import Reader


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that a collector may use. A test makes a machine from fixture trees.

    :ivar device_id: names the device in every sample.
    :ivar procfs: the reader of ``/proc``.
    :ivar sysfs: the reader of ``/sys``.
    :ivar rng: makes numbers up, for sources that only pretend to measure.
    :ivar seconds: a monotonic clock; safe to use from any thread.
    """

    device_id: str
    procfs: Reader
    sysfs: Reader
    rng: random.Random
    seconds: Callable[[], float]


class Collector(Protocol):
    """A source of samples.

    The scheduler runs it off the reactor thread and never on two threads at once. A collector may
    raise anything: only the scheduler catches, logs and counts it.
    """

    @property
    def name(self) -> str:
        """The configuration's name of the source (``cpu.usage``)."""
        ...

    def collect(self, now_ms: int) -> Sequence[Sample]:
        """Read the source once.

        :param now_ms: Unix time in milliseconds; the timestamp of every sample returned.
        :return: the samples; none where the machine has no such hardware, or where a delta needs a
            second reading.
        """
        ...
