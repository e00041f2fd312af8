"""Ingestion: sends the bodies of a fleet again, to measure samples a second of the real server."""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet.proxy import Server
from benchmarks.harness import FailedError, wait_until
from benchmarks.server import Victoria, victoria

CONNECTIONS = 4
"""The number of requests in flight at any moment."""

Body = tuple[bytes, int]
"""A compressed body, and how many samples it holds."""


@dataclass(frozen=True, slots=True)
class Ingestion:
    """How fast a server ingested bodies of one kind.

    :ivar samples: in one body, on average.
    :ivar rate: samples a second, by the real clock; the sender runs on the same machine.
    :ivar cpu: seconds of the server's CPU time for a million samples.
    :ivar resident: the server's resident memory afterwards, in bytes.
    """

    samples: float
    rate: float
    cpu: float
    resident: float


def measure(warm: Sequence[Body], bodies: Sequence[Body], where: Path) -> Ingestion:
    """Send bodies to a new server, as fast as it accepts them.

    :param warm: a body sent before, so that the server knows the series: new series are rare in the
        long run.
    :param where: the server's data goes below.
    """
    with victoria(where) as real:
        _send(real, warm)
        before = _metric(real, "process_cpu_seconds_total")
        begun = time.monotonic()
        _send(real, bodies)
        took = time.monotonic() - begun
        samples = sum(count for _, count in bodies)
        total = samples + sum(count for _, count in warm)
        # What it says of itself it keeps for some seconds and says again.
        wait_until(lambda: real.rows() == total, seconds=20, what="the server's count")
        cpu = _metric(real, "process_cpu_seconds_total") - before
        resident = _metric(real, "process_resident_memory_bytes")
    return Ingestion(samples / len(bodies), samples / took, cpu * 1e6 / samples, resident)


def _send(real: Victoria, bodies: Sequence[Body]) -> None:
    def send(part: Sequence[Body]) -> None:
        server = Server(real.port)
        for body, _ in part:
            server.post(body)
        server.close()

    threads = [
        threading.Thread(target=send, args=(bodies[i::CONNECTIONS],)) for i in range(CONNECTIONS)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def _metric(real: Victoria, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", real.get("/metrics"), re.MULTILINE)
    if found is None:
        raise FailedError(f"the server does not say {name}")
    return float(found[1])
