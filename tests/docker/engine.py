"""A stand-in for Docker's engine: builds an image from a Dockerfile and runs services of a compose
file, inside a machine of :mod:`tests.systemd.machine`.

An image is a root of its own with the machine's ``/usr``, read only, in place of the base image. A
container is a transient unit with that root. All of them share the machine's network. The stand-in
raises an error for every instruction and key that it does not know.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.systemd.machine import Machine

Service = dict[str, Any]
"""A service, as the compose file has it."""


def context(source: Path, dockerfile: Path, target: Path) -> None:
    """Copy what an engine would be given of a folder: what the ``.dockerignore`` lets through."""
    patterns = [
        line
        for line in Path(f"{dockerfile}.dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert patterns[0] == "*"
    nested = [one.removeprefix("**/") for one in patterns if one.startswith("**/")]
    wanted = [one.removeprefix("!") for one in patterns if one.startswith("!")]
    assert 1 + len(nested) + len(wanted) == len(patterns)
    target.mkdir()
    for name in wanted:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns(*nested))
        else:
            shutil.copy2(source / name, target / name)


@dataclass
class Image:
    """What a stage of a Dockerfile has come to.

    :ivar root: its folder in the machine.
    """

    root: str
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Split a Dockerfile into instructions and their arguments."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (one.partition(" ") for one in joined.splitlines())]


def base(box: Machine, root: str) -> Image:
    """Make a root that stands for the base image."""
    script = """
        mkdir -p "$1" && mount -t tmpfs -o mode=755 tmpfs "$1" && cd "$1"
        mkdir usr && mount --bind /usr usr && mount -o remount,bind,ro usr
        cp -a /etc .
        for one in bin lib lib32 lib64 sbin; do [ ! -e /$one ] || cp -P /$one .; done
        mkdir -p dev proc sys opt tmp run root var/lib
        chmod 1777 tmp
        mount --rbind /dev dev
    """
    box.run("sh", "-euc", script, "base", root)
    return Image(root)


def build(box: Machine, dockerfile: str, source: str, environment: dict[str, str]) -> Image:
    """Run a Dockerfile's steps.

    :param source: the context, a folder in the machine.
    :param environment: for ``RUN``, besides what is there.
    :return: the last stage.
    """
    stages: dict[str, Image] = {}
    image = Image("")
    for name, rest in instructions(dockerfile):
        if name == "FROM":
            assert re.fullmatch(r"python:3\.\d+-slim-\w+( AS \w+)?", rest), rest
            _, _, stage = rest.partition(" AS ")
            image = stages[stage] = base(box, f"/images/{len(stages)}")
        elif name == "WORKDIR":
            image.workdir = rest
            box.run("mkdir", "-p", f"{image.root}{rest}")
        elif name == "COPY":
            origin = source
            words = rest.split()
            if words[0].startswith("--from="):
                origin = stages[words.pop(0).removeprefix("--from=")].root
            *sources, target = words
            _copy(box, [f"{origin}/{one}" for one in sources], image, target)
        elif name == "RUN":
            inside = f"cd {image.workdir} && export $1 && {rest}"
            exports = " ".join(f"{key}={value}" for key, value in environment.items())
            box.run("chroot", image.root, "sh", "-euc", inside, "run", exports)
        elif name == "USER":
            image.user = rest
        elif name == "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        elif name == "CMD":
            image.command = json.loads(rest)
        else:
            assert name == "EXPOSE", name
    return image


def _copy(box: Machine, sources: list[str], image: Image, target: str) -> None:
    """Copy as Docker does: of a folder its content, and everything is root's."""
    script = """
        target=$1; shift
        for one; do
            if [ -d "$one" ]; then mkdir -p "$target" && cp -a "$one/." "$target"
            else mkdir -p "${target%/*}" && cp -p "$one" "$target"; fi
        done
    """
    path = target if target.startswith("/") else f"{image.workdir}/{target}"
    box.run("sh", "-euc", script, "copy", f"{image.root}{path}", *sources)


class Container:
    """A service that runs.

    :param folder: where in the machine the compose file lies.
    """

    def __init__(
        self, box: Machine, name: str, service: Service, image: Image, folder: str
    ) -> None:
        self._box = box
        self.unit = f"{name}.service"
        command = [*image.entrypoint, *(service.get("command") or image.command)]
        capabilities = ""
        if image.user != "0:0":
            user, group = image.user.split(":")
            command[:0] = [
                *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
                *("--bounding-set=-all", "--inh-caps=-all"),
            ]
            capabilities = "CAP_SETUID CAP_SETGID CAP_SETPCAP"  # For setpriv.
        options = [
            *(f"RootDirectory={image.root}", "MountAPIVFS=yes"),
            *_properties(box, service, image, folder, capabilities),
        ]
        box.run(
            *("systemd-run", "--quiet", f"--unit={name}"),
            *(f"--property={one}" for one in options),
            *command,
        )
        self.pid = box.show(self.unit, "MainPID")
        self._inside = ("nsenter", "--target", self.pid, "--mount", "--root", "--")

    def run(self, *command: str) -> str:
        """Run a command inside, as ``docker exec`` does."""
        return self._box.run(*self._inside, *command)

    def try_(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, which may fail."""
        return self._box.try_(*self._inside, *command)

    def log(self) -> str:
        """Return what it has written."""
        return self._box.journal("--unit", self.unit)

    def stop(self) -> None:
        """Stop it; it must end by itself, and well."""
        self._box.run("systemctl", "stop", self.unit)
        ended = self._box.journal("--unit", self.unit, "--identifier=systemd")
        assert ended.splitlines()[-1] == f"{self.unit}: Consumed" or "Deactivated" in ended, ended


def _properties(
    box: Machine, service: Service, image: Image, folder: str, capabilities: str
) -> list[str]:
    """Say in systemd's words what a service is allowed and given."""
    elsewhere = {
        *("image", "build", "container_name", "profiles", "depends_on", "ports", "network_mode"),
        *("command", "healthcheck", "restart", "logging", "stop_grace_period"),
    }
    found: list[str] = []
    for key in service.keys() - elsewhere:
        match key, service[key]:
            case "read_only", True:
                found.append("ProtectSystem=strict")
            case "cap_drop", ["ALL"]:
                found.append(f"CapabilityBoundingSet={capabilities}")
            case "security_opt", ["no-new-privileges:true"]:
                found.append("NoNewPrivileges=yes")
            case "tmpfs", list(paths):
                found += [f"TemporaryFileSystem={path}" for path in paths]
            case "mem_limit", str(size):
                found.append(f"MemoryMax={size.upper()}")
            case "cpus", float(share):
                found.append(f"CPUQuota={share:.0%}")
            case "volumes", list(volumes):
                found += [_volume(box, one, image, folder) for one in volumes]
            case unknown:
                raise AssertionError(unknown)
    return found


def _volume(box: Machine, volume: str, image: Image, folder: str) -> str:
    source, target, *mode = volume.split(":")
    if source.startswith("."):
        source = f"{folder}/{source}"
    elif not source.startswith("/"):
        # A new volume begins as what the image has there.
        origin, source = f"{image.root}{target}", f"/volumes/{source}"
        script = 'mkdir -p /volumes "$2" && cp -a "$2" "$1"'
        box.run("sh", "-euc", script, "volume", source, origin)
    read_only = "ReadOnly" if mode == ["ro"] else ""
    return f"Bind{read_only}Paths={source}:{target}"
