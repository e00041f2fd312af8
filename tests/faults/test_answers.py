"""Answers of servers and proxies: no sample is lost but those that are bad."""

from collections import Counter
from email.utils import formatdate
from itertools import cycle, pairwise
from pathlib import Path

import pytest

from belatwist.clock.sources import wall_ms
from belatwist.model import Series, sample
from tests.faults.proxy import Action, Answer, Forward, Proxy, Request
from tests.faults.scenario import World
from tests.victoria.server import DEDUPLICATING, VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

BAD = "memory_used_bytes"
REFUSAL = Answer(400, body=b"cannot parse")
DAY_MS = 24 * 3600 * 1000


def refuse_bad(request: Request) -> Action:
    """Refuse a body that holds one given series."""
    return REFUSAL if BAD in request.names() else Forward()


def test_one_series_is_refused(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """Only that series' samples are rejected; and in the end it costs one refusal a cycle."""
    world = World(tmp_path / "device", server, proxy)
    proxy.rule(refuse_bad)
    with world.run() as service:
        for _ in range(10):
            service.expect("refused twice: HTTP 400: cannot parse")
        known = len(proxy.seen)
        for _ in range(5):
            service.expect_event("upload.completed")
        refused = sum(one.status == 400 for one in proxy.seen[known:])
        assert service.stop() == 0
    names = world.query("SELECT DISTINCT metric_name FROM metrics WHERE uploaded = 2")
    assert names == [("memory.used_bytes",)]
    account = world.finish()
    assert account.rejected >= 10
    assert account.delivered + account.rejected == account.collected
    assert account.sent_again == 0
    assert refused <= 6


def test_one_body_is_refused_once(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """A 400 that says nothing about the samples: each half is accepted."""
    world = World(tmp_path / "device", server, proxy)
    proxy.script(Forward(), REFUSAL)
    with world.run() as service:
        proxy.wait_over(8)
        assert service.stop() == 0
    account = world.finish()
    assert account.rejected == 0
    assert account.delivered == account.collected


@pytest.mark.parametrize("name", ["memory_used_bytes", "system_uptime_seconds"])
def test_a_lone_sample_is_refused_once(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, name: str
) -> None:
    """Refused by itself, and accepted in a later cycle: it was not the sample's fault.

    The one is the first of its tick, refused before the server has taken anything; the other the
    last, when it has taken all others.
    """
    world = World(tmp_path / "device", server, proxy)
    alone: list[Request] = []

    def rule(request: Request) -> Action:
        if alone or name not in request.names():
            return Forward()
        if len(request.points) == 1:
            alone.append(request)
        return REFUSAL

    proxy.rule(rule)
    with world.run() as service:
        proxy.wait(lambda _: alone, "a lone sample")
        refused = alone[0].points[0]
        proxy.wait(
            lambda seen: any(refused in one.request.points for one in seen if one.taken),
            "the same sample, taken",
        )
        world.drains(service)
        assert service.stop() == 0
    account = world.finish()
    assert account.rejected == 0
    assert account.delivered == account.collected


def test_unauthorized_for_a_while(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """A wrong token marks nothing; the right one, put in its file, is used without a restart."""
    wrong, right = "wrong-5af1c03e9d", "right-77e0b6d2aa"
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(wrong)
    world = World(tmp_path / "device", server, proxy, remote={"auth_token_file": str(token)})

    def rule(request: Request) -> Action:
        allowed = request.headers.get("authorization") == f"Bearer {right}"
        return Forward() if allowed else Answer(401, body=b"who are you?")

    proxy.rule(rule)
    with world.run() as service:
        failed = service.expect_event("upload.misconfigured")
        assert failed["http_status"] == 401
        proxy.wait_over(3)
        assert world.query("SELECT count(*) FROM metrics WHERE uploaded <> 0") == [(0,)]
        token.write_text(right)
        service.expect_event("upload.recovered")
        world.drains(service)
        assert service.stop() == 0
        log = "\n".join(service.log.rest())
    assert wrong not in log
    assert right not in log
    assert {one.request.headers["authorization"] for one in proxy.seen} == {
        f"Bearer {wrong}",
        f"Bearer {right}",
    }
    account = world.finish()
    assert account.rejected == 0
    assert account.delivered == account.collected


COOKIES = {"Set-Cookie": "portal=s3cret; Path=/; Max-Age=99999"}
PORTALS = (
    Answer(200, COOKIES),
    Answer(200, COOKIES, b"<html>Please log in"),
    Answer(200, {**COOKIES, "Content-Type": "application/json"}, b'{"error": "no credit"}'),
    Answer(202, {**COOKIES, "Content-Type": "text/plain"}, b"queued"),
    Answer(302, {**COOKIES, "Location": "http://u:p@portal.example/login?to=s3cret"}),
    Answer(204, {f"X-{i}": "x" * 100 for i in range(400)}),
)


def test_something_else_answers_for_a_while(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path
) -> None:
    """What a portal or a default site answers marks nothing, and nothing of it comes back."""
    world = World(tmp_path / "device", server, proxy)
    portals = cycle(PORTALS)
    proxy.rule(lambda _: next(portals))
    with world.run() as service:
        proxy.wait_over(len(PORTALS) * 2)
        assert world.query("SELECT count(*) FROM metrics WHERE uploaded <> 0") == [(0,)]
        proxy.heal()
        world.drains(service)
        assert service.stop() == 0
        log = "\n".join(service.log.rest())
    assert "http://portal.example/login" in log
    assert "s3cret" not in log
    assert "u:p@" not in log
    assert all("cookie" not in one.request.headers for one in proxy.seen)
    account = world.finish()
    assert account.rejected == 0
    assert account.delivered == account.collected


@pytest.mark.parametrize("attempts", [1, 3])
def test_retry_after_is_kept(
    server: VictoriaMetrics, proxy: Proxy, tmp_path: Path, attempts: int
) -> None:
    """Seconds or a date: no request comes earlier, neither an attempt nor a new cycle."""
    retry = {"max_attempts": attempts, "initial_backoff": "50ms", "max_backoff": "200ms"}
    world = World(tmp_path / "device", server, proxy, remote={"retry": retry})
    until: list[float] = []

    def dated(request: Request) -> Action:
        until.append(int(request.wall) + 3)
        return Answer(503, {"Retry-After": formatdate(until[0], usegmt=True)})

    with world.run() as service:
        proxy.wait_over(1)
        proxy.script(Answer(429, {"Retry-After": "3"}), dated)
        asked = len(proxy.seen)
        proxy.wait_over(3)
        service.expect_event("upload.recovered")
        world.drains(service)
        assert service.stop() == 0
    first = next(i for i, one in enumerate(proxy.seen) if i >= asked and one.status == 429)
    limited, unavailable, taken = proxy.seen[first : first + 3]
    assert unavailable.request.at - limited.request.at >= 3
    assert taken.request.wall >= until[0]
    account = world.finish()
    assert account.rejected == 0
    assert account.delivered == account.collected


def test_waits_grow_and_vary(server: VictoriaMetrics, proxy: Proxy, tmp_path: Path) -> None:
    """Where the server asks for nothing, waits double, each within its jitter of 20 %."""
    retry = {
        "max_attempts": 5,
        "initial_backoff": "100ms",
        "max_backoff": "10s",
        "backoff_multiplier": 2,
        "jitter_percent": 20,
    }
    world = World(tmp_path / "device", server, proxy, remote={"retry": retry})
    proxy.script(*[Answer(503)] * 5)
    with world.run() as service:
        proxy.wait_over(6)
        world.drains(service)
        assert service.stop() == 0
    waits = [b.request.at - a.request.at for a, b in pairwise(proxy.seen[:5])]
    parts = [wait / (0.1 * 2**n) for n, wait in enumerate(waits)]
    assert all(part >= 0.8 for part in parts)
    assert len({round(part, 3) for part in parts}) > 1
    account = world.finish()
    assert account.delivered == account.collected


def test_a_read_only_server(tmp_path: Path) -> None:
    """A real server whose disk is full answers 503, while its ``/health`` is ok: samples wait."""
    data = tmp_path / "data"
    full = "-storage.minFreeDiskSpaceBytes=100000GB"
    with VictoriaMetrics(data, DEDUPLICATING, full) as server, Proxy(server.port) as proxy:
        world = World(tmp_path / "device", server, proxy)
        with world.run() as service:
            failed = service.expect_event("Upload chunk failed, retrying")
            assert failed["http_status"] == 503
            assert server.get("/health") == b"OK"
            proxy.wait_over(5)
            assert {one.status for one in proxy.seen} == {503}
            assert world.query("SELECT count(*) FROM metrics WHERE uploaded <> 0") == [(0,)]
            server.stop()
            with VictoriaMetrics(data, DEDUPLICATING, port=server.port):
                service.expect_event("upload.recovered")
                world.drains(service)
                assert service.stop() == 0
                account = world.finish()
    assert account.rejected == 0
    assert account.delivered == account.collected


def test_what_the_server_would_drop(tmp_path: Path) -> None:
    """It would answer 204 and drop them: they are rejected here, and both counts are the same."""
    with (
        VictoriaMetrics(tmp_path / "data", DEDUPLICATING) as server,
        Proxy(server.port) as proxy,
    ):
        world = World(tmp_path / "device", server, proxy, collectors=())
        now = wall_ms()

        def series(name: str, tags: dict[str, str] | None = None) -> Series:
            return Series.of(name, world.device, tags)

        good = [
            sample(series(f"good.{n}", {"at": "the limit" * n}), now - at, at)
            for n in range(3)
            for at in range(0, 5000, 1000)
        ]
        good += [
            sample(series("good.value", {"text": "ä" * 2048}), now, 1),
            sample(series("good.labels", {f"l{n}": "x" for n in range(28)}), now, 1),
            sample(series("good.ahead"), now + DAY_MS, 1),
            sample(series("good.huge"), now, 1e300),
        ]
        bad = [
            sample(series("bad.value", {"zone": "z" * 5000}), now, 1),
            sample(series("bad.value", {"zone": "z" * 5000}), now - 1000, 2),
            sample(series("bad.label", {"n" * 300: "x"}), now, 1),
            sample(series("bad.labels", {f"l{n}": "x" for n in range(40)}), now, 1),
            sample(series(""), now, 1),
            sample(series("bad.time"), 0, 1),
            sample(series("bad.time"), -5, 1),
        ]
        ahead = [sample(series("waits.ahead"), now + 3 * DAY_MS, 1)]
        world.prefill([*good, *bad, *ahead])
        with world.run() as service:
            while service.expect_event("upload.completed")["pending"] > len(ahead):
                pass
            assert service.stop() == 0
        account = world.account()
        about_itself = dict(
            world.query(
                "SELECT uploaded, count(*) FROM metrics WHERE session_id <> 'earlier'"
                " GROUP BY uploaded"
            )
        )
        delivered = len(good) + about_itself.get(1, 0)
        assert server.counter('vm_rows_inserted_total{type="vmimport"}') == delivered
        assert server.counter('vm_rows_invalid_total{type="vmimport"}') == 0
        for reason in ("big_timestamp", "small_timestamp", "nan_value"):
            assert server.counter(f'vm_rows_ignored_total{{reason="{reason}"}}') == 0
    assert account.delivered == delivered
    assert account.rejected == len(bad)
    assert account.collected == len(good) + len(bad) + len(ahead) + sum(about_itself.values())
    assert _names(world, 0) == Counter(one.series.name for one in ahead)
    assert _names(world, 2) == Counter(one.series.name for one in bad)
    reasons = world.query("SELECT DISTINCT reason FROM upload_checkpoints WHERE outcome = 2")
    assert len(reasons) == 5


def _names(world: World, state: int) -> Counter[str]:
    return Counter(
        name
        for (name,) in world.query(
            f"SELECT metric_name FROM metrics WHERE uploaded = {state} AND session_id = 'earlier'"
        )
    )
