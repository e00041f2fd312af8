"""The paths of a real server: which of them acknowledge samples and keep none."""

import json
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from belatwist.config.endpoints import right_url
from tests.config.test_endpoints import OTHER
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]


def post(url: str) -> int:
    """Post a sample as the agent does; return the status."""
    now = time.time_ns() // 1_000_000
    line = {
        "metric": {"__name__": "x", "device_id": "path", "url": url},
        "values": [1],
        "timestamps": [now],
    }
    try:
        headers = {"Content-Type": "application/x-ndjson"}
        with urlopen(Request(url, json.dumps(line).encode(), headers)) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def test_no_other_path_keeps_a_sample(tmp_path: Path) -> None:
    """Some answer 204 all the same. The path that is named instead keeps the sample."""
    with VictoriaMetrics(tmp_path) as server:
        statuses = {path: post(f"{server.url}{path}") for path in OTHER}
        lossy = {path for path, status in statuses.items() if status == 204}
        assert {"/api/v1/import/prometheus", "/write", "/api/v2/write", "/ping"} <= lossy
        assert server.export("path") == {}
        for prefix in ("", "/prometheus"):
            right = right_url(f"{server.url}{prefix}/api/v1/import/prometheus")
            assert right == f"{server.url}{prefix}/api/v1/import"
            assert post(right) == 204
        assert len(server.export("path")) == 2
