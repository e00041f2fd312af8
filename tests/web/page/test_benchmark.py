"""The page's benchmark runs and gives figures that can be true."""

from pathlib import Path

import pytest

from belatwist.store.sql.ranges import ROWS
from benchmarks import page
from benchmarks.harness import in_worker

pytestmark = pytest.mark.process


def test_a_day_in_pieces(tmp_path: Path) -> None:
    """All of a day is read, in pieces of which each takes some time."""
    page.fill(tmp_path / "metrics.db", 100)
    found = in_worker(page.pieces, None, str(tmp_path / "metrics.db"))
    assert found["pieces"] >= 80 * 100 // ROWS
    assert 0 < found["longest"] < 1
