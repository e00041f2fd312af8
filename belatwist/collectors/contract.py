"""What a source declares, what it may use, and what its collector says.

A source is what a person would switch on, such as ``network.traffic``. Everything about it stands
in one module of this package, which ends with ``SOURCE = Source(...)``; the registry lists it.
"""

import os
import random
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import KW_ONLY, dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from belatwist.collectors.state import State
from belatwist.config import NoOptions, Section
from belatwist.errors import AbsentError, HiddenError
from belatwist.http.lazy import lazy_getter
from belatwist.metrics.metric import COUNTER, GAUGE, Metric
from belatwist.model import Sample, Series
from belatwist.procfs.reader import Reader

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IReactorFDSet,
        IReactorPluggableNameResolver,
        IReactorTCP,
        IReactorTime,
    )

    from belatwist.http.get import HttpGetter

    class Reactor(IReactorTime, IReactorTCP, IReactorFDSet, IReactorPluggableNameResolver):
        """The interfaces of the reactor that sources use."""


__all__ = [
    "COUNTER",
    "GAUGE",
    "AbsentError",
    "Collector",
    "EnabledSource",
    "HiddenError",
    "Machine",
    "Metric",
    "Options",
    "Source",
    "State",
]

Options = Section
"""The base class of a source's options. Their types say what is allowed, and their descriptions are
those of the documentation."""

_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", re.ASCII)
_DROP_IN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\.conf", re.ASCII)


class Collector(Protocol):
    """Reads one source. The scheduler never runs it twice at a time.

    It may raise anything: only the scheduler catches, logs and counts it. It may have an attribute
    ``left_out``: the names of items that it does not report, for health.

    A collector to which events come is a Twisted service (``IService``) as well. It is started
    before its first collection and stopped after its last, both on the reactor. ``startService``
    raises only where it has left nothing behind: it is called again when the source is due.
    """

    def collect(self, now_ms: int) -> "Sequence[Sample] | Coroutine[Any, Any, Sequence[Sample]]":
        """Yield what is known now.

        A plain function runs on a worker thread, a coroutine function on the reactor. Both are
        given up at the deadline.

        :param now_ms: the tick's Unix time in milliseconds, which the samples carry.
        :raises AbsentError: when this machine has no such thing.
        :raises HiddenError: when the agent is not allowed to look.
        """
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that a source may use. A test makes one from a fixture tree.

    :ivar device_id: names the device in every sample.
    :ivar procfs: the reader of ``/proc``.
    :ivar sysfs: the reader of ``/sys``.
    :ivar rng: makes numbers up, for sources that only pretend to measure.
    :ivar seconds: a monotonic clock; safe to use from any thread.
    :ivar load_reactor: returns the reactor, which is loaded as late as possible: most sources
        do without, and so does ``bela once`` with them.
    :ivar load_http: returns the maker of HTTP requests, which is loaded in the same way.
    :ivar statvfs: asks a file system, by a path in it, how full it is; may hang.
    """

    device_id: str
    procfs: Reader
    sysfs: Reader
    rng: random.Random
    seconds: Callable[[], float]
    load_reactor: "Callable[[], Reactor]"
    load_http: "Callable[[], HttpGetter]"
    statvfs: Callable[[bytes], os.statvfs_result]

    @classmethod
    def of(
        cls,
        device_id: str,
        *,
        procfs: Reader,
        sysfs: Reader,
        seconds: Callable[[], float],
        load_reactor: "Callable[[], Reactor]",
        ca_file: str | None = None,
    ) -> "Machine":
        """Make the machine that this program runs on.

        :param ca_file: PEM certificates that HTTP trusts instead of the system's.
        """
        return cls(
            device_id=device_id,
            procfs=procfs,
            sysfs=sysfs,
            rng=random.Random(),  # noqa: S311 - made-up numbers
            seconds=seconds,
            load_reactor=load_reactor,
            load_http=lazy_getter(load_reactor, ca_file),
            statvfs=os.statvfs,
        )

    @property
    def reactor(self) -> "Reactor":
        """The reactor, for sources that wait: its time is :attr:`seconds`."""
        return self.load_reactor()

    @property
    def http(self) -> "HttpGetter":
        """Makes HTTP requests within bounds, for sources whose ``collect`` is a coroutine."""
        return self.load_http()

    def series(self, metric: Metric, **tags: str) -> Series:
        """Return the series of a metric on this device; see :meth:`Metric.series`."""
        return metric.series(self.device_id, **tags)


@dataclass(frozen=True, slots=True)
class Source:
    """One source: all that the rest of the agent needs to know of it.

    :ivar name: the configuration's name of it.
    :ivar every: seconds between two collections, where the configuration gives none.
    :ivar make: makes its collector from a machine and its options.
    :ivar metrics: everything that the collector may yield.
    :ivar options: the type of its ``config``.
    :ivar default: whether it runs where the configuration has no ``metrics``.
    :ivar why_off: why it does not, for the documentation.
    :ivar drop_in: the file of ``systemd/metrics-collector.service.d/`` that gives the service what
        this source needs beyond the unit; ``None`` where the unit is enough. Names the source where
        only it has that need (``modem.hilink.conf``).
    :raises ValueError: for a name that the configuration cannot spell, or no name of a drop-in.
    """

    name: str
    every: float
    make: Callable[[Machine, Any], Collector]
    metrics: tuple[Metric, ...]
    _: KW_ONLY
    options: type[Options] = NoOptions
    default: bool = True
    why_off: str = ""
    drop_in: str | None = None

    def __post_init__(self) -> None:
        """Refuse bad names."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a source's name is like network.traffic, not {self.name!r}")
        if self.drop_in is not None and not _DROP_IN.fullmatch(self.drop_in):
            raise ValueError(f"a drop-in's name is like {self.name}.conf, not {self.drop_in!r}")


class EnabledSource(NamedTuple):
    """A source that the configuration enables.

    :ivar source: its declaration.
    :ivar collector: what reads it.
    :ivar every: seconds between two collections.
    """

    source: Source
    collector: Collector
    every: float

    @property
    def asynchronous(self) -> bool:
        """Whether the collector runs on the reactor."""
        return iscoroutinefunction(self.collector.collect)

    @property
    def pushed(self) -> bool:
        """Whether the collector is a service, to which events come."""
        return hasattr(self.collector, "startService")
