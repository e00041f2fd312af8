"""The table, and the machine on which it was measured."""

import json
import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import which

from benchmarks.harness import Row
from benchmarks.server import PROGRAM

_HEADINGS = ("question", "what", "figure", "unit", "how")


def machine() -> dict[str, str]:
    """Describe this machine and the versions that matter."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):  # x86 has the first, ARM boards the second.
            model = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{model}, {os.cpu_count()} cores, {platform.machine()}",
        "kernel": platform.release(),
        "load before": Path("/proc/loadavg").read_text().split()[0],
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "Twisted": version("twisted"),
        "treq": version("treq"),
        "belatwist": version("belatwist"),
        "VictoriaMetrics": _victoria(),
    }


def _victoria() -> str:
    if which(PROGRAM) is None:
        return "not installed"
    # The program does not say; Debian's package does.
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "installed, version unknown"


def figure(value: float | None) -> str:
    """Format a figure with about three significant digits."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [(r.question, r.what, figure(r.value), r.unit, r.note) for r in rows]


def text(about: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Make an aligned table."""
    cells = [_HEADINGS, *_cells(rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEADINGS))]
    lines = [f"{key}: {value}" for key, value in about.items()] + [""]
    last = ""
    for number, row in enumerate(cells):
        question = row[0] if row[0] != last else ""
        last = row[0]
        lines.append(
            f"{question:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}"
            f"  {row[3]:{widths[3]}}  {row[4]}".rstrip()
        )
        if number == 0:
            lines.append("  ".join("-" * width for width in widths[:4]) + "  ---")
    return "\n".join(lines)


def markdown(about: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Make the table of ``docs/performance.md``."""
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += [f"| {' | '.join(_HEADINGS)} |", "| --- | --- | ---: | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in _cells(rows)]
    return "\n".join(lines)


def dump(about: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Make a JSON document of it."""
    return json.dumps({"machine": dict(about), "rows": [asdict(row) for row in rows]}, indent=1)
