"""The wear benchmark lives a day as the service does."""

from pathlib import Path

import pytest

from benchmarks import wear
from benchmarks.harness import in_worker

pytestmark = pytest.mark.process

HOUR = 3600.0


def test_an_hour(tmp_path: Path) -> None:
    """Every tick of an hour is stored, the agent's own metrics with it; all but the last ticks are
    delivered, and the write-ahead log was emptied at the full hour.
    """
    found = in_worker(
        wear.live, None, str(tmp_path / "db"), "", before=0.0, seconds=HOUR, synchronous="normal"
    )
    ticks = HOUR / wear.INTERVAL
    assert ticks * 80 < found["samples"] < ticks * 80 * 1.1
    assert found["pending"] < 5 * 80
    assert found["deleted"] == 0
    assert found["log"] < 1 << 20 < found["file"] * 2
