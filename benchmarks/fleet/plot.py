"""Draws the requests, connections and samples at the proxy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from benchmarks.fleet.run import Finding
from benchmarks.fleet.scenarios import OUTAGE
from benchmarks.harness import UnavailableError

_PANELS: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType(
    {
        "powered up together,\nback between two tries": (
            ("in step, no jitter", "no jitter"),
            ("in step", "jitter ±20 %"),
        ),
        "powered up together,\nback just before a cycle": (
            ("in step, at a cycle", "jitter ±20 %"),
            ("in step, offset", "and a random first cycle"),
        ),
        "powered up apart, asked to come\nat the moment of return": (
            ("asked, a date", "jitter ±20 %"),
            ("asked, a date, spread", "and up to 12 s more"),
        ),
    }
)
_SEEN = ("attempts", "connections", "samples")
_LABELS = ("requests / s", "new connections / s", "samples / s")
_COLOURS = ("#c1440e", "#1f6fb4")


def draw(findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Draw the pictures for which these scenarios have figures.

    :return: the files.
    :raises UnavailableError: when matplotlib is not installed.
    """
    found = {one.scenario.name: one for one in findings}
    panels = {
        title: lines for title, lines in _PANELS.items() if all(name in found for name, _ in lines)
    }
    files = []
    if panels:
        files.append(_return(found, panels, folder / "fleet.png"))
    if "overload" in found:
        files.append(_overload(found["overload"], folder / "fleet-overload.png"))
    return files


def _return(
    found: Mapping[str, Finding],
    panels: Mapping[str, Sequence[tuple[str, str]]],
    path: Path,
) -> Path:
    """Draw the minute around the return, a column for each panel."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    picture = Figure(figsize=(11, 7), layout="constrained")
    grid = picture.subplots(3, len(panels), sharex=True, sharey="row", squeeze=False)
    seconds = range(-10, 50)
    for column, (title, lines) in enumerate(panels.items()):
        grid[0][column].set_title(title, fontsize=10)
        for row, what in enumerate(_SEEN):
            axes = grid[row][column]
            for (name, label), colour in zip(lines, _COLOURS, strict=True):
                one = found[name]
                counts: Counter[int] = getattr(one.seen, what)
                values = [counts[int(one.back) + second] for second in seconds]
                axes.fill_between(seconds, values, step="post", color=colour, alpha=0.25)
                axes.step(seconds, values, where="post", color=colour, label=label, linewidth=1.2)
            axes.axvline(0, color="0.5", linewidth=0.8, linestyle=":")
            axes.grid(visible=True, alpha=0.2)
            axes.yaxis.set_major_formatter(EngFormatter())
        grid[0][column].legend(fontsize=8, loc="upper right")
        grid[2][column].set_xlabel("seconds since the proxy is back")
    for row, label in enumerate(_LABELS):
        grid[row][0].set_ylabel(label)
        grid[row][0].set_ylim(bottom=0)  # Only now: it fixes the top as well, for the whole row.
    devices = next(iter(found.values())).devices
    picture.suptitle(f"{devices} devices after an hour without their server", fontsize=12)
    picture.savefig(path, dpi=100)
    return path


def _overload(one: Finding, path: Path) -> Path:
    """Draw the whole of the run in which the server is slow."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    picture = Figure(figsize=(11, 4.5), layout="constrained")
    grid = picture.subplots(2, 1, sharex=True)
    step = 10
    begin, end = -round(OUTAGE) - 240, round(one.drained[-1]) + 120
    seconds = range(begin - begin % step, end, step)
    for axes, what, label in zip(grid, ("attempts", "samples"), _LABELS[::2], strict=True):
        counts: Counter[int] = getattr(one.seen, what)
        values = [
            sum(counts[int(one.back) + second + i] for i in range(step)) / step
            for second in seconds
        ]
        axes.step([s / 60 for s in seconds], values, where="post", color=_COLOURS[1], linewidth=1.2)
        axes.axvspan(-OUTAGE / 60, 0, color="0.92")
        axes.axvline(one.drained[-1] / 60, color=_COLOURS[0], linewidth=1, linestyle="--")
        axes.grid(visible=True, alpha=0.2)
        axes.yaxis.set_major_formatter(EngFormatter())
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    grid[1].set_xlabel("minutes since the proxy is back (grey: down; dashed: all have drained)")
    picture.suptitle(
        f"{one.devices} devices, and a server that takes {one.scenario.rate:g} samples/s of each",
        fontsize=12,
    )
    picture.savefig(path, dpi=100)
    return path


def require() -> None:
    """Check that matplotlib is installed.

    :raises UnavailableError: when matplotlib is not installed.
    """
    try:
        import matplotlib as _matplotlib
    except ImportError as error:
        raise UnavailableError("matplotlib is not installed (the extra 'dev' has it)") from error
    del _matplotlib
