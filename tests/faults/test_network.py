"""Faults of the network, with a real server: no sample is lost, and none is there twice."""

import threading
from pathlib import Path

import pytest

from tests.faults.proxy import Answer, Cut, Forward, Hang, Proxy, Reset
from tests.faults.scenario import World
from tests.process import TIMEOUT
from tests.victoria.server import DEDUPLICATING, VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]


def test_refused_for_a_while(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """While the port is closed collection goes on; afterwards everything arrives."""
    world = World(tmp_path / "device", server, proxy)
    with world.run() as service:
        service.expect_event("upload.completed")
        proxy.refuse()
        service.expect_event("Upload chunk failed, retrying")
        world.collects(service, 6)
        proxy.accept()
        service.expect_event("upload.recovered")
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected


def test_the_server_is_stopped_and_started(tmp_path: Path) -> None:
    """The same with a server that ends and comes back, and no proxy in between."""
    folder = tmp_path / "data"
    with VictoriaMetrics(folder, DEDUPLICATING) as first, Proxy(first.port) as proxy:
        url = first.import_url
        world = World(tmp_path / "device", first, proxy, url=url)
        with world.run() as service:
            service.expect_event("upload.completed")
            first.stop()
            service.expect_event("Upload chunk failed, retrying")
            world.collects(service, 6)
            with VictoriaMetrics(folder, DEDUPLICATING, port=first.port):
                service.expect_event("upload.recovered")
                world.drains(service)
                assert service.stop() == 0
                account = world.finish()
    assert account.delivered == account.collected


@pytest.mark.parametrize("attempts", [1, 3], ids=["between two cycles", "within one"])
def test_the_return_is_noticed(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, attempts: int
) -> None:
    """A server that is back need not wait for the uploader's next cycle or attempt."""
    retry = {"max_attempts": attempts, "initial_backoff": "10m", "max_backoff": "10m"}
    world = World(tmp_path / "device", server, proxy, upload="8s", remote={"retry": retry})
    proxy.refuse()
    with world.run() as service:
        service.expect_event("upload.chunk_failed" if attempts > 1 else "upload.failed")
        world.collects(service, 3)
        proxy.accept()
        service.expect_event("upload.server_reachable")
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected


@pytest.mark.parametrize("after", [0, 12], ids=["before its first byte", "in its first line"])
def test_the_answer_is_cut(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, after: int
) -> None:
    """The server took the body, but the agent does not know: the same bytes are sent again."""
    world = World(tmp_path / "device", server, proxy)
    with world.run() as service:
        proxy.wait_over(2)
        proxy.script(Cut(after), Cut(after), Cut(after), Cut(after))
        proxy.wait(lambda seen: sum(isinstance(o.action, Cut) for o in seen) == 4, "four cuts")
        service.expect_event("upload.recovered")
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected
    assert account.sent_again > 0
    cut = [one for one in proxy.seen if isinstance(one.action, Cut)]
    assert all(one.taken for one in cut)
    # Three attempts are a chain; the fourth began another cycle.
    assert cut[0].request.sent == cut[1].request.sent == cut[2].request.sent


def test_connections_are_reset(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """Every other request ends in a reset: each is sent again."""
    world = World(tmp_path / "device", server, proxy)
    with world.run() as service:
        for _ in range(5):
            proxy.script(Reset())
            proxy.wait_over(2)
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected
    assert account.sent_again == 0


def test_accepts_and_never_answers(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """The request ends after the timeout and is sent again, on one connection at a time."""
    world = World(tmp_path / "device", server, proxy, remote={"timeout": "500ms"})
    with world.run() as service:
        proxy.wait_over(1)
        proxy.script(*[Hang()] * 4)
        failed = service.expect_event("Upload chunk failed, retrying")
        assert "no answer within 0.5 s" in failed["error"]
        service.expect_event("upload.recovered")
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected
    assert proxy.most_open == 1


def test_a_slow_link(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """200 ms there and back, 20 kB a second: all arrives, over one connection."""
    proxy.round_trip, proxy.bandwidth = 0.2, 20_000
    world = World(tmp_path / "device", server, proxy)
    with world.run() as service:
        world.collects(service, 8)
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected
    assert proxy.most_open == 1


def test_collection_does_not_wait_for_a_request(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path
) -> None:
    """While the server owes an answer, ticks are collected and stored."""
    answered = threading.Event()
    slow = Forward(taken=lambda: answered.wait(TIMEOUT))
    world = World(tmp_path / "device", server, proxy, remote={"timeout": f"{2 * TIMEOUT:g}s"})
    with world.run() as service:
        proxy.wait_over(1)
        proxy.script(slow)
        proxy.wait(lambda seen: seen[-1].action == slow, "a slow request")
        world.collects(service, 5)
        assert not proxy.seen[-1].over
        answered.set()
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected


def test_stopped_with_a_request_under_way(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path
) -> None:
    """The agent waits for the answer and records it: the body is not sent again."""
    world = World(tmp_path / "device", server, proxy)
    slow = Forward(delay=1.0)
    with world.run() as service:
        proxy.wait_over(1)
        proxy.script(slow)
        proxy.wait(lambda seen: seen[-1].action == slow and not seen[-1].over, "a slow request")
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected
    assert account.sent_again == 0


def test_stopped_while_it_waits(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """A wait of an hour does not delay the end."""
    world = World(tmp_path / "device", server, proxy)
    with world.run() as service:
        proxy.wait_over(1)
        proxy.script(Answer(503, {"Retry-After": "3600"}))
        service.expect_event("Upload chunk failed, retrying")
        assert service.stop() == 0
    account = world.finish()
    assert account.delivered == account.collected
