"""A sensor that never answers: the others go on, and nobody waits for it at the end."""

import os
import shutil
import time
from pathlib import Path

import pytest

from belatwist.scheduler.service import DEADLINE
from tests.faults.proxy import Proxy
from tests.faults.scenario import World
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

BOARD = Path(__file__).parent.parent / "fixtures" / "orangepi5plus"
INTERVAL_MS = 500


def replace(path: Path) -> Path:
    """Name a file that is to take another's place."""
    return path.with_name("new")


def test_a_file_that_never_answers(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """It is reported once, at its deadline; when it answers again that is told, too."""
    board = tmp_path / "board"
    shutil.copytree(BOARD, board)
    temperature = board / "sys/class/thermal/thermal_zone3/temp"
    dead = temperature.with_name("dead")
    os.mkfifo(dead)
    world = World(
        tmp_path / "device",
        server,
        proxy,
        collectors=("cpu.temperature", "memory.usage", "system.load"),
        collect=f"{INTERVAL_MS}ms",
        paths={"procfs": str(board / "proc"), "sysfs": str(board / "sys")},
    )
    with world.run() as service:
        world.collects(service, 2)
        replace(temperature).hardlink_to(dead)
        replace(temperature).rename(temperature)
        stuck = service.expect_event("Collection failed")
        assert stuck["level"] == "ERROR"
        assert stuck["error"] == f"no answer within {DEADLINE:g} s"
        world.collects(service, 6)
        proxy.wait_over(2)
        replace(temperature).write_text("45000\n")
        replace(temperature).rename(temperature)
        dead.write_text("44000\n")  # What it would have said long ago: it is not stored.
        service.expect_event("collector.recovered")
        service.expect_event("scheduler.tick_stored")
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < DEADLINE / 2
        lines = service.log.rest()
    failures = [line for line in lines if "Collection failed" in line]
    assert sum('"level":"ERROR"' in line for line in failures) == 1
    assert world.query("SELECT count(*) FROM metrics WHERE metric_value = 44.0") == [(0,)]
    account = world.finish()
    assert account.delivered == account.collected
    # Those behind the stuck one wait for its deadline once; from then on it is left out.
    gaps = sorted(world.gaps())
    assert gaps[-1] < DEADLINE * 1000 + 2 * INTERVAL_MS
    assert gaps[-2] < 2 * INTERVAL_MS
