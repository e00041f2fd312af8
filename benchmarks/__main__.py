"""``python -m benchmarks``: measure everything, or what is asked for, and print one table."""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from benchmarks import (
    churn,
    drain,
    flash,
    floor,
    memory,
    migration,
    page,
    pending,
    profiling,
    report,
    retention,
    stages,
    startup,
    ticks,
    together,
    turns,
    wear,
)
from benchmarks.harness import QUICK, FailedError, Plan, Row, UnavailableError, run_program

QUESTIONS: Mapping[str, Callable[[Plan], list[Row]]] = MappingProxyType(
    {
        module.NAME: module.measure
        for module in (
            stages,
            ticks,
            together,
            floor,
            turns,
            drain,
            flash,
            wear,
            memory,
            churn,
            startup,
            migration,
            retention,
            pending,
            page,
        )
    }
)
"""Every question by its name, in the order of asking."""


def main(arguments: list[str]) -> int:
    """Measure and print.

    :return: the exit status: 1 when a measurement went wrong; 0 also when one needs something
        that is not installed.
    """
    options = _parse(arguments)
    if options.profile:
        print(profiling.measure())
        return 0
    plan = QUICK if options.quick else Plan()
    plan = replace(
        plan,
        **{
            name: value
            for name in ("seconds", "samples", "backlog", "starts", "directory")
            if (value := getattr(options, name)) is not None
        },
    )
    about = report.machine()
    rows: list[Row] = []
    failed = False
    try:
        for name in options.only or QUESTIONS:
            begun = time.monotonic()
            try:
                rows += QUESTIONS[name](plan)
            except (UnavailableError, FailedError) as error:
                failed = failed or isinstance(error, FailedError)
                rows.append(Row(name, "not measured", None, "", str(error)))
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    finally:
        # Also when it is cut short: what was measured until then took minutes.
        print((report.markdown if options.markdown else report.text)(about, rows))
    if options.json:
        options.json.write_text(report.dump(about, rows) + "\n")
    return int(failed)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=list(QUESTIONS), help="one question; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: a look, not a figure")
    parser.add_argument("--seconds", type=float, help="how long whole services are watched")
    parser.add_argument("--samples", type=int, help="how many to store for flash and memory")
    parser.add_argument("--backlog", type=int, help="how many are pending when the drain begins")
    parser.add_argument("--starts", type=int, help="how often the start-up is timed")
    parser.add_argument("--directory", type=Path, help="where databases are made; not on tmpfs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument(
        "--profile", action="store_true", help="say where the time of a tick and an upload goes"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_program(main)
