"""A file that never answers delays neither the other collectors nor the end."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from belatwist.scheduler.service import DEADLINE
from tests.faults.proxy import Proxy
from tests.faults.scenario import World
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

BOARD = Path(__file__).parent.parent / "fixtures" / "orangepi5plus"
STUCK = "system.uptime"
OTHERS = {"memory.usage", "system.load"}


class Board:
    """A board with an uptime that stops answering, and answers again.

    :ivar world: a device that reads it.
    """

    def __init__(self, server: VictoriaMetrics, proxy: Proxy, folder: Path) -> None:
        board = folder / "board"
        shutil.copytree(BOARD, board)
        self._uptime = board / "proc/uptime"
        self._new = self._uptime.with_name("new")
        self._dead = self._uptime.with_name("dead")
        os.mkfifo(self._dead)
        self.world = World(
            folder / "device",
            server,
            proxy,
            collectors=(STUCK, *sorted(OTHERS)),
            collect="500ms",
            paths={"procfs": str(board / "proc"), "sysfs": str(board / "sys")},
        )

    def hang(self) -> None:
        """Let the next read have no end."""
        self._new.hardlink_to(self._dead)
        self._new.rename(self._uptime)

    def answer(self) -> None:
        """Let the next read have an answer, and the read that hangs a stale one."""
        self._new.write_text("45.00 1.00\n")
        self._new.rename(self._uptime)
        self._dead.write_text("44.00 1.00\n")


def collected(events: list[dict[str, Any]]) -> list[str]:
    """Return the collectors that have collected, in their order."""
    return [one["collector"] for one in events if one.get("event") == "collector.collected"]


def test_a_file_that_never_answers(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """The failure is logged once, at the deadline, and the recovery, too.

    The other collectors wait neither for the deadline nor afterwards.
    """
    board = Board(server, proxy, tmp_path)
    world = board.world
    with world.run() as service:
        world.collects(service, 2)
        board.hang()
        stuck = service.expect_event("Collection failed")
        assert stuck["level"] == "ERROR"
        assert stuck["error"] == f"no answer within {DEADLINE:g} s"
        world.collects(service, 6)
        proxy.wait_over(2)
        board.answer()
        service.expect_event("collector.recovered")
        service.expect_event("scheduler.tick_stored")
        assert service.stop() == 0
        events = [json.loads(line) for line in service.log.rest() if line.startswith("{")]
    names = [one.get("event") for one in events]
    failed, recovered = names.index("collector.failed"), names.index("collector.recovered")
    errors = [one for one in events if one.get("event") == "collector.failed"]
    assert [one["level"] for one in errors].count("ERROR") == 1
    before = collected(events[:failed])
    last = len(before) - 1 - before[::-1].index(STUCK)
    assert set(before[last + 1 :]) >= OTHERS
    during = collected(events[failed:recovered])
    assert STUCK not in during
    assert all(during.count(other) >= 6 for other in OTHERS)
    # The stale answer is not stored.
    assert world.query("SELECT count(*) FROM metrics WHERE metric_value = 44.0") == [(0,)]
    account = world.finish()
    assert account.delivered == account.collected


def test_stopped_while_a_file_does_not_answer(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path
) -> None:
    """The agent ends although the read never does."""
    board = Board(server, proxy, tmp_path)
    board.hang()
    with board.world.run() as service:
        board.world.collects(service, 2)
        assert service.stop() == 0
        assert STUCK not in collected([json.loads(one) for one in service.log.rest()])
