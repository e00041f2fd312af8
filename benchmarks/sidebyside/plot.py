"""Draws the table, and the drains."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import UnavailableError
from benchmarks.sidebyside.outage import Moment, Outage
from benchmarks.sidebyside.table import COLUMNS, Line

_COLOURS = {"belatwist": "#1f6fb4", "vmagent": "#c1440e", "Prometheus": "#7a7a7a"}
_SHADES = {"same": 1.0, "kept": 0.65, "default": 0.35}
_PANELS = (("CPU", "s / hour"), ("wire", "MB / hour"), ("written", "MB / hour"),
           ("memory, PSS", "MiB"))  # fmt: skip


def draw(table: Sequence[Line], outages: Sequence[Outage], folder: Path) -> list[Path]:
    """Draw the pictures for which there are figures.

    :return: the files.
    """
    files = []
    if any((line.what, line.unit) in _PANELS for line in table):
        files.append(_costs(table, folder / "sidebyside.png"))
    if outages:
        files.append(_drains(outages, folder / "sidebyside-drain.png"))
    return files


def _costs(table: Sequence[Line], path: Path) -> Path:
    """Draw what an hour costs: a panel for each cost, a group of bars for each place."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 7), layout="constrained")
    axes = [one for row in picture.subplots(2, 2) for one in row]
    columns = [column for column in COLUMNS if any(column in line.values for line in table)]
    for panel, (what, unit) in zip(axes, _PANELS, strict=True):
        found = [line for line in table if (line.what, line.unit) == (what, unit)]
        at = 0.0
        ticks = []
        for line in found:
            present = [column for column in columns if column in line.values]
            ticks.append(at + (len(present) - 1) / 2)
            for column in present:
                panel.bar(
                    at, line.values[column], width=0.9,
                    color=_COLOURS[column[0]], alpha=_SHADES[column[1]],
                )  # fmt: skip
                at += 1
            at += 1
        panel.set_xticks(ticks, [line.place.replace(", ", "\n") for line in found])
        panel.set_title(f"{what}, {unit}", fontsize=10)
        panel.grid(visible=True, axis="y", alpha=0.2)
    for column in columns:  # So that the legend has each of them once.
        axes[0].bar(
            0, 0, color=_COLOURS[column[0]], alpha=_SHADES[column[1]], label=COLUMNS[column]
        )
    picture.legend(ncols=3, loc="outside lower center", fontsize=9)
    picture.savefig(path, dpi=100)
    return path


def _drains(outages: Sequence[Outage], path: Path) -> Path:
    """Draw the samples landed since the server's return, and the memory of each tool."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    picture = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(2, 1))
    for number, one in enumerate(outages):
        colour = _COLOURS[one.case.tool]
        moments = [Moment(0.0, 0.0), *one.moments]
        share = [min(moment.samples / one.backlog, 1.0) for moment in moments]
        left.plot(
            [moment.seconds for moment in moments], share, color=colour, drawstyle="steps-post",
            label=f"{one.case.tool}: {one.rate:,.0f} samples/s",
        )  # fmt: skip
        steps = (one.before.pss, one.full.pss, one.most.pss)
        for i, value in enumerate(steps):
            right.bar(4 * number + i, value, width=0.9, color=colour, alpha=(0.35, 0.65, 1.0)[i])
    left.set_xlabel("seconds since the server is back")
    left.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_title(
        f"landed of what an outage of {round(outages[0].ticks):,} ticks left", fontsize=10
    )
    left.legend(fontsize=9, loc="center right")
    right.set_xticks([4 * i + 1 for i in range(len(outages))], [one.case.tool for one in outages])
    right.set_title("memory, PSS, MiB:\nbefore, with the backlog, draining", fontsize=10)
    for panel in (left, right):
        panel.grid(visible=True, axis="y", alpha=0.2)
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
