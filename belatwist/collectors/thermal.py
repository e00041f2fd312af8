"""The temperature of each thermal zone, and of the hottest zone.

Source: ``/sys/class/thermal`` (Documentation/driver-api/thermal/sysfs-api.rst).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import GAUGE, Machine, Metric, Source
from belatwist.errors import BelaError, HiddenError, ParseError, ReadError
from belatwist.log.events import Event
from belatwist.log.throttle import ItemFailureLog, kind_of
from belatwist.model import Sample, Series, sample
from belatwist.procfs import text
from belatwist.procfs.reader import MissingError, why_missing

ZONE_FAILED = Event(
    "thermal.zone_failed",
    LogLevel.warn,
    "Thermal zone {zone} is left out: {error}",
    fields=("error_type",),
    cure="A reboot often revives a sensor. A zone of a device that is off has no reading.",
)
ZONE_RECOVERED = Event("thermal.zone_recovered", LogLevel.info, "Thermal zone {zone} recovered")
ZONE_REMOVED = Event("thermal.zone_removed", LogLevel.info, "Thermal zone {zone} was removed")

HOTTEST = Metric("cpu.temperature", GAUGE, "celsius", "Heat of the hottest zone.")
ZONE = Metric("thermal.zone_temp", GAUGE, "celsius", "Heat of a thermal zone.", tags=("zone",))

_DIRECTORY = "class/thermal"
_ZONE = re.compile(r"thermal_zone([0-9]+)", re.ASCII)

INVALID = -274_000
"""Millidegrees Celsius; below absolute zero, the kernel's mark for no reading
(``THERMAL_TEMP_INVALID``, include/linux/thermal.h)."""

_TEMPERATURE = re.compile(rb"(-?[0-9]{1,10})\n")
_TYPE = re.compile(rb"([^\n\0]{1,64})\n")
_INT_MAX = 2**31 - 1


def parse_temperature(content: bytes, source: str) -> int:
    """Parse a zone's ``temp``.

    :param source: the file's path, for the error.
    :return: millidegrees Celsius as the kernel reports them, including implausible values.
    :raises ParseError: when it is not an integer of the kernel's ``int``, or marks that there is no
        reading.
    """
    match = _TEMPERATURE.fullmatch(content)
    if match is None:
        raise ParseError(source, f"'{text.quote(content)}' is not a temperature")
    value = int(match[1])
    if not INVALID < value <= _INT_MAX:
        raise ParseError(source, f"{value} is no reading")
    return value


def parse_type(content: bytes, source: str) -> str:
    """Parse a zone's ``type``, such as ``soc-thermal`` or ``INT3400 Thermal``.

    :param source: the file's path, for the error.
    :raises ParseError: when it is not a single line of text.
    """
    match = _TYPE.fullmatch(content)
    label = text.name(match[1]).strip() if match else ""
    if not label:
        raise ParseError(source, f"'{text.quote(content)}' is not a type")
    return label


@dataclass(frozen=True, slots=True)
class _Zone:
    label: str
    path: str
    series: Series


class CpuTemperature:
    """``thermal.zone_temp`` of each zone that can be read, and ``cpu.temperature``, the highest.

    The label of a zone is its ``type``, because its number differs between kernels. Where two zones
    have the same type (two NVMe drives), the first keeps it and the other becomes ``type-N`` by its
    number N. A zone keeps its label for as long as it is there.

    :param machine: the machine to measure.
    """

    _log = Logger()

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._sysfs = machine.sysfs
        self._hottest = machine.series(HOTTEST)
        self._zones: dict[tuple[str, int], _Zone] = {}
        self._failures = ItemFailureLog(self._log, machine.seconds, "zone")

    def collect(self, now_ms: int) -> list[Sample]:
        """Read all zones.

        :raises AbsentError: when there is no zone.
        :raises HiddenError: when permissions deny all of them.
        :raises ReadError: when there are zones and none of them can be read.
        """
        failures = self._relist()
        readings: list[tuple[Series, float]] = []
        for zone in self._zones.values():
            try:
                content = self._sysfs.read(zone.path)
                value = parse_temperature(content, self._sysfs.locate(zone.path))
            except BelaError as error:
                failures[zone.label] = error
            else:
                readings.append((zone.series, value / 1000))
        self._report(failures)
        if readings:
            readings.append((self._hottest, max(degrees for _, degrees in readings)))
        elif failures:
            first = next(iter(failures.values()))
            if all(isinstance(error, HiddenError) for error in failures.values()):
                raise first
            code = first.code if isinstance(first, ReadError) else ""
            raise ReadError(f"no thermal zone can be read: {first}", code)
        else:
            raise self._absent()
        return [sample(series, now_ms, degrees) for series, degrees in readings]

    def _absent(self) -> BelaError:
        where = self._sysfs.locate(_DIRECTORY)
        return why_missing(self._sysfs.entries, "class", f"{where} has no thermal zone")

    def _relist(self) -> dict[str, BelaError]:
        """List the zones; only a new zone costs more than the listing.

        :return: why the type of a zone cannot be read, by its directory.
        """
        try:
            entries = self._sysfs.entries(_DIRECTORY)
        except MissingError:
            entries = {}
        numbered = sorted(
            (int(match[1]), name, inode)
            for name, inode in entries.items()
            if (match := _ZONE.fullmatch(name))
        )
        # The inode number shows that another zone has come under an old zone's number.
        present = {(name, inode) for _, name, inode in numbered}
        self._zones = {key: zone for key, zone in self._zones.items() if key in present}
        failures: dict[str, BelaError] = {}
        for number, name, inode in numbered:
            if (name, inode) not in self._zones:
                try:
                    self._zones[name, inode] = self._register(number, name)
                except BelaError as error:
                    failures[name] = error
        return failures

    def _report(self, failures: Mapping[str, BelaError]) -> None:
        """Log which zones fail, have recovered, or were removed.

        :param failures: by a zone's label, or by its directory where its type cannot be read.
        """
        if not failures and self._failures.settled:
            return
        for zone, error in failures.items():
            self._failures.failed(
                zone, ZONE_FAILED, kind_of(error), error=str(error), error_type=type(error).__name__
            )
        present = {name for name, _ in self._zones} | {z.label for z in self._zones.values()}
        for zone in present.difference(failures):
            self._failures.recovered(zone, ZONE_RECOVERED)
        self._failures.removed(present.union(failures), ZONE_REMOVED)

    def _register(self, number: int, name: str) -> _Zone:
        path = f"{_DIRECTORY}/{name}/type"
        label = parse_type(self._sysfs.read(path), self._sysfs.locate(path))
        taken = {zone.label for zone in self._zones.values()}
        while label in taken:
            label = f"{label}-{number}"
        series = self._machine.series(ZONE, zone=label)
        return _Zone(label, f"{_DIRECTORY}/{name}/temp", series)


SOURCE = Source(
    "cpu.temperature", 30.0, lambda machine, _: CpuTemperature(machine), (HOTTEST, ZONE)
)
