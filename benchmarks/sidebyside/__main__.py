"""``python -m benchmarks.sidebyside``: measure all tools, and print one table."""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report
from benchmarks.harness import FailedError, Plan, UnavailableError, run_program, workspace
from benchmarks.server import victoria
from benchmarks.sidebyside import plot, table, tools
from benchmarks.sidebyside.outage import Outage, endure
from benchmarks.sidebyside.steady import Finding, Watcher, board_model
from benchmarks.sidebyside.tools import Case, Collectors, Machine, Tool

TOOLS: Sequence[Tool] = ("belatwist", "vmagent", "Prometheus")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure.

    :ivar windows: seconds to watch, by the interval of the ticks; multiples of ``flush``.
    :ivar flush: seconds between uploads.
    :ivar outage: seconds for which the server is absent.
    :ivar tick: seconds between ticks during the outage.
    :ivar own_flush: our upload interval during the outage; ``None`` for the default.
    :ivar enduring: the tools that are measured in the outage.
    """

    windows: Mapping[float, float]
    flush: float
    outage: float
    tick: float = 0.05
    own_flush: float | None = None
    enduring: Sequence[Tool] = TOOLS


FULL = Sizes(windows={1.0: 30.0, 10.0: 60.0}, flush=30.0, outage=30.0)
QUICK = Sizes(windows={1.0: 8.0}, flush=4.0, outage=4.0, own_flush=4.0, enduring=TOOLS[:2])


def groups(sizes: Sizes, *, quick: bool) -> list[list[Case]]:
    """Return the cases to watch, grouped by what is compared."""
    made = []
    for interval in sizes.windows:

        def case(
            tool: Tool, collectors: Collectors, machine: Machine, interval: float = interval
        ) -> Case:
            return Case(tool, collectors, machine, interval)

        board = [case(tool, "same", "board model") for tool in TOOLS]
        kept = case("vmagent", "kept", "board model")
        if quick:
            made.append([*board, kept])
            continue
        made.append([case(tool, "same", "this machine") for tool in TOOLS])
        made.append(board)
        made.append([case(tool, "default", "this machine") for tool in TOOLS[1:]] + [kept])
    return made


def main(arguments: list[str]) -> int:
    """Measure and print.

    :return: the exit status: 1 when something is missing or went wrong.
    """
    options = _parse(arguments)
    sizes = QUICK if options.quick else FULL
    about = report.machine()
    steady: list[Finding] = []
    outages: list[Outage] = []
    failed = False
    try:
        tools.require(TOOLS)
        if options.plot:
            plot.require()
        for watcher, work in _work(options, sizes):
            begun = time.monotonic()
            try:
                if isinstance(work, Case):
                    flush = sizes.own_flush if work.tool == "belatwist" else None
                    outages.append(endure(watcher, work, seconds=sizes.outage, flush=flush))
                    name = f"outage, {work.tool}"
                else:
                    window = sizes.windows[work[0].interval]
                    steady += watcher.watch_all(work, flush=sizes.flush, window=window)
                    name = f"{work[0].interval:g} s, " + ", ".join(one.tool for one in work)
            except FailedError as error:
                print(error, file=sys.stderr)
                failed = True
                continue
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    except (FailedError, UnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    lines = table.lines(steady, outages)
    separator = ", " if options.markdown else "\n"
    print(separator.join(f"{key} {value}" for key, value in about.items()), end="\n\n")
    print((table.markdown if options.markdown else table.text)(lines))
    if options.json:
        found = {"machine": about, "table": table.dump(lines)}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        options.plot.mkdir(parents=True, exist_ok=True)
        plot.draw(lines, outages, options.plot)
    return int(failed)


def _work(options: argparse.Namespace, sizes: Sizes) -> Iterator[tuple[Watcher, list[Case] | Case]]:
    """Yield one group after another, and then one tool after another for the outage."""
    numbers = itertools.count()
    with workspace(Plan(directory=options.directory)) as where, victoria(where) as server:
        if options.only != "outage":
            with board_model(where / "board", period=0.4, step=0.4) as board:
                for group in groups(sizes, quick=options.quick):
                    for some in [[one] for one in group] if options.alone else [group]:
                        yield Watcher(where, server, board, next(numbers)), some
        if options.only != "steady":
            # Each tick finds what a tick of ten seconds would.
            with board_model(where / "fast", period=sizes.tick, step=10.0) as board:
                for tool in sizes.enduring:
                    case = Case(tool, "same", "board model", sizes.tick)
                    yield Watcher(where, server, board, next(numbers)), case


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sidebyside", description=__doc__)
    parser.add_argument("--only", choices=("steady", "outage"), help="one half of it")
    parser.add_argument("--quick", action="store_true", help="a minute: a look, not a figure")
    parser.add_argument("--alone", action="store_true", help="one tool after another: half an hour")
    parser.add_argument("--directory", type=Path, help="where the tools keep files; not on tmpfs")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw pictures there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_program(main)
