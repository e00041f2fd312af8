"""Counts the samples that arrived at the server."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from urllib.parse import urlencode

from benchmarks.server import Victoria

_INSERTED = re.compile(
    r'^vm_rows_inserted_total\{type="(?:vmimport|promremotewrite)"\} (\d+)', re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Landed:
    """The samples of one device at the server.

    :ivar samples: their number.
    :ivar series: the number of series with more than one sample; a series about a tool's start has
        only one.
    """

    samples: int
    series: int


def landed(server: Victoria, device: str, *, since_ms: int = 0, until_ms: int = 2**53) -> Landed:
    """Count a device's samples in the server's export, after a flush.

    Times are in milliseconds; the end is excluded. The export is JSON
    lines, one or more a series (docs.victoriametrics.com, How to export data in JSON line format).
    """
    server.get("/internal/force_flush")
    # Without an end, the server leaves out what is younger than the current second.
    query = urlencode({"match[]": f'{{device_id="{device}"}}', "start": 0, "end": 4102444800})
    counts: Counter[frozenset[tuple[str, str]]] = Counter()
    for line in server.get(f"/api/v1/export?{query}").splitlines():
        found = json.loads(line)
        counts[frozenset(found["metric"].items())] += sum(
            since_ms <= at < until_ms for at in found["timestamps"]
        )
    return Landed(counts.total(), sum(count > 1 for count in counts.values()))


def rows(server: Victoria) -> int:
    """Return how many samples the server has accepted from all tools, by either protocol."""
    return sum(int(count) for count in _INSERTED.findall(server.get("/metrics")))
