"""The wall clock jumps while the service runs: no timer notices."""

import time
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.faults.scenario import World
from tests.victoria.faketime import environment
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]


@pytest.mark.parametrize("jump", ["-2h", "+50y"])
def test_the_clock_jumps_and_is_put_right(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, jump: str
) -> None:
    """Collection goes on after the jump, and after the jump back.

    A timer on the wall clock would not fire for two hours.
    """
    said = tmp_path / "clock"
    said.write_text("+0\n")
    world = World(
        tmp_path / "device",
        server,
        proxy,
        collect="500ms",
        monitoring={"clock_skew_url": f"{server.url}/health"},
    )
    began_ms = time.time() * 1000
    with world.run(env=environment(said)) as service:
        for offset in ("+0\n", f"{jump}\n", "+0\n"):
            said.write_text(offset)
            world.collects(service, 5)
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    ended_ms = time.time() * 1000
    # The clock differed from the server's: samples that were stamped meanwhile waited, and moved.
    assert account.delivered == account.collected
    times = [at for (at,) in world.query("SELECT timestamp_ms FROM metrics")]
    assert began_ms <= min(times)
    assert max(times) <= ended_ms
