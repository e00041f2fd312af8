"""One table: per sample and per hour, with ratios to this service."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks.report import figure
from benchmarks.sidebyside.outage import Outage
from benchmarks.sidebyside.steady import Finding
from benchmarks.sidebyside.tools import Collectors, Tool

Column = tuple[Tool, Collectors]

OURS: Column = ("belatwist", "same")
COLUMNS: Mapping[Column, str] = {
    OURS: "belatwist",
    ("vmagent", "same"): "vmagent, same families",
    ("vmagent", "kept"): "vmagent, our series only",
    ("vmagent", "default"): "vmagent, default collectors",
    ("Prometheus", "same"): "Prometheus agent, same families",
    ("Prometheus", "default"): "Prometheus agent, default collectors",
}
"""The columns' headings; each vmagent and Prometheus has a node_exporter beside it."""

_T = TypeVar("_T", Finding, Outage)
_HOUR = 3600.0
_MB = 1e6

_STEADY: Sequence[tuple[str, str, Callable[[Finding], float | None]]] = (
    ("series", "", lambda f: f.series),
    ("samples", "/ hour", lambda f: f.samples * _HOUR / f.window),
    ("CPU", "ms / 1,000 samples", lambda f: f.cpu * 1e6 / f.samples),
    ("CPU", "s / hour", lambda f: f.cpu * _HOUR / f.window),
    ("wire", "bytes / sample", lambda f: f.wire / f.samples),
    ("wire", "MB / hour", lambda f: f.wire * _HOUR / f.window / _MB),
    ("written", "bytes / sample", lambda f: None if f.written is None else f.written / f.samples),
    (
        "written",
        "MB / hour",
        lambda f: None if f.written is None else f.written * _HOUR / f.window / _MB,
    ),
    ("memory, PSS", "MiB", lambda f: f.memory.pss),
    ("memory, RSS", "MiB", lambda f: f.memory.rss),
)
_OUTAGE: Sequence[tuple[str, str, Callable[[Outage], float | None]]] = (
    ("samples of the outage", "", lambda o: o.backlog),
    ("first request after the return", "s", lambda o: o.begins),
    ("95 % landed, from then on", "s", lambda o: o.mostly),
    ("all landed, from then on", "s", lambda o: o.drains),
    ("drain, of these 95 %", "samples / s", lambda o: o.rate),
    ("wire, draining", "bytes / sample", lambda o: o.wire),
    ("written in the outage", "bytes / sample", lambda o: o.written / o.backlog),
    ("written in the outage", "kB / tick", lambda o: o.written / o.ticks / 1000),
    ("memory before, PSS", "MiB", lambda o: o.before.pss),
    ("memory with the backlog, PSS", "MiB", lambda o: o.full.pss),
    ("memory draining, most, PSS", "MiB", lambda o: o.most.pss),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    :ivar place: the machine and the interval, or the outage.
    :ivar values: by column; a column that is missing was not measured.
    """

    place: str
    what: str
    unit: str
    values: Mapping[Column, float]

    def cell(self, column: Column) -> str:
        """Format a figure, and its ratio to ours."""
        value, ours = self.values.get(column), self.values.get(OURS)
        if value is None:
            return "-"
        text = figure(value) if value % 1 else f"{value:,.0f}"
        if column == OURS or not ours:
            return text
        return f"{text} ({figure(value / ours)}x)"


def lines(steady: Iterable[Finding], outages: Sequence[Outage]) -> list[Line]:
    """Make the lines."""
    places: dict[str, dict[Column, Finding]] = {}
    for one in steady:
        place = f"{one.case.machine}, {one.case.interval:g} s"
        places.setdefault(place, {})[one.case.column] = one
    made = [
        Line(place, what, unit, _values(found, value))
        for place, found in places.items()
        for what, unit, value in _STEADY
    ]
    if outages:
        place = f"outage of {round(outages[0].ticks):,} ticks, {outages[0].case.machine}"
        by_column = {one.case.column: one for one in outages}
        made += [Line(place, what, unit, _values(by_column, of)) for what, unit, of in _OUTAGE]
    return made


def _values(found: Mapping[Column, _T], value: Callable[[_T], float | None]) -> dict[Column, float]:
    made = {column: value(one) for column, one in found.items()}
    return {column: one for column, one in made.items() if one is not None}


def _columns(table: Sequence[Line]) -> list[Column]:
    return [column for column in COLUMNS if any(column in line.values for line in table)]


def markdown(table: Sequence[Line]) -> str:
    """Make the table of ``docs/comparison.md``."""
    columns = _columns(table)
    made = [
        f"| where | what | unit | {' | '.join(COLUMNS[column] for column in columns)} |",
        f"| --- | --- | --- |{' ---: |' * len(columns)}",
    ]
    last = ""
    for line in table:
        place, last = ("" if line.place == last else line.place), line.place
        cells = " | ".join(line.cell(column) for column in columns)
        made.append(f"| {place} | {line.what} | {line.unit} | {cells} |")
    return "\n".join(made)


def text(table: Sequence[Line]) -> str:
    """Make an aligned table."""
    columns = _columns(table)
    heading = ("", "", *(COLUMNS[column].replace(", ", ",\n") for column in columns))
    rows: list[tuple[str, ...]] = [
        tuple(cell.partition("\n")[half] for cell in heading) for half in (0, 2)
    ]
    last = ""
    for line in table:
        if line.place != last:
            last = line.place
            rows.append((f"{line.place}:",))
        rows.append((f"  {line.what}", line.unit, *(line.cell(column) for column in columns)))
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[i]) for row in full) for i in range(len(heading))]
    return "\n".join(
        "  ".join(
            f"{cell:{width}}" if i < 2 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    )


def dump(table: Sequence[Line]) -> list[dict[str, Any]]:
    """Make a value that JSON can represent."""
    return [
        {
            "where": line.place,
            "what": line.what,
            "unit": line.unit,
            "values": {COLUMNS[column]: value for column, value in line.values.items()},
        }
        for line in table
    ]
