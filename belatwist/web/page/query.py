"""Range queries, read from the parameters of an address."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from belatwist.errors import BelaError

MAX_SERIES = 64
MAX_POINTS = 1000
MAX_SECONDS = 48 * 3600
MAX_STEP = 24 * 3600
"""Start and end move to multiples of the step: a longer one could read the whole store."""

ALL = ("min", "avg", "max")

_PARAMETERS = ("series", "start", "end", "step", "values")
_SELECTOR = re.compile(r"([A-Za-z_][A-Za-z0-9_.:]*)(?:\{(.*)\})?", re.DOTALL)
_FILTER = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*("(?:[^"\\]|\\.)*")\s*(,|$)', re.DOTALL)
_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,9})?")

_SERIES_RULE = 'a stored name, with tags if need be: network.tx_bytes_total{interface="usb0"}'
_TIME_RULE = "seconds since 1970, such as 1767225600 or 1767225600.5"
_STEP_RULE = f"a whole number of seconds, from 1 to {MAX_STEP}"


class BadQueryError(BelaError):
    """The query is invalid; the text says what is allowed."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Selects series by their name and some of their tags.

    :ivar tags: the tags that a series must have; it may have others as well.
    """

    name: str
    tags: Mapping[str, str]

    def matches(self, name: str, tags: Mapping[str, str]) -> bool:
        """Return whether a series is selected."""
        return name == self.name and self.tags.items() <= tags.items()


@dataclass(frozen=True, slots=True)
class RangeQuery:
    """A valid query.

    :ivar start: seconds since 1970; a multiple of the step.
    :ivar step: seconds between two points.
    :ivar points: the number of points.
    :ivar values: some of :data:`ALL`.
    """

    selectors: tuple[Selector, ...]
    start: int
    step: int
    points: int
    values: tuple[str, ...]

    @property
    def end(self) -> int:
        """The end of the last point, in seconds since 1970."""
        return self.start + self.step * self.points


def read(arguments: Mapping[bytes, Sequence[bytes]]) -> RangeQuery:
    """Read a query.

    Start and end move outwards to multiples of the step, so that two queries have the same points
    where they overlap.

    :param arguments: the decoded parameters of an address.
    :raises BadQueryError: when a parameter is invalid, or the query asks for too much.
    """
    given = {_text(key): [_text(value) for value in values] for key, values in arguments.items()}
    for name in given:
        if name not in _PARAMETERS:
            raise BadQueryError(f"{name[:40]}: unknown; known: {', '.join(_PARAMETERS)}")
    selectors = tuple(_selector(text) for text in given.pop("series", ()))
    if not 1 <= len(selectors) <= MAX_SERIES:
        raise BadQueryError(f"series: 1 to {MAX_SERIES} times {_SERIES_RULE}")
    start, end = (_seconds(name, _one(given, name), _TIME_RULE) for name in ("start", "end"))
    step = int(_seconds("step", _one(given, "step"), _STEP_RULE))
    if not 1 <= step <= MAX_STEP or not _one(given, "step").isdecimal():
        raise BadQueryError(f"step: {_STEP_RULE}")
    if not start < end <= start + MAX_SECONDS:
        raise BadQueryError(f"end: after the start, by at most {MAX_SECONDS} s")
    first, last = int(start // step), int(-(-end // step))
    if last - first > MAX_POINTS:
        raise BadQueryError(f"step: at most {MAX_POINTS} points between start and end")
    return RangeQuery(selectors, first * step, step, last - first, _values(given))


def _values(given: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    if "values" not in given:
        return ALL
    wanted = _one(given, "values").split(",")
    if not set(wanted) <= set(ALL):
        raise BadQueryError(f"values: some of {','.join(ALL)}, separated by commas")
    return tuple(value for value in ALL if value in wanted)


def _selector(text: str) -> Selector:
    found = _SELECTOR.fullmatch(text)
    if found is None:
        raise BadQueryError(f"series: {_SERIES_RULE}")
    tags: dict[str, str] = {}
    inside, at = found[2] or "", 0
    while at < len(inside):
        part = _FILTER.match(inside, at)
        if part is None:
            raise BadQueryError(f"series: {_SERIES_RULE}")
        try:
            tags[part[1]] = json.loads(part[2])
        except ValueError:
            raise BadQueryError(f"series: a tag's value as in JSON; {_SERIES_RULE}") from None
        at = part.end()
    return Selector(found[1], tags)


def _one(given: Mapping[str, Sequence[str]], name: str) -> str:
    values = given.get(name, ())
    if len(values) != 1:
        raise BadQueryError(f"{name}: exactly once")
    return values[0]


def _seconds(name: str, text: str, rule: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise BadQueryError(f"{name}: {rule}")
    return float(text)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise BadQueryError("the parameters must be UTF-8") from None
