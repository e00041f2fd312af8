"""The findings as tables."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from benchmarks.fleet.ingestion import Ingestion
from benchmarks.fleet.run import Finding
from benchmarks.harness import Row

NAME = "fleet"

_HEADINGS = (
    "scenario",
    "what is special",
    "requests / s",
    "connections / s",
    "samples / s",
    "server busy",
    "half drained",
    "all drained",
    "lost",
    "sent twice",
)


def scenarios(findings: Sequence[Finding], *, markdown: bool) -> str:
    """Make a table of the scenarios. The rates are those of the busiest second since the return."""
    cells = [_cells(one) for one in findings]
    if markdown:
        rules = ("---", "---", *["---:"] * (len(_HEADINGS) - 2))
        return "\n".join(f"| {' | '.join(row)} |" for row in (_HEADINGS, rules, *cells))
    table = [_HEADINGS, *cells]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(
            f"{cell:{'<' if i < 2 else '>'}{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


def summary(finding: Finding) -> dict[str, float | str]:
    """Give the figures of a scenario by name."""
    seen, back = finding.seen, finding.back
    return {
        "scenario": finding.scenario.name,
        "devices": finding.devices,
        "requests_per_second": _most(seen.attempts, back),
        "connections_per_second": _most(seen.connections, back),
        "samples_per_second": _most(seen.samples, back),
        "busy": max(seen.busy.values()),
        "half_drained_seconds": median(finding.drained),
        "all_drained_seconds": finding.drained[-1],
        "collected": finding.collected,
        "lost": finding.lost,
        "twice": finding.twice,
        "latency_median_ms": median(finding.latencies) * 1000,
        "latency_99_ms": finding.latencies[len(finding.latencies) * 99 // 100] * 1000,
        "took_seconds": finding.took,
    }


def server(findings: Sequence[Finding], small: Ingestion, large: Ingestion) -> list[Row]:
    """Make the rows about the real server.

    :param small: ingestion of bodies as devices send them in the steady state.
    :param large: ingestion of bodies as they send them when they drain.
    """
    latencies = sorted(seconds for one in findings for seconds in one.latencies)
    rows = [
        Row(NAME, "a request, median", median(latencies) * 1000, "ms", "one at a time"),
        Row(NAME, "a request, 99 %", latencies[len(latencies) * 99 // 100] * 1000, "ms", ""),
    ]
    for what, one in (("steady", small), ("backlog", large)):
        note = f"{one.samples:,.0f} a request, 4 connections, the sender on the same machine"
        rows += [
            Row(NAME, f"ingestion, {what}", one.rate, "samples / s", note),
            Row(NAME, f"ingestion, {what}, CPU", one.cpu, "s / 1,000,000 samples", "the server's"),
        ]
    rows.append(Row(NAME, "memory", large.resident / 2**20, "MiB RSS", "the server's, then"))
    return rows


def _cells(finding: Finding) -> tuple[str, ...]:
    found = summary(finding)
    return (
        finding.scenario.name,
        finding.scenario.about,
        f"{found['requests_per_second']:,}",
        f"{found['connections_per_second']:,}",
        f"{found['samples_per_second']:,}",
        f"{found['busy']:.0%}",
        f"{found['half_drained_seconds']:.0f} s",
        f"{found['all_drained_seconds']:.0f} s",
        f"{found['lost']:,}",
        f"{finding.twice / finding.collected:.1%}",
    )


def _most(counts: Counter[int], since: float) -> int:
    return max((value for second, value in counts.items() if second >= since), default=0)
