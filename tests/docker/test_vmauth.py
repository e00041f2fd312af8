"""The shipped configuration of vmauth, between the real agent and a real VictoriaMetrics."""

import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.test_compose import NEWER
from tests.faults.certificates import Authority
from tests.process import TIMEOUT, Lines, Twistd, free_port, until_listening, write_config
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

DOCKER = Path(__file__).parents[2] / "docker"
TOKEN = "fd3a7b2c5e"
DEVICE = "belabox-001"


@dataclass
class Door:
    """A vmauth that runs.

    :ivar ca_file: the authority of its certificate.
    """

    url: str
    ca_file: Path
    server: VictoriaMetrics

    def status(self, path: str, token: str) -> int:
        """Return the status with which it answers a POST without a body."""
        request = urllib.request.Request(
            f"{self.url}{path}", data=b"", headers={"Authorization": f"Bearer {token}"}
        )
        trusted = ssl.create_default_context(cafile=str(self.ca_file))
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT, context=trusted) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Run vmauth with the compose file's flags and the example's content."""
    with VictoriaMetrics(tmp_path / "data", "-dedup.minScrapeInterval=1ms") as server:
        example = (DOCKER / "vmauth.example.yml").read_text()
        (tmp_path / "vmauth.yml").write_text(
            example.replace("CHANGE-ME", TOKEN).replace("http://victoriametrics:8428", server.url)
        )
        authority = Authority(tmp_path / "tls")
        authority.server()
        # Key and certificate are in one file, and each is looked for in it.
        shutil.copy(tmp_path / "tls" / "server.pem", tmp_path / "tls" / "server.key")
        port = free_port()
        service = yaml.safe_load((DOCKER / "docker-compose.yml").read_text())["services"]["vmauth"]
        flags = [
            one.replace("/etc/vmauth/tls", str(tmp_path / "tls"))
            .replace("/etc/vmauth/config.yml", str(tmp_path / "vmauth.yml"))
            .replace(":8427", f"127.0.0.1:{port}")
            for one in service["command"]
            if one.partition("=")[0] not in NEWER
        ]
        program = shutil.which("vmauth")
        assert program is not None, "vmauth comes with victoria-metrics"
        process = subprocess.Popen(
            [program, *flags], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        log = Lines(process.stderr)
        try:
            log.until(lambda line: "starting http server" in line, "vmauth's start")
            until_listening(port)
            yield Door(f"https://localhost:{port}", authority.file, server)
        finally:
            process.terminate()
            process.wait()
            log.thread.join()


def configured(door: Door, folder: Path, token: str) -> Path:
    """Configure an agent that has another name than the token's device."""
    secret = folder / "api-token"
    secret.write_text(f"{token}\n")
    secret.chmod(0o600)
    remote: dict[str, Any] = {
        "enabled": True,
        "url": f"{door.url}/api/v1/import",
        "upload_interval": "200ms",
        "auth_token_file": str(secret),
        "tls_ca_file": str(door.ca_file),
    }
    return write_config(
        folder,
        device={"id": "somebody"},
        remote=remote,
        # Newer versions have no /health at this port; whatever they answer has a Date.
        monitoring={"clock_skew_url": f"{door.url}/no/such/page"},
        metrics=[{"name": "system.load", "interval": "200ms"}],
    )


def test_a_device_may_write_and_nothing_else(door: Door) -> None:
    """Its token opens the import; reading, deleting and all other tokens are refused."""
    assert door.status("/api/v1/import", TOKEN) == 204
    for path in ("/api/v1/query", "/api/v1/export", "/api/v1/admin/tsdb/delete_series", "/"):
        assert door.status(path, TOKEN) >= 400, path
    for token in ("", "CHANGE-ME", TOKEN.upper()):
        assert door.status("/api/v1/import", token) >= 400, token


def test_samples_get_the_name_of_the_tokens_device(door: Door, tmp_path: Path) -> None:
    """Over TLS, with the clock compared through vmauth; what the device calls itself is nothing."""
    config = configured(door, tmp_path, TOKEN)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("Clock skew measured")
        service.expect_event("upload.completed")
        assert service.stop() == 0
    assert door.server.export(DEVICE)
    assert not door.server.export("somebody")


def test_a_wrong_token_is_told_and_costs_nothing(door: Door, tmp_path: Path) -> None:
    """Everything waits, the log says what to check, and the right token needs no restart."""
    config = configured(door, tmp_path, "9c1d4e")
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        told = service.expect_event("upload.misconfigured")
        # Older versions of vmauth say 400 to a token that they do not know, newer ones 401.
        assert told["http_status"] in {400, 401}
        assert "remote.auth_token_file: " in told["check"]
        (tmp_path / "api-token").write_text(f"{TOKEN}\n")
        done = service.expect_event("upload.completed")
        assert done["rejected"] == 0
        assert service.stop() == 0
        assert not [line for line in service.log.rest() if "9c1d4e" in line or TOKEN in line]
