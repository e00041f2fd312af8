"""``python -m benchmarks.fleet``: run the scenarios, print the tables, draw the plots."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.logger import globalLogBeginner

from benchmarks import report
from benchmarks.fleet import ingestion, plot, run, table
from benchmarks.fleet.run import Finding
from benchmarks.fleet.scenarios import SCENARIOS
from benchmarks.harness import FailedError, Row, UnavailableError, run_program

_STEADY = "apart"
"""The scenario whose bodies are sent again to measure how fast the server ingests them."""

QUICK = frozenset({"in step, no jitter", "in step", "in step, offset", "asked, a date", "on disk"})
"""The scenarios of a quick look, which does not measure ingestion."""


def main(arguments: list[str]) -> int:
    """Run the selected scenarios.

    :return: the exit status: 1 when a sample was lost, or something else went wrong.
    """
    options = _parse(arguments)
    devices = options.devices or (5 if options.quick else 100)
    on_disk = 1 if options.quick else 3
    wanted = options.only or [
        one.name for one in SCENARIOS if one.name in QUICK or not options.quick
    ]
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    about = report.machine()
    findings: list[Finding] = []
    rows: list[Row] = []
    try:
        if options.plot:
            plot.require()
        recording = run.recording()
        for scenario in SCENARIOS:
            if scenario.name not in wanted:
                continue
            with TemporaryDirectory(prefix="bela-fleet-", dir=options.directory) as where:
                size = min(devices, on_disk) if scenario.on_disk else devices
                one = run.run(scenario, size, recording, options.seed, Path(where))
            findings.append(one)
            print(f"{scenario.name}: {one.took:.0f} s", file=sys.stderr, flush=True)
        if not options.quick:
            rows = _server(findings, devices, options.directory)
        if options.plot:
            options.plot.mkdir(parents=True, exist_ok=True)
            plot.draw(findings, options.plot)
    except (FailedError, UnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    about["fleet"] = f"{devices} devices, seed {options.seed}"
    print((report.markdown if options.markdown else report.text)(about, rows))
    print()
    print(table.scenarios(findings, markdown=options.markdown))
    if options.json:
        found = {
            "machine": about,
            "scenarios": [table.summary(one) for one in findings],
            "rows": [asdict(one) for one in rows],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(one.lost for one in findings))


def _server(findings: list[Finding], devices: int, directory: Path | None) -> list[Row]:
    """Measure how fast the real server ingests samples, if a scenario left bodies to send."""
    bodies = next((one.seen.bodies for one in findings if one.scenario.name == _STEADY), None)
    if bodies is None:
        return []
    largest = max(samples for _, samples in bodies)
    # By then each device has sent every series at least once.
    warm, rest = bodies[: 3 * devices], bodies[3 * devices :]
    found = []
    for some in (
        [body for body in rest if body[1] < largest / 5],
        [body for body in rest if body[1] == largest],
    ):
        with TemporaryDirectory(prefix="bela-fleet-", dir=directory) as where:
            found.append(ingestion.measure(warm, some, Path(where)))
    return table.server(findings, *found)


def _parse(arguments: list[str]) -> argparse.Namespace:
    names = [one.name for one in SCENARIOS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--devices", type=int, help="how many (100)")
    parser.add_argument("--seed", type=int, default=1, help="another fleet of the same kind (1)")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="SCENARIO",
        help=f"one scenario; may be repeated: {'; '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a few devices: a look, not a figure")
    parser.add_argument("--directory", type=Path, help="where databases are made")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw pictures there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_program(main)
