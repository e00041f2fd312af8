"""The server and the proxy of the fault tests."""

from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.victoria.server import DEDUPLICATING, VictoriaMetrics


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """A real server that deduplicates, as the documentation asks for; each test has a device."""
    with VictoriaMetrics(tmp_path_factory.mktemp("faults") / "data", DEDUPLICATING) as running:
        yield running


@pytest.fixture
def proxy(server: VictoriaMetrics) -> Iterator[Proxy]:
    """A proxy before the server, harmless so far."""
    with Proxy(server.port) as running:
        yield running
