"""SIGKILL at random moments: what was committed is delivered, and nothing twice."""

from pathlib import Path

import pytest

from tests.faults.kills import REMOTE, Kills
from tests.faults.proxy import Proxy
from tests.faults.scenario import World
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

LIVES = 8


def killed(
    server: VictoriaMetrics, proxy: Proxy, folder: Path, lives: int, seed: int, *, bad_network: bool
) -> None:
    """Live so many lives, and account for every sample."""
    world = World(folder / "device", server, proxy, collect="100ms", upload="100ms", remote=REMOTE)
    kills = Kills(world, proxy, seed)
    for _ in range(lives):
        kills.live(bad_network=bad_network)
    kills.check()
    assert world.query("SELECT count(*) FROM sessions WHERE status = 'completed'") == [(0,)]
    account = world.finish()
    print(f"{lives} kills: {dict(kills.moments)}")
    kills.check()
    assert account.rejected == 0
    assert account.delivered == account.collected


@pytest.mark.parametrize("bad_network", [False, True], ids=["good network", "bad network"])
def test_killed(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, *, bad_network: bool
) -> None:
    """A few kills with a fixed seed; ``make soak`` has more of them."""
    killed(server, proxy, tmp_path, LIVES, 1, bad_network=bad_network)


@pytest.mark.soak
@pytest.mark.parametrize("bad_network", [False, True], ids=["good network", "bad network"])
def test_killed_again_and_again(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, *, bad_network: bool
) -> None:
    """Fifty kills each."""
    killed(server, proxy, tmp_path, 50, 2, bad_network=bad_network)
