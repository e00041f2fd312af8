"""The temperature of each thermal zone, and of the processor.

Source: ``/sys/class/thermal`` (Documentation/driver-api/thermal/sysfs-api.rst).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from msgspec import Meta
from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import GAUGE, Machine, Metric, Options, Source
from belatwist.collectors.zone_types import Part, part_of
from belatwist.config.values import NamePattern
from belatwist.errors import AbsentError, BelaError, HiddenError, ParseError, ReadError
from belatwist.log.events import Event
from belatwist.log.throttle import ItemFailureLog, kind_of
from belatwist.model import Sample, Series, sample
from belatwist.procfs import text
from belatwist.procfs.reader import MissingError, why_missing
from belatwist.runtime.threads import Calls
from belatwist.text import first_of

ZONE_FAILED = Event(
    "thermal.zone_failed",
    LogLevel.warn,
    "Thermal zone {zone} is left out: {error}",
    fields=("error_type",),
    cure="A reboot often revives a sensor. A zone of a device that is off has no reading."
    " exclude_zones of cpu.temperature leaves a zone alone.",
)
ZONE_RECOVERED = Event("thermal.zone_recovered", LogLevel.info, "Thermal zone {zone} recovered")
ZONE_REMOVED = Event("thermal.zone_removed", LogLevel.info, "Thermal zone {zone} was removed")

HOTTEST = Metric("cpu.temperature", GAUGE, "celsius", "Heat of the hottest zone of the processor.")
ZONE = Metric("thermal.zone_temp", GAUGE, "celsius", "Heat of a thermal zone.", tags=("zone",))

_DIRECTORY = "class/thermal"
_ZONE = re.compile(r"thermal_zone([0-9]+)", re.ASCII)

LOWEST, HIGHEST = -55_000, 150_000
"""Millidegrees Celsius. What sensors on silicon can measure: -40 to 125 degrees by the tables of
drivers/thermal/rockchip_thermal.c, -55 to 150 for the widest (TI's TMP102). Values beyond mean
something else, such as -274000 (``THERMAL_TEMP_INVALID``, include/linux/thermal.h), -256000 (a part
of a Jetson that is off), and 2147483647."""

ANSWER_WITHIN = 0.2
"""Seconds that all zones together have to answer: less than the scheduler has for a tick."""

_LISTED = 20

_TEMPERATURE = re.compile(rb"(-?[0-9]{1,10})\n")
_TYPE = re.compile(rb"([^\n\0]{1,64})\n")


def parse_temperature(content: bytes, source: str) -> int:
    """Parse a zone's ``temp``.

    :param source: the file's path, for the error.
    :return: millidegrees Celsius.
    :raises ParseError: when it is not an integer, or beyond what a sensor can mean.
    """
    match = _TEMPERATURE.fullmatch(content)
    if match is None:
        raise ParseError(source, f"'{text.quote(content)}' is not a temperature")
    value = int(match[1])
    if not LOWEST <= value <= HIGHEST:
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


class CpuTemperatureOptions(Options, frozen=True, kw_only=True):
    """The options of ``cpu.temperature``."""

    include_zones: Annotated[
        tuple[NamePattern, ...],
        Meta(
            max_length=64,
            description="Thermal zones to report, by their types; `cpu.temperature` is the hottest "
            "of them. Empty: all, and the hottest of the processor.",
        ),
    ] = ()
    exclude_zones: Annotated[
        tuple[NamePattern, ...],
        Meta(max_length=64, description="Thermal zones not to read, by their types."),
    ] = ()


@dataclass(frozen=True, slots=True)
class _Zone:
    """A zone that is there.

    :ivar wanted: whether the options let it be read.
    """

    label: str
    path: str
    series: Series
    part: Part
    wanted: bool


class CpuTemperature:
    """``thermal.zone_temp`` of each zone that can be read, and ``cpu.temperature``.

    That is the hottest zone of the processor, or of the chip that it is on. Where no type of a zone
    says so, it is the hottest of those that may be; where there are none, of all. Zones that
    ``include_zones`` names are taken as they are.

    The label of a zone is its ``type``, because its number differs between kernels. Where two zones
    have the same type (two NVMe drives), the first keeps it and the other becomes ``type-N`` by its
    number N. A zone keeps its label for as long as it is there.

    A zone that does not answer costs only itself: its read is abandoned, and no other is made
    before it has returned.

    :param machine: the machine to measure.
    :param options: which zones to read.
    :ivar left_out: the zones that cannot be read.
    """

    _log = Logger()

    def __init__(self, machine: Machine, options: CpuTemperatureOptions) -> None:
        self._machine = machine
        self._sysfs = machine.sysfs
        self._include = [re.compile(pattern) for pattern in options.include_zones]
        self._exclude = [re.compile(pattern) for pattern in options.exclude_zones]
        self._hottest = machine.series(HOTTEST)
        self._zones: dict[tuple[str, int], _Zone] = {}
        self._calls = Calls("thermal zone")
        self._failures = ItemFailureLog(self._log, machine.seconds, "zone")
        self.left_out: tuple[str, ...] = ()

    def collect(self, now_ms: int) -> list[Sample]:
        """Read all zones.

        :raises AbsentError: when there is no zone.
        :raises HiddenError: when permissions deny all of them.
        :raises ReadError: when there are zones and none of them can be read.
        """
        failures = self._relist()
        zones = {zone.path: zone for zone in self._zones.values() if zone.wanted}
        answers = self._calls.ask_all(
            {path: partial(self._temperature, path) for path in zones}, ANSWER_WITHIN
        )
        readings: list[tuple[_Zone, float]] = []
        for path, answer in answers.items():
            if isinstance(answer, Exception):
                failures[zones[path].label] = _readable(answer)
            else:
                readings.append((zones[path], answer / 1000))
        self._report(failures)
        if not readings:
            raise self._nothing(failures)
        samples = [sample(zone.series, now_ms, degrees) for zone, degrees in readings]
        # Of the zones that are there, not of those that answer: when all of the processor's fail,
        # another one does not take their place.
        best = min(zone.part for zone in zones.values())
        hottest = max((degrees for zone, degrees in readings if zone.part == best), default=None)
        if hottest is not None:
            samples.append(sample(self._hottest, now_ms, hottest))
        return samples

    def _temperature(self, path: str) -> int:
        return parse_temperature(self._sysfs.read(path), self._sysfs.locate(path))

    def _type(self, name: str) -> str:
        path = f"{_DIRECTORY}/{name}/type"
        return parse_type(self._sysfs.read(path), self._sysfs.locate(path))

    def _nothing(self, failures: Mapping[str, BelaError]) -> BelaError:
        """Return the reason for which no zone has a reading."""
        if not failures:
            where = self._sysfs.locate(_DIRECTORY)
            if self._zones:
                return AbsentError(f"{where} has no zone that the configuration lets through")
            return why_missing(self._sysfs.entries, "class", f"{where} has no thermal zone")
        first = next(iter(failures.values()))
        if all(isinstance(error, HiddenError) for error in failures.values()):
            return first
        code = first.code if isinstance(first, ReadError) else ""
        return ReadError(f"no thermal zone can be read: {first}", code)

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
        present = {(name, inode): number for number, name, inode in numbered}
        self._zones = {key: zone for key, zone in self._zones.items() if key in present}
        new = {key[0]: key for key in present if key not in self._zones}
        types = self._calls.ask_all(
            {name: partial(self._type, name) for name in new}, ANSWER_WITHIN / 2
        )
        failures: dict[str, BelaError] = {}
        for name, answer in types.items():
            if isinstance(answer, Exception):
                failures[name] = _readable(answer)
            else:
                self._zones[new[name]] = self._register(present[new[name]], name, answer)
        return failures

    def _report(self, failures: Mapping[str, BelaError]) -> None:
        """Log which zones fail, have recovered, or were removed.

        :param failures: by a zone's label, or by its directory where its type cannot be read.
        """
        self.left_out = first_of(list(failures), _LISTED)
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

    def _register(self, number: int, name: str, zone_type: str) -> _Zone:
        label = zone_type
        taken = {zone.label for zone in self._zones.values()}
        while label in taken:
            label = f"{label}-{number}"

        def named(patterns: list[re.Pattern[str]]) -> bool:
            return any(p.fullmatch(zone_type) or p.fullmatch(label) for p in patterns)

        return _Zone(
            label=label,
            path=f"{_DIRECTORY}/{name}/temp",
            series=self._machine.series(ZONE, zone=label),
            part=Part.PROCESSOR if self._include else part_of(zone_type),
            wanted=(not self._include or named(self._include)) and not named(self._exclude),
        )


def _readable(error: Exception) -> BelaError:
    """Return the error of a zone, in words for an operator.

    :raises Exception: the same, when it is a fault of this program.
    """
    if isinstance(error, TimeoutError):
        return ReadError(f"it hangs, {error}", "hangs")
    if isinstance(error, BelaError):
        return error
    raise error


SOURCE = Source(
    "cpu.temperature", 30.0, CpuTemperature, (HOTTEST, ZONE), options=CpuTemperatureOptions
)
