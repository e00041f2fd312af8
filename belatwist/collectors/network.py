"""The traffic of each network interface, and which device it is.

Sources: ``/proc/net/dev``, see :mod:`belatwist.collectors.netdev`, and ``/sys/class/net``, see
:mod:`belatwist.collectors.interfaces`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from msgspec import Meta
from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import COUNTER, GAUGE, Machine, Metric, Options, Source
from belatwist.collectors.interfaces import Interfaces, NetworkDevice
from belatwist.collectors.netdev import InterfaceCounters, NetDev, parse
from belatwist.collectors.skipped import SkippedLines
from belatwist.config.values import NamePattern
from belatwist.errors import AbsentError
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog, ItemFailureLog
from belatwist.model import Sample, Series, sample
from belatwist.procfs.reader import TooLargeError
from belatwist.text import Listed, first_of

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
TABLE_CUT = Event(
    "network.table_cut",
    LogLevel.warn,
    "Interfaces behind the first {count} are left out: {error}",
    cure="Something makes thousands of interfaces: ip link shows which.",
)
TABLE_WHOLE = Event("network.table_whole", LogLevel.info, "All interfaces are read again")
DEVICE_CHANGED = Event(
    "network.device_changed",
    LogLevel.info,
    "Interface {interface} is another device: {device} ({driver}) instead of {before}",
)
DEVICE_KEPT = Event(
    "network.device_kept", LogLevel.debug, "Interface {interface} is the same device as before"
)

INFO_EVERY = 3600.0
"""Seconds after which ``network.interface_info`` says again what it said. Each interface has 2,160
samples of traffic in that time, so this one costs less than a thousandth."""

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

INFO = Metric(
    "network.interface_info",
    GAUGE,
    "bool",
    "1 for the device that an interface is, when that changes and once an hour.",
    tags=("device", "driver", "interface"),
    priority=3,
)


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
            "monitor interfaces, and where there is hardware all that is none, unless "
            "`include_ifaces` names it. A list replaces these.",
        ),
    ] = None
    max_interfaces: Annotated[
        int,
        Meta(ge=1, le=1000, description="Maximum number of interfaces; each has seven series."),
    ] = 32


@dataclass(slots=True)
class _Interface:
    """A reported interface, with its last counters for the next comparison."""

    series: tuple[Series, ...]
    last: InterfaceCounters


@dataclass(slots=True)
class _Announced:
    """What ``network.interface_info`` last said of a name.

    :ivar at: when, by the monotonic clock.
    """

    device: NetworkDevice
    at: float


class NetworkTraffic:
    """``network.*_total`` of each interface that is wanted, and ``network.interface_info``.

    An interface is wanted when no exclusion matches its whole name and, where there are inclusions,
    one of them does. Without either option, only hardware is wanted where there is some: the others
    carry what it carries, and sums would count that twice.

    The collector reports at most ``max_interfaces`` at a time. Hardware comes first, and in each
    group what has carried traffic; an interface that is reported stays before its equals.

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
        self._devices = Interfaces(machine.sysfs)
        self._include = [re.compile(pattern) for pattern in options.include_ifaces]
        exclude = options.exclude_ifaces
        self._hardware_only = exclude is None and not self._include
        if exclude is None:
            exclude = DEFAULT_EXCLUSIONS
        self._exclude = [re.compile(pattern) for pattern in exclude]
        # The names are nearly always those of the last reading.
        self._wants = lru_cache(_NAMES)(self._matches)
        self._max_interfaces = options.max_interfaces
        self.left_out: tuple[str, ...] = ()
        self._interfaces: dict[str, _Interface] = {}
        self._announced: dict[str, _Announced] = {}
        self._dropped = machine.series(DROPPED)
        self._dropped_total = 0
        self._skipped = SkippedLines("/proc/net/dev", self._log, machine.seconds)
        self._falls = ItemFailureLog(self._log, machine.seconds, "interface")
        self._changes = ItemFailureLog(self._log, machine.seconds, "interface")
        self._limit_hits = FailureLog(self._log, machine.seconds)
        self._cuts = FailureLog(self._log, machine.seconds)

    def collect(self, now_ms: int) -> list[Sample]:
        """Read ``/proc/net/dev``, and ``/sys/class/net`` where there is one.

        :raises AbsentError: when there is no wanted interface.
        :raises BelaError: when it cannot be read.
        """
        reading = self._read()
        self._skipped.report(reading.skipped)
        wanted = {name: c for name, c in reading.interfaces.items() if self._wants(name)}
        devices = self._devices.devices(wanted)
        if self._hardware_only and any(devices.values()):
            wanted = {name: c for name, c in wanted.items() if devices.get(name)}
        self._admit(wanted, devices)
        samples: list[Sample] = []
        for name, interface in self._interfaces.items():
            counters = wanted[name]
            device = devices.get(name)
            if device is None or not self._inform(name, device, now_ms, samples):
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

    def _read(self) -> NetDev:
        """Read the table, or as many complete lines as the reader lets through."""
        try:
            reading = parse(self._machine.procfs.read("net/dev"))
        except TooLargeError as error:
            reading = parse(error.beginning[: error.beginning.rfind(b"\n") + 1])
            self._cuts.failed(TABLE_CUT, count=len(reading.interfaces), error=str(error))
        else:
            self._cuts.recovered(TABLE_WHOLE)
        return reading

    def _matches(self, name: str) -> bool:
        if any(pattern.fullmatch(name) for pattern in self._exclude):
            return False
        return not self._include or any(pattern.fullmatch(name) for pattern in self._include)

    def _admit(
        self, wanted: Mapping[str, InterfaceCounters], devices: Mapping[str, NetworkDevice | None]
    ) -> None:
        """Choose the interfaces to report, make the series of new ones, count the others."""

        def rank(name: str) -> tuple[bool, bool, bool]:
            counters = wanted[name]
            carries = counters.rx_bytes > 0 or counters.tx_bytes > 0
            return not devices.get(name), not carries, name not in self._interfaces

        chosen = list(wanted)
        left_out: list[str] = []
        if len(chosen) > self._max_interfaces:
            chosen.sort(key=rank)  # Stable: equals stay in the kernel's order.
            left_out = chosen[self._max_interfaces :]
            del chosen[self._max_interfaces :]
        interfaces: dict[str, _Interface] = {}
        for name in chosen:
            known = self._interfaces.get(name)
            if known is None:
                series = tuple(self._machine.series(metric, interface=name) for metric in METRICS)
                known = _Interface(series, wanted[name])
            interfaces[name] = known
        self._interfaces = interfaces
        cut = ["all that /proc/net/dev lists later"] if self._cuts.failing else []
        self.left_out = (*first_of(left_out, _LISTED), *cut)
        self._dropped_total += len(left_out)
        if left_out:
            names = Listed(left_out[:10])
            self._limit_hits.failed(LIMIT_HIT, limit=self._max_interfaces, names=names)
        else:
            self._limit_hits.recovered(LIMIT_KEPT)

    def _inform(self, name: str, device: NetworkDevice, now_ms: int, samples: list[Sample]) -> bool:
        """Say which device an interface is, if it is time to.

        :return: whether it is another device than the last one of that name.
        """
        now, announced = self._machine.seconds(), self._announced.get(name)
        changed = announced is not None and announced.device != device
        if announced is not None and changed:
            self._changes.failed(
                name,
                DEVICE_CHANGED,
                device=device.name,
                driver=device.driver,
                before=f"{announced.device.name} ({announced.device.driver})",
            )
        elif announced is not None:
            self._changes.recovered(name, DEVICE_KEPT)
        if announced is None or changed or now - announced.at >= INFO_EVERY:
            # Names that are gone are kept, because what comes back may be another device.
            self._announced.pop(name, None)
            self._announced[name] = _Announced(device, now)
            if len(self._announced) > max(_NAMES, 2 * self._max_interfaces):
                del self._announced[next(iter(self._announced))]
            series = self._machine.series(
                INFO, interface=name, device=device.name, driver=device.driver
            )
            samples.append(sample(series, now_ms, 1))
        return changed

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
    "network.traffic",
    10.0,
    NetworkTraffic,
    (*METRICS, DROPPED, INFO),
    options=NetworkTrafficOptions,
)
