"""What the compose file starts, in a stand-in for an engine: see :mod:`tests.docker.engine`."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docker.engine import Container, Image, base, build, context
from tests.systemd import machine, wheels
from tests.systemd.machine import Machine

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).parents[2]
DOCKER = CHECKOUT / "docker"
SERVICES = yaml.safe_load((DOCKER / "docker-compose.yml").read_text())["services"]


def skip(reason: str) -> None:
    """Skip, or fail where these tests are required."""
    if os.environ.get("BELA_REQUIRE_ROOT_TESTS") == "1":
        pytest.fail(f"BELA_REQUIRE_ROOT_TESTS=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with the build's context, and the wheels that an index would have."""
    reason = machine.unavailable()
    if reason is None and shutil.which("victoria-metrics") is None:
        reason = "it takes victoria-metrics"
    if reason is not None:
        skip(reason)
    shared = tmp_path_factory.mktemp("docker")
    context(CHECKOUT, DOCKER / "Dockerfile.receiver", shared / "context")
    shutil.copytree(DOCKER, shared / "docker")
    wheels.download(shared / "wheels")
    with Machine(shared) as one:
        # The base image has python3 and pip on its path.
        one.run("python3", "-m", "venv", "/usr/local/share/pip")
        one.run("ln", "-sf", "/usr/local/share/pip/bin/pip", "/usr/local/bin/pip")
        one.run("cp", "-r", "/mnt/wheels", "/usr/local/share/wheels")
        one.run("cp", "-r", "/mnt/docker", "/docker")
        yield one


@pytest.fixture(scope="module")
def image(box: Machine) -> Image:
    """The image that the Dockerfile makes."""
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/usr/local/share/wheels"}
    return build(box, (DOCKER / "Dockerfile.receiver").read_text(), "/mnt/context", index)


def start(box: Machine, name: str, image: Image) -> Container:
    """Start a service and wait until its health check says well."""
    service = SERVICES[name]
    container = Container(box, name, service, image, "/docker")
    kind, *check = service["healthcheck"]["test"]
    assert kind == "CMD"

    def healthy() -> bool:
        return container.try_(*check).returncode == 0

    box.until(healthy, f"{name} is healthy")
    return container


def status(container: Container) -> dict[str, str]:
    """Return what the kernel says of its process."""
    lines = container.run("cat", f"/proc/{container.pid}/status").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_the_image(box: Machine, image: Image) -> None:
    """It is not root's, has what the Debian package has and nothing of the build, and is small."""
    assert image.user == "10001:10001"
    assert box.run("ls", f"{image.root}/opt") == "belatwist"
    assert sorted(box.run("ls", f"{image.root}/opt/belatwist/bin").split()) == [
        *("bela", "python", "twistd"),
    ]
    assert box.run("find", f"{image.root}/opt/belatwist", "-name", "pip") == ""
    size = int(box.run("du", "-sm", f"{image.root}/opt/belatwist").split()[0])
    print(f"/opt/belatwist: {size} MB")
    assert size < 100


def test_the_receiver(box: Machine, image: Image) -> None:
    """It runs as nobody in particular, without a capability, on a root that it cannot write to,
    takes samples, and stops when it is told to.
    """
    container = start(box, "metrics-receiver", image)
    of = status(container)
    assert of["Uid"].split() == ["10001"] * 4
    assert of["Groups"].strip() == ""
    assert {of[f"Cap{one}"] for one in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert of["NoNewPrivs"] == "1"
    assert "Read-only file system" in container.try_("touch", "/written").stdout
    line = '{"metric":{"__name__":"m","device_id":"box"},"values":[1],"timestamps":[1700000000000]}'
    url = "http://127.0.0.1:9090/api/v1"
    box.run("curl", "-fsS", "--data-binary", line, f"{url}/import")
    (series,) = json.loads(box.run("curl", "-fsS", f"{url}/series"))
    assert series["metric"]["__name__"] == "m"
    container.stop()
    log = container.log()
    assert "Received 1 sample of 1 series" in log
    assert "plugin" not in log.lower()


def test_the_collector(box: Machine, image: Image) -> None:
    """It reads the host's files, keeps its samples in its volume, and delivers them to a
    VictoriaMetrics that runs with the compose file's flags and restrictions.
    """
    box.run(*("ip", "link", "add", "wwan7", "type", "veth", "peer", "name", "wwan8"))
    # As shipped, but for the pace.
    box.run("sed", "-i", "s/upload_interval: 30s/upload_interval: 1s/", "/docker/collector.yaml")
    server = base(box, "/images/victoria-metrics")
    server.entrypoint = ["/usr/bin/victoria-metrics"]
    victoria = start(box, "victoriametrics", server)
    collector = start(box, "metrics-collector", image)
    of = status(collector)
    assert of["Uid"].split() == ["10001"] * 4
    assert {of[f"Cap{one}"] for one in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}

    def interfaces() -> set[str]:
        box.run("curl", "-fsS", "http://127.0.0.1:8428/internal/force_flush")
        found = box.run(
            *("curl", "-fsS", "--get", "http://127.0.0.1:8428/api/v1/series"),
            *("--data-urlencode", 'match[]=network_rx_bytes_total{device_id="docker-host"}'),
        )
        return {one["interface"] for one in json.loads(found)["data"]}

    box.until(lambda: interfaces() == {"wwan7", "wwan8"}, "its samples are at the server")
    owner = box.run("stat", "-c", "%u:%g %a", "/volumes/collector-data/metrics.db")
    assert owner == "10001:10001 640"
    collector.stop()
    assert "Agent stopped, session completed" in collector.log()
    victoria.stop()


def test_why_the_collector_is_in_the_hosts_network(box: Machine) -> None:
    """The interfaces in a mounted ``/proc`` are those of whoever reads it."""
    box.run("mkdir", "-p", "/host/proc")
    box.run("mount", "--bind", "/proc", "/host/proc")
    assert "wwan7" in box.run("cat", "/host/proc/net/dev")
    assert "wwan7" not in box.run("unshare", "--net", "cat", "/host/proc/net/dev")
