"""The wall clock jumps while the service runs: no timer notices."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.faults.scenario import World
from tests.victoria.faketime import environment
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

INTERVAL = 0.5


@pytest.mark.parametrize("jump", ["-2h", "+50y"])
def test_the_clock_jumps_and_is_put_right(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, jump: str
) -> None:
    """Collection keeps its interval on both sides of the jump, and of the one back."""
    said = tmp_path / "clock"
    said.write_text("+0\n")
    world = World(
        tmp_path / "device",
        server,
        proxy,
        collect=f"{INTERVAL * 1000:.0f}ms",
        monitoring={"clock_skew_url": f"{server.url}/health"},
    )
    moments = []
    with world.run(env=environment(said)) as service:
        for offset in ("+0\n", f"{jump}\n", "+0\n"):
            said.write_text(offset)
            for _ in range(5):
                world.collects(service, 1)
                moments.append(time.monotonic())
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert all(later - earlier < 2 * INTERVAL for earlier, later in pairwise(moments))
    # The server said that the clock was wrong; what was stamped meanwhile waited, and was moved.
    assert account.delivered == account.collected
    assert max(world.gaps()) < 2000 * INTERVAL
