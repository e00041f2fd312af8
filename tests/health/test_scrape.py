"""A real vmagent scrapes the endpoint, and a real VictoriaMetrics has what it says."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor as installed_reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from belatwist.collectors.registry import HOST
from belatwist.metrics.exposition import exposition
from belatwist.web.endpoints import Endpoint, site
from tests.health.scraping import collected, filled_telemetry, program
from tests.health.snapshots import HEALTH, HEALTHY
from tests.process import TIMEOUT, free_port
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

reactor: Any = installed_reactor

DEVICE = "scraped-box"

# The device is the target's label, as the documentation advises.
CONFIG = """
scrape_configs:
  - job_name: belatwist
    scrape_interval: 1s
    static_configs:
      - targets: ["127.0.0.1:{port}"]
        labels: {{device_id: {device}}}
"""

INSERTED = 'vm_rows_inserted_total{type="promremotewrite"}'

FamilyKey = tuple[tuple[str, str], ...]


class Vmagent:
    """A vmagent that scrapes one target and writes to one server, until its block ends."""

    def __init__(self, folder: Path, target: int, server: VictoriaMetrics) -> None:
        config = folder / "scrape.yaml"
        config.write_text(CONFIG.format(port=target, device=DEVICE))
        self._command = [
            program("vmagent", "victoria-metrics"),
            f"-promscrape.config={config}",
            f"-remoteWrite.url={server.url}/api/v1/write",
            f"-remoteWrite.tmpDataPath={folder / 'queue'}",
            "-remoteWrite.flushInterval=100ms",
            f"-httpListenAddr=127.0.0.1:{free_port()}",
            "-memory.allowedPercent=5",
        ]

    def __enter__(self) -> "Vmagent":
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


async def wait_for_rows(server: VictoriaMetrics, count: int) -> None:
    """Let the reactor serve until the server has been written so many samples."""
    deadline = reactor.seconds() + TIMEOUT
    while await deferToThread(server.counter, INSERTED) < count:
        assert reactor.seconds() < deadline, "the server was not written to"
        await deferLater(reactor, 0.05)


def named(text: str) -> dict[FamilyKey, float]:
    """Read the endpoint's text: values by sorted labels, the name among them."""
    return {
        tuple(sorted({"__name__": one.name, **one.labels}.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


@pytest_twisted.ensureDeferred
async def test_what_is_scraped_is_what_is_served(tmp_path: Path) -> None:
    """Every series of the endpoint is on the server, with its labels and value, and no other."""
    text = exposition(filled_telemetry().registry, collected(), HOST)
    endpoint = Endpoint(lambda: HEALTHY, HEALTH, lambda: text)
    expected = named(text.decode())
    port = reactor.listenTCP(0, site(endpoint, reactor), interface="127.0.0.1")
    target = port.getHost().port
    try:
        with (
            VictoriaMetrics(tmp_path / "data") as server,
            Vmagent(tmp_path, target, server),
        ):
            await wait_for_rows(server, len(expected))
            points = await deferToThread(server.export, DEVICE)
    finally:
        await port.stopListening()
    scraped = {}
    for key, values in points.items():
        labels = dict(key)
        assert labels.pop("device_id") == DEVICE
        assert labels.pop("job") == "belatwist"
        assert labels.pop("instance") == f"127.0.0.1:{target}"
        scraped[tuple(sorted(labels.items()))] = values[0][1]
    assert scraped.pop((("__name__", "up"),)) == 1
    own = {key for key in scraped if dict(key)["__name__"].startswith("scrape_")}
    # The server keeps about twelve digits of what is written to it in this way.
    kept = {key: pytest.approx(value, rel=1e-11) for key, value in expected.items()}
    assert {key: value for key, value in scraped.items() if key not in own} == kept
