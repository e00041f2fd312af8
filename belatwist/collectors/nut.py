"""What an uninterruptible power supply says through Network UPS Tools (NUT).

Source: the protocol of ``upsd``, TCP port 3493 (NUT's ``docs/net-protocol.txt``; RFC 9271). A
request is a line. The answer is a line ``ERR CODE``, or lines between ``BEGIN`` and ``END``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta
from twisted.logger import Logger, LogLevel

from belatwist.collectors.contract import GAUGE, Machine, Metric, Options, Source
from belatwist.config.values import Host
from belatwist.errors import AbsentError, BelaError, HiddenError, ParseError, ReadError
from belatwist.log.events import Event
from belatwist.log.throttle import ItemFailureLog
from belatwist.model import Sample
from belatwist.procfs import text

if TYPE_CHECKING:
    from belatwist.collectors.line_session import LineSession

SUPPLY_FAILED = Event(
    "power.supply_failed",
    LogLevel.warn,
    "Power supply {supply} has no values: {error}",
    cure="Look at the driver of this UPS: upsdrvctl start, upsc, and the log of nut-driver.",
)
SUPPLY_RECOVERED = Event(
    "power.supply_recovered", LogLevel.info, "Power supply {supply} has values again"
)
SUPPLY_REMOVED = Event("power.supply_removed", LogLevel.info, "Power supply {supply} was removed")

ONLINE = Metric(
    "power.online",
    GAUGE,
    "bool",
    "1 when the supply runs on mains, 0 when it runs on its battery.",
    tags=("supply",),
    priority=0,
)
LOW = Metric(
    "power.low",
    GAUGE,
    "bool",
    "1 when the battery is nearly empty, 0 otherwise.",
    tags=("supply",),
    priority=0,
)
BATTERY = Metric(
    "power.battery_percent",
    GAUGE,
    "percent",
    "Charge of the battery.",
    tags=("supply",),
    priority=1,
)
VOLTAGE = Metric(
    "power.voltage_volts",
    GAUGE,
    "volts",
    "Voltage of the battery.",
    tags=("supply",),
    priority=1,
)

MAX_LINE = 1024
"""Bytes of a line. NUT itself allows 512 for a value."""

MAX_LINES = 2000
"""Lines of an answer. A large UPS has some 150 variables."""

MAX_SUPPLIES = 8

_KINDS = frozenset({"DATA-STALE", "DRIVER-NOT-CONNECTED", "UNKNOWN-UPS"})
"""Codes of NUT that each need another cure. The log does not distinguish other refusals: a server
may answer anything."""

_LISTED_UPS = re.compile(rb'UPS ([A-Za-z0-9._-]{1,64}) ".*"')
_VARIABLE = re.compile(rb'VAR ([A-Za-z0-9._-]{1,64}) ([A-Za-z0-9._-]{1,128}) "((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(.)")
_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class NutOptions(Options, frozen=True, kw_only=True):
    """The options of ``power.nut``."""

    host: Annotated[Host, Meta(description="The address of `upsd`.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="The TCP port of `upsd`.")] = 3493
    supplies: Annotated[
        tuple[str, ...],
        Meta(max_length=MAX_SUPPLIES, description="UPSs to report, by name. Empty: all of them."),
    ] = ()


class RefusedError(BelaError):
    """``upsd`` has answered ``ERR``.

    :ivar code: its word, such as ``DATA-STALE``.
    """

    def __init__(self, code: str) -> None:
        super().__init__(f"ERR {code}")
        self.code = code


def parse_supplies(lines: Iterable[bytes]) -> tuple[str, ...]:
    """Parse the lines of ``LIST UPS``; a line of another form is left out.

    :return: the names of the UPSs, in their order.
    """
    found = (_LISTED_UPS.fullmatch(line) for line in lines)
    return tuple(dict.fromkeys(match[1].decode("ascii") for match in found if match))


def parse_variables(lines: Iterable[bytes], supply: str) -> Mapping[str, str]:
    """Parse the lines of ``LIST VAR``; a line of another form or UPS is left out.

    :param supply: the UPS.
    :return: the variables' values, by name; quotes and backslashes decoded.
    """
    found: dict[str, str] = {}
    for line in lines:
        match = _VARIABLE.fullmatch(line)
        if match is not None and match[1] == supply.encode():
            value = text.name(_ESCAPE.sub(rb"\1", match[3]))
            found.setdefault(match[2].decode("ascii"), value)
    return found


def values_of(variables: Mapping[str, str]) -> Mapping[Metric, float]:
    """Choose the values; one that the UPS does not have, or that is no number, is absent.

    ``ups.status`` is a set of words: ``OL`` on line, ``OB`` on battery, ``LB`` low battery.
    """
    values: dict[Metric, float] = {}
    words = variables.get("ups.status", "").split()
    if "OB" in words or "OL" in words:
        values[ONLINE] = 0 if "OB" in words else 1
        values[LOW] = 1 if "LB" in words else 0
    for metric, name, most in (
        (BATTERY, "battery.charge", 100.0),
        (VOLTAGE, "battery.voltage", 1000.0),
    ):
        number = variables.get(name, "")
        if _NUMBER.fullmatch(number) and 0 <= float(number) <= most:
            values[metric] = float(number)
    return values


class ListAnswer:
    """The lines of one answer as they arrive; pure.

    :param what: the list that was asked for, such as ``UPS`` or ``VAR bag``.
    """

    def __init__(self, what: str) -> None:
        self._begin = f"BEGIN LIST {what}".encode()
        self._end = f"END LIST {what}".encode()
        self._begun = False
        self.lines: list[bytes] = []

    def take(self, line: bytes) -> bool:
        """Take a line.

        :return: whether the answer is complete.
        :raises RefusedError: when ``upsd`` refuses the request.
        :raises ParseError: when it is no such answer, or too long.
        """
        if line.startswith(b"ERR "):
            raise RefusedError(text.quote(line[4:].split(b" ")[0]))
        if not self._begun:
            if line != self._begin:
                raise ParseError("upsd", f"'{text.quote(line)}' is not the beginning of a list")
            self._begun = True
            return False
        if line == self._end:
            return True
        if len(self.lines) >= MAX_LINES:
            raise ParseError("upsd", f"more than {MAX_LINES} lines in an answer")
        self.lines.append(line)
        return False


class Nut:
    """``power.*`` of each UPS that ``upsd`` knows.

    A UPS whose data is stale has no values: the driver has lost it, and old values would lie.

    :param machine: where the reactor is.
    :param options: where ``upsd`` is, and which UPSs to report.
    :ivar left_out: the names of UPSs beyond the maximum.
    """

    _log = Logger()

    def __init__(self, machine: Machine, options: NutOptions) -> None:
        self._machine = machine
        self._options = options
        self._server = f"upsd at {options.host}:{options.port}"
        self._failures = ItemFailureLog(self._log, machine.seconds, "supply")
        self.left_out: Sequence[str] = ()

    async def collect(self, now_ms: int) -> list[Sample]:
        """Ask for all variables of each UPS, over a connection of its own.

        :raises AbsentError: when ``upsd`` has no UPS, or no fresh data of any.
        :raises HiddenError: when it does not let the agent ask.
        :raises BelaError: when it cannot be reached, or its answers cannot be read.
        """
        from belatwist.collectors.line_session import connect

        options = self._options
        session = await connect(
            self._machine.reactor,
            options.host,
            options.port,
            server=self._server,
            longest=MAX_LINE,
        )
        try:
            return await self._ask(session, now_ms)
        except RefusedError as error:
            if error.code != "ACCESS-DENIED":
                raise ReadError(f"{self._server}: {error}") from error
            raise HiddenError(
                f"{self._server} denies access",
                "Allow the agent's address in upsd.conf (LISTEN, and the firewall)",
            ) from error
        finally:
            session.close()

    async def _ask(self, session: "LineSession", now_ms: int) -> list[Sample]:
        known = parse_supplies(await _list(session, "UPS"))
        wanted = self._options.supplies or known
        self.left_out = wanted[MAX_SUPPLIES:]
        self._failures.removed(wanted, SUPPLY_REMOVED)
        samples: list[Sample] = []
        reasons: list[str] = []
        codes: set[str] = set()
        for supply in wanted[:MAX_SUPPLIES]:
            try:
                if supply not in known:
                    raise RefusedError("UNKNOWN-UPS")
                lines = await _list(session, f"VAR {supply}")
            except RefusedError as error:
                if error.code == "ACCESS-DENIED":
                    raise
                codes.add(error.code)
                reasons.append(f"{supply}: {error}")
                kind = error.code if error.code in _KINDS else ""
                self._failures.failed(supply, SUPPLY_FAILED, kind, error=str(error))
                continue
            self._failures.recovered(supply, SUPPLY_RECOVERED)
            for metric, value in values_of(parse_variables(lines, supply)).items():
                series = self._machine.series(metric, supply=supply)
                samples.append(Sample(series, now_ms, value))
        if samples:
            return samples
        if not wanted:
            raise AbsentError(f"{self._server} knows no UPS")
        reason = f"{self._server}: {'; '.join(reasons) or 'no UPS has a known value'}"
        raise AbsentError(reason) if codes == {"DATA-STALE"} else ReadError(reason)


async def _list(session: "LineSession", what: str) -> list[bytes]:
    answer = ListAnswer(what)
    await session.ask(f"LIST {what}".encode(), answer)
    return answer.lines


SOURCE = Source(
    "power.nut",
    10.0,
    Nut,
    (ONLINE, LOW, BATTERY, VOLTAGE),
    options=NutOptions,
    default=False,
    why_off="for devices with a UPS",
)
