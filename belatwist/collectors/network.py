"""The traffic of each network interface.

Source: ``/proc/net/dev`` (net/core/net-procfs.c).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

from msgspec import Meta
from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import COUNTER, Machine, Metric, Options, Source
from belatwist.collectors.skipped import SkippedLines
from belatwist.config.values import NamePattern
from belatwist.errors import AbsentError, ParseError
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog, ItemFailureLog
from belatwist.model import Sample, Series, sample
from belatwist.procfs import text
from belatwist.text import first_of

DEFAULT_EXCLUSIONS = (
    "lo",
    "docker.*",
    "veth.*",
    "br-.*",
    "wlan.*mon",
    "virbr.*",
    "l4tbr.*",
    "dummy.*",
    "ifb.*",
    "sit.*",
)
"""Interfaces that do not lead outside the machine. Modems and tethered phones (``wwan*``, ``usb*``,
``enx*``) are not among them: on this device they are the uplinks."""

COUNTERS_FELL = Event(
    "network.counters_fell",
    LogLevel.warn,
    "Counters of {interface} went backwards"
    " (bytes received: {rx_bytes_delta}, sent: {tx_bytes_delta})",
    cure="None is needed where a modem was plugged in again. Otherwise dmesg shows its driver's"
    " errors.",
)
COUNTERS_RISE = Event(
    "network.counters_rise", LogLevel.debug, "Counters of {interface} went forwards again"
)
INTERFACE_REMOVED = Event(
    "network.interface_removed", LogLevel.debug, "Interface {interface} was removed"
)
LIMIT_HIT = Event(
    "network.limit_hit",
    LogLevel.warn,
    "More interfaces than {limit}, left out: {names}",
    cure="Raise max_interfaces in the config of network.traffic, or exclude interfaces there.",
)
LIMIT_KEPT = Event("network.limit_kept", LogLevel.info, "No interface is left out any more")

_NAMES = 256
_LISTED = 20

METRICS = tuple(
    Metric(f"network.{name}_total", COUNTER, unit, meaning, tags=("interface",))
    for name, unit, meaning in (
        ("rx_bytes", "bytes", "Bytes received."),
        ("rx_packets", "packets", "Packets received."),
        ("rx_errors", "errors", "Errors on receiving."),
        ("tx_bytes", "bytes", "Bytes sent."),
        ("tx_packets", "packets", "Packets sent."),
        ("tx_errors", "errors", "Errors on sending."),
    )
)
"""In the order of :class:`InterfaceCounters`."""

DROPPED = Metric(
    "network.interfaces_dropped_total",
    COUNTER,
    "interfaces",
    "Interfaces left out because of max_interfaces, counted at each collection.",
)

_COLUMNS = (
    b"face |bytes packets errs drop fifo frame compressed multicast"
    b"|bytes packets errs drop fifo colls carrier compressed"
)
# A name has at most 15 bytes (IFNAMSIZ). It ends at the last colon before the numbers, because an
# alias has a colon of its own, and old kernels wrote no space after it.
_INTERFACE = re.compile(
    (
        rb" *([^\s\0]{1,15}): *(N) +(N) +(N) +N +N +N +N +N"
        rb" +(N) +(N) +(N) +N +N +N +N +N"
    ).replace(b"N", text.DIGITS)
)


class InterfaceCounters(NamedTuple):
    """The counters of one interface since it appeared."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int


class NetworkTrafficOptions(Options, frozen=True, kw_only=True):
    """The options of ``network.traffic``."""

    include_ifaces: Annotated[
        tuple[NamePattern, ...],
        Meta(
            max_length=64, description="Interfaces to report. Empty: all except the excluded ones."
        ),
    ] = ()
    exclude_ifaces: Annotated[
        tuple[NamePattern, ...] | None,
        Meta(
            max_length=64,
            description="Interfaces not to report. `null`: loopback, container, bridge, tunnel and "
            "monitor interfaces. A list replaces these.",
        ),
    ] = None
    max_interfaces: Annotated[
        int,
        Meta(ge=1, le=1000, description="Maximum number of interfaces; each has six series."),
    ] = 32


@dataclass(frozen=True, slots=True)
class NetDev:
    """All interfaces of this network namespace, the loopback included.

    :ivar interfaces: interface name to its counters, in the kernel's order.
    :ivar skipped: quotations of the lines that could not be used.
    """

    interfaces: Mapping[str, InterfaceCounters]
    skipped: tuple[str, ...] = ()


def parse(content: bytes) -> NetDev:
    """Parse ``/proc/net/dev``.

    Of an interface listed twice the first line counts. The kernel writes the table page by page,
    and an interface that comes or goes meanwhile can shift another one onto two pages.

    :raises ParseError: when the two header lines are not as documented: then the columns might have
        other meanings.
    """
    complete, unusable = text.lines(content)
    if len(complete) < 2 or b" ".join(complete[1].split()) != _COLUMNS:
        raise ParseError("/proc/net/dev", f"no known header in '{text.quote(content)}'")
    interfaces = text.table(_INTERFACE, complete[2:], InterfaceCounters._make, unusable)
    return NetDev(interfaces, text.quote_lines(unusable))


@dataclass(slots=True)
class _Interface:
    """A reported interface, with its last counters for the next comparison."""

    series: tuple[Series, ...]
    last: InterfaceCounters


class NetworkTraffic:
    """``network.*_total`` of each interface that is wanted.

    An interface is wanted when no exclusion matches its whole name and, where there are inclusions,
    one of them does. The collector reports at most ``max_interfaces`` at a time, and each for as
    long as it is there.

    Each wanted interface that is left out counts at each collection in
    ``network.interfaces_dropped_total``. That series begins when the limit is hit for the first
    time. It rises at each collection while the limit is exceeded, so that PromQL's ``increase()``
    shows the condition although the first step is before the series' start.

    Counters are stored as the kernel has them, also when they went backwards: that tells PromQL's
    ``rate()`` of a reset.

    :param machine: the machine to measure.
    :param options: which interfaces to report, and how many.
    :ivar left_out: the first of the interfaces that are wanted and beyond the limit.
    """

    _log = Logger()

    def __init__(self, machine: Machine, options: NetworkTrafficOptions) -> None:
        self._machine = machine
        self._procfs = machine.procfs
        self._include = [re.compile(pattern) for pattern in options.include_ifaces]
        exclude = options.exclude_ifaces
        if exclude is None:
            exclude = DEFAULT_EXCLUSIONS
        self._exclude = [re.compile(pattern) for pattern in exclude]
        # The names are nearly always those of the last reading.
        self._wants = lru_cache(_NAMES)(self._matches)
        self._max_interfaces = options.max_interfaces
        self.left_out: tuple[str, ...] = ()
        self._interfaces: dict[str, _Interface] = {}
        self._dropped = machine.series(DROPPED)
        self._dropped_total = 0
        self._skipped = SkippedLines("/proc/net/dev", self._log, machine.seconds)
        self._falls = ItemFailureLog(self._log, machine.seconds, "interface")
        self._limit_hits = FailureLog(self._log, machine.seconds)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/net/dev``.

        :raises AbsentError: when there is no wanted interface.
        :raises BelaError: when it cannot be read.
        """
        reading = parse(self._procfs.read("net/dev"))
        self._skipped.report(reading.skipped)
        wanted = {name: c for name, c in reading.interfaces.items() if self._wants(name)}
        self._admit(wanted)
        samples: list[Sample] = []
        for name, interface in self._interfaces.items():
            counters = wanted[name]
            self._compare(name, interface.last, counters)
            interface.last = counters
            samples.extend(
                sample(series, now_ms, value)
                for series, value in zip(interface.series, counters, strict=True)
            )
        self._falls.removed(self._interfaces, INTERFACE_REMOVED)
        if self._dropped_total > 0:
            samples.append(sample(self._dropped, now_ms, self._dropped_total))
        if not self._interfaces and not samples:
            raise AbsentError(
                "/proc/net/dev has no interface that include_ifaces and exclude_ifaces let through"
            )
        return samples

    def _matches(self, name: str) -> bool:
        if any(pattern.fullmatch(name) for pattern in self._exclude):
            return False
        return not self._include or any(pattern.fullmatch(name) for pattern in self._include)

    def _admit(self, wanted: Mapping[str, InterfaceCounters]) -> None:
        """Drop interfaces that are gone, admit new ones in the kernel's order, count the others."""
        interfaces = {name: i for name, i in self._interfaces.items() if name in wanted}
        left_out: list[str] = []
        for name, counters in wanted.items():
            if name in interfaces:
                continue
            if len(interfaces) >= self._max_interfaces:
                left_out.append(name)
                continue
            series = tuple(self._machine.series(metric, interface=name) for metric in METRICS)
            interfaces[name] = _Interface(series, counters)
        self._interfaces = interfaces
        self.left_out = first_of(left_out, _LISTED)
        self._dropped_total += len(left_out)
        if left_out:
            self._limit_hits.failed(LIMIT_HIT, limit=self._max_interfaces, names=left_out[:10])
        else:
            self._limit_hits.recovered(LIMIT_KEPT)

    def _compare(self, name: str, last: InterfaceCounters, now: InterfaceCounters) -> None:
        """Log whether any counter of an interface went backwards."""
        if all(a <= b for a, b in zip(last, now, strict=True)):
            self._falls.recovered(name, COUNTERS_RISE)
            return
        self._falls.failed(
            name,
            COUNTERS_FELL,
            rx_bytes_delta=now.rx_bytes - last.rx_bytes,
            tx_bytes_delta=now.tx_bytes - last.tx_bytes,
        )


SOURCE = Source(
    "network.traffic", 10.0, NetworkTraffic, (*METRICS, DROPPED), options=NetworkTrafficOptions
)
