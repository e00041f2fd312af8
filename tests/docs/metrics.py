"""The table of ``docs/metrics.md``, from what the sources declare."""

from collections.abc import Iterator

from belatwist.collectors.registry import CATALOGUE, SOURCE_OF

AGENT = "always on"
"""Stands for a source where a metric is the agent's own: it cannot be switched off."""


def render() -> str:
    """Return a table of every metric."""
    return "\n".join(_rows())


def _rows() -> Iterator[str]:
    yield "| stored as | queried as | labels | kind | unit | meaning | collector |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for stored, metric in CATALOGUE.items():
        tags = ", ".join(f"`{tag}`" for tag in metric.tags)
        yield (
            f"| `{stored}` | `{metric.prometheus_name}` | {tags} | {metric.type} | {metric.unit} |"
            f" {metric.help} | `{SOURCE_OF.get(stored, AGENT)}` |"
        )
