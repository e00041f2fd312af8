"""HTTPS: a server without the right certificate gets nothing, and the log has the reason."""

from collections.abc import Callable
from pathlib import Path
from ssl import SSLContext

import pytest

from tests.faults.certificates import Authority
from tests.faults.proxy import Proxy
from tests.faults.scenario import World
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]


def test_the_right_certificate(server: VictoriaMetrics, tmp_path: Path) -> None:
    """Signed by the configured authority, for this host, in time: everything is delivered."""
    authority = Authority(tmp_path / "ca")
    with Proxy(server.port, authority.server()) as proxy:
        remote = {"tls_ca_file": str(authority.file)}
        world = World(tmp_path / "device", server, proxy, remote=remote)
        with world.run() as service:
            service.expect_event("upload.completed")
            assert service.stop() == 0
        account = world.finish()
        assert proxy.broken == []
    assert account.delivered == account.collected


@pytest.mark.parametrize(
    ("trusted", "context", "words"),
    [
        ("another", Authority.server, "the server's certificate is not trusted"),
        ("system", Authority.server, "the server's certificate is not trusted"),
        (
            "right",
            lambda authority: authority.server("example.org"),
            "the server's certificate is for another host",
        ),
        (
            "right",
            lambda authority: authority.server(days=-1),
            "the server's certificate is not trusted: it has expired",
        ),
    ],
    ids=["another authority", "the system's authorities", "another host", "expired"],
)
def test_a_wrong_certificate(
    server: VictoriaMetrics,
    tmp_path: Path,
    trusted: str,
    context: Callable[[Authority], SSLContext],
    words: str,
) -> None:
    """No request is made; samples wait, and arrive once the server has the right certificate."""
    authority = Authority(tmp_path / "ca")
    another = Authority(tmp_path / "another", "Another authority")
    files = {"right": authority.file, "another": another.file}
    remote = {"tls_ca_file": str(files[trusted])} if trusted in files else {}
    with Proxy(server.port, context(authority)) as proxy:
        world = World(tmp_path / "device", server, proxy, remote=remote)
        with world.run() as service:
            failed = service.expect_event("Upload chunk failed, retrying")
            service.expect_event("upload.failed")
            assert service.stop() == 0
        assert words in failed["error"]
        assert proxy.seen == []
        assert len(proxy.broken) >= 3
        assert world.query("SELECT count(*) FROM metrics WHERE uploaded <> 0") == [(0,)]
    with Proxy(server.port, authority.server()) as good:
        world.redirect(good, tls_ca_file=str(authority.file))
        account = world.finish()
    assert account.delivered == account.collected
