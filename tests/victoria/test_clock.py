"""A wrong wall clock, put right while the service runs: samples land where they happened."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from belatwist.clock.sources import kernel_synchronised
from tests.process import Twistd, write_config
from tests.victoria.faketime import environment
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]


@pytest.mark.parametrize("wrong", ["-2h", "+50y"])
def test_put_right_by_a_step(wrong: str, tmp_path: Path) -> None:
    """Nothing is sent while the clock is wrong; afterwards every sample has its true time.

    Timers go on meanwhile, whichever way the clock jumps.
    """
    if kernel_synchronised():
        pytest.skip("this machine's kernel says that its clock is right, and the agent believes it")
    said = tmp_path / "clock"
    said.write_text(f"{wrong}\n")
    with VictoriaMetrics(tmp_path / "data") as server:
        config = write_config(
            tmp_path,
            remote={"enabled": True, "url": server.import_url, "upload_interval": "1s"},
            metrics=[{"name": "system.load", "interval": "1s"}],
        )
        began_ms = time.time() * 1000
        with Twistd(
            "bela", "--config", str(config), cwd=tmp_path, env=environment(said)
        ) as service:
            held = service.expect_event("upload.on_hold")
            service.expect_event("scheduler.tick_stored")
            assert server.received() == 0
            said.write_text("+0\n")
            stepped = service.expect_event("clock.stepped")
            moved = service.expect_event("clock.samples_restamped")
            service.expect_event("upload.completed")
            service.expect_event("scheduler.tick_stored")
            assert service.stop() == 0
        ended_ms = time.time() * 1000
        exported = server.export("test-device")
    assert "differs from the server's" in held["error"]
    assert abs(stepped["step_ms"]) > 7_000_000
    assert moved["count"] >= 6
    assert exported
    for points in exported.values():
        times = [at for at, _ in points]
        assert began_ms <= times[0]
        assert times[-1] <= ended_ms
        assert all(earlier < later for earlier, later in pairwise(times))
