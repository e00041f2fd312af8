"""A long outage's backlog over a bad link: it drains, and fresh samples do not wait for it."""

from itertools import count
from pathlib import Path
from random import Random

import pytest

from belatwist.clock.sources import wall_ms
from belatwist.model import Series, sample
from tests.faults.proxy import Action, Answer, Cut, Forward, Hang, Proxy, Request, Reset
from tests.faults.scenario import Account, World
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

UPLOAD_MS = 1000
TIMEOUT_MS = 2000
SERIES = 50
FAULTS = (Reset(), Cut(), Hang(), Answer(503), Answer(429), Answer(400), Answer(401))


def storm(
    server: VictoriaMetrics, proxy: Proxy, folder: Path, *, backlog: int, every: int, seed: int
) -> Account:
    """Drain a backlog through 200 ms, 200 kB a second, and a fault every so many requests."""
    random = Random(seed)
    requests = count(1)

    def rule(_request: Request) -> Action:
        return random.choice(FAULTS) if next(requests) % every == 0 else Forward()

    proxy.round_trip, proxy.bandwidth = 0.2, 200_000
    proxy.rule(rule)
    remote = {"timeout": f"{TIMEOUT_MS}ms"}
    world = World(
        folder / "device",
        server,
        proxy,
        collect="500ms",
        upload=f"{UPLOAD_MS}ms",
        remote=remote,
    )
    series = [Series.of("backlog", world.device, {"number": str(n)}) for n in range(SERIES)]
    start = wall_ms() - 3600_000 - backlog // SERIES * 1000
    world.prefill(
        [sample(series[n % SERIES], start + n // SERIES * 1000, n) for n in range(backlog)]
    )
    with world.run() as service:
        while world.query("SELECT 1 FROM metrics WHERE uploaded = 0 AND metric_name = 'backlog'"):
            proxy.wait_over(5)
        assert service.stop() == 0
    account = world.finish()
    print(f"fresh samples waited {world.latencies()[-1] / 1000:.1f} s at most")
    return account


def fresh_samples_overtake(proxy: Proxy) -> bool:
    """Say whether the server took fresh samples before the last ones of the backlog."""
    taken = [one.request.names() for one in proxy.seen if one.taken]
    last = max(at for at, names in enumerate(taken) if "backlog" in names)
    return any(names != {"backlog"} for names in taken[:last])


def test_a_storm(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """Everything arrives, and fresh samples arrive while the backlog drains."""
    account = storm(server, proxy, tmp_path, backlog=10_000, every=4, seed=3)
    assert account.rejected == 0
    assert account.delivered == account.collected
    assert fresh_samples_overtake(proxy)


@pytest.mark.soak
def test_a_long_storm(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """The same with a backlog of a day or more."""
    account = storm(server, proxy, tmp_path, backlog=200_000, every=8, seed=4)
    assert account.rejected == 0
    assert account.delivered == account.collected
    assert fresh_samples_overtake(proxy)
