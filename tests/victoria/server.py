"""A real VictoriaMetrics of the test's own."""

import json
import os
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.process import TIMEOUT, Lines, free_port, until_listening

Points = dict[tuple[tuple[str, str], ...], list[tuple[int, float]]]
"""Milliseconds and values, by the labels of a series (``__name__`` among them), sorted."""

DEDUPLICATING = "-dedup.minScrapeInterval=1ms"
"""The flag that a server for this agent runs with: what is sent twice is there once."""

PROGRAM = shutil.which("victoria-metrics")


def require() -> None:
    """Skip where the server is not installed; fail where ``BELA_REQUIRE_VICTORIA=1`` demands it."""
    if PROGRAM is None:
        reason = "victoria-metrics is not installed (Debian: apt-get install victoria-metrics)"
        if os.environ.get("BELA_REQUIRE_VICTORIA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


class VictoriaMetrics:
    """A server on a loopback port, its data in a folder; no deduplication, nothing held back.

    :param options: further flags.
    :param port: where to listen; a free one if it is not given.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        require()
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                str(PROGRAM),
                f"-storageDataPath={folder}",
                f"-httpListenAddr={self.url.removeprefix('http://')}",
                "-retentionPeriod=100y",
                "-search.latencyOffset=1ms",
                "-memory.allowedPercent=5",
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        self.log = Lines(self.process.stderr)

    def __enter__(self) -> "VictoriaMetrics":
        self.log.until(lambda line: "started VictoriaMetrics" in line, "the server's start")
        until_listening(self.port)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server in order: what it has acknowledged is on its disk afterwards."""
        self.process.terminate()
        self.process.wait()
        self.log.thread.join()

    @property
    def import_url(self) -> str:
        """Where samples go."""
        return f"{self.url}/api/v1/import"

    def get(self, path: str, **arguments: str) -> bytes:
        """Fetch one of the server's addresses."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return bytes(answer.read())

    def flush(self) -> None:
        """Make what was imported visible to queries."""
        self.get("/internal/force_flush")

    def received(self) -> int:
        """Return how many points were imported since the start. Unlike a query for series that are
        not there yet, this leaves no memory of their absence.
        """
        name = 'vm_rows_inserted_total{type="vmimport"} '
        lines = self.get("/metrics").decode().splitlines()
        return sum(int(line.removeprefix(name)) for line in lines if line.startswith(name))

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Run an instant query, now."""
        self.flush()
        answer = json.loads(
            self.get("/api/v1/query", query=promql, time=str(time.time()), nocache="1")
        )
        assert answer["status"] == "success"
        result = answer["data"]["result"]
        assert isinstance(result, list)
        return result

    def counter(self, name: str) -> int:
        """Return one of the server's own metrics, by its name and labels as ``/metrics`` has it."""
        for line in self.get("/metrics").decode().splitlines():
            key, _, value = line.rpartition(" ")
            if key == name:
                return int(float(value))
        return 0

    def export(self, device_id: str) -> Points:
        """Return every point that the server has of a device: by labels, in its order."""
        self.flush()
        text = self.get(
            "/api/v1/export",
            **{"match[]": f'{{device_id="{device_id}"}}', "start": "0", "end": "4000000000"},
        )
        result: Points = {}
        for line in text.splitlines():
            one = json.loads(line)
            points = zip(one["timestamps"], one["values"], strict=True)
            result.setdefault(tuple(sorted(one["metric"].items())), []).extend(points)
        return result
