"""The compose file: Docker takes it, and it keeps the promises of its documentation."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from belatwist import config
from belatwist.collectors.registry import SOURCES

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = DOCKER / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]

VICTORIA = {
    "victoriametrics": "victoria-metrics",
    "vmauth": "vmauth",
    "vmalert": "vmalert",
}
"""Services, and Debian's program of each."""

NEWER = {"--notifier.blackhole", "--httpInternalListenAddr"}
"""Flags that Debian 12's version does not have yet."""


def compose() -> list[str]:
    """Return a Docker Compose, which takes no engine to check a file."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True, check=False)
            if done.returncode == 0:
                return command
    reason = "there is no Docker Compose (Debian: apt-get install docker-compose)"
    if os.environ.get("BELA_REQUIRE_COMPOSE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.process
def test_docker_compose_takes_it() -> None:
    """It is valid with all profiles, and without a warning."""
    profiles = {name for one in SERVICES.values() for name in one.get("profiles", [])}
    assert profiles == {"collector", "monitoring", "auth"}
    options = [f"--profile={name}" for name in profiles]
    done = subprocess.run(
        [*compose(), *options, "config", "--quiet"],
        cwd=DOCKER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_images_are_pinned() -> None:
    """Each image that is not built here has a whole version; those of one project the same."""
    images = {one["image"] for one in SERVICES.values() if "build" not in one}
    assert all(re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", image) for image in images), images
    assert len({image.split(":")[1] for image in images if image.startswith("victoria")}) == 1


def test_only_vmauth_listens_beyond_this_machine() -> None:
    """All other ports are published on the loopback."""
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") is (name != "vmauth"), port


def test_all_are_restricted() -> None:
    """No service can gain privileges, has a capability, or can write but where it must; and each
    one's log is bounded.
    """
    for name, service in SERVICES.items():
        assert service["read_only"] is (name != "grafana")
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
        assert service["restart"] == "unless-stopped"


def test_what_is_mounted_is_there() -> None:
    """Files and folders of the project exist, and are mounted read only."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, *mode = volume.split(":")
            if source.startswith("."):
                assert mode == ["ro"], volume
                if source not in {"./vmauth.yml", "./tls"}:  # The operator's own.
                    assert (DOCKER / source).exists(), volume


@pytest.mark.process
@pytest.mark.parametrize("name", VICTORIA)
def test_flags_are_known(name: str) -> None:
    """The programs have the flags that they are given."""
    program = shutil.which(VICTORIA[name])
    if program is None:
        if os.environ.get("BELA_REQUIRE_VICTORIA") == "1":
            pytest.fail(f"{VICTORIA[name]} is not installed")
        pytest.skip(f"{VICTORIA[name]} is not installed")
    done = subprocess.run([program, "-help"], capture_output=True, text=True, check=False)
    known = set(re.findall(r"^  -([\w.]+)", done.stderr + done.stdout, re.MULTILINE))
    given = {one.partition("=")[0] for one in SERVICES[name]["command"]} - NEWER
    assert {one.removeprefix("--") for one in given} <= known


def test_the_collectors_configuration_is_one() -> None:
    """``collector.yaml`` is accepted, and fits what is mounted."""
    loaded = config.load(DOCKER / "collector.yaml", SOURCES)
    targets = {volume.split(":")[1] for volume in SERVICES["metrics-collector"]["volumes"]}
    assert {str(loaded.paths.procfs), str(loaded.paths.sysfs)} <= targets
    assert str(Path(loaded.storage.path).parent) in targets
    assert config.DEFAULT_PATH in targets
