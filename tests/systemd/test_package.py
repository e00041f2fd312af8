"""The files that the package and ``make install`` install, and that their removal leaves."""

import csv
import hashlib
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from belatwist import __version__
from tests.systemd import wheels
from tests.systemd.conftest import CHECKOUT
from tests.systemd.machine import Machine

pytestmark = pytest.mark.process

UNIT = "metrics-collector.service"
DROP_INS = sorted(path.name for path in (CHECKOUT / "systemd" / f"{UNIT}.d").glob("*"))
CONFIG = "/etc/belabox-metrics/config.yaml"
STATE = "/var/lib/belabox-metrics"
OFFLINE = """\
device: {id: packaged}
remote: {enabled: false}
health: {enabled: false}
"""


def control(package: Path, field: str) -> str:
    """Return a field of the package's control file."""
    return subprocess.check_output(["dpkg-deb", "--field", package, field], text=True).strip()


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the package, its control files included."""
    folder = tmp_path_factory.mktemp("unpacked") / "root"
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def newer(unpacked: Path, package: Path) -> Path:
    """Make a newer version, whose configuration file has changed too."""
    path = unpacked / "DEBIAN" / "control"
    path.write_text(path.read_text().replace(f"Version: {__version__}\n", "Version: 99\n"))
    shipped = unpacked / CONFIG[1:]
    shipped.write_text(shipped.read_text() + "# from version 99\n")
    built = package.with_name("newer.deb")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", unpacked, built],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return built


@pytest.fixture
def box(package: Path, newer: Path) -> Iterator[Machine]:
    """A machine on which nothing of ours is installed."""
    with Machine(package.parent) as box:
        yield box


def test_the_package_knows_nothing_of_the_machine_it_was_built_on(unpacked: Path) -> None:
    """No file names the checkout or the folder of the build; no link leads there."""
    ours = [str(CHECKOUT), str(unpacked.parents[1])]
    for path in unpacked.rglob("*"):
        if path.is_symlink():
            target = str(path.readlink())
            assert target.startswith(("/usr/bin/python3.", "/opt/belatwist/bin/")), path
        elif path.is_file():
            data = path.read_bytes()
            assert not [name for name in ours if name.encode() in data], path


def test_libraries_list_what_is_there(unpacked: Path) -> None:
    """Lists of pip's scripts, whose sums depend on the folder of the build, are gone with them."""
    records = list(unpacked.rglob("*.dist-info/RECORD"))
    assert records
    for record in records:
        for name, *_ in csv.reader(record.read_text().splitlines()):
            assert (record.parents[1] / name).exists(), name


def test_programs_are_programs(unpacked: Path) -> None:
    """Only programs and libraries can be executed; all can be read, and only root writes."""
    for path in unpacked.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink() or path.parent.name == "DEBIAN":
            continue
        program = path.is_dir() or path.parent.name == "bin" or path.suffix == ".so"
        assert mode == (0o755 if program else 0o644), path


def test_what_the_package_says(package: Path) -> None:
    """It is for one architecture and one Python, which it depends on."""
    assert control(package, "Version") == __version__
    assert control(package, "Architecture") != "all"
    assert re.match(r"python3\.\d+, libc6 \(>= 2\.\d+\), systemd", control(package, "Depends"))
    # Without it no server's certificate is known.
    assert control(package, "Recommends") == "ca-certificates"


def test_every_file_has_its_sum(unpacked: Path) -> None:
    """``dpkg --verify`` notices a change of any file; dpkg itself keeps the configuration's sum."""
    lines = (unpacked / "DEBIAN" / "md5sums").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    files = {
        str(path.relative_to(unpacked)): path
        for path in unpacked.rglob("*")
        if path.is_file() and not path.is_symlink() and path.parent.name != "DEBIAN"
    }
    del files[CONFIG[1:]]
    assert listed == {
        name: hashlib.md5(path.read_bytes()).hexdigest() for name, path in files.items()
    }


def test_licences_come_along(unpacked: Path) -> None:
    """Ours is where Debian expects it, and each library brings its own."""
    text = (unpacked / "usr/share/doc/belatwist/copyright").read_text()
    assert text.startswith((CHECKOUT / "LICENSE").read_text())
    assert list(unpacked.glob("opt/belatwist/lib/*/site-packages/twisted-*.dist-info/licenses/*"))


def test_install_upgrade_remove_purge(box: Machine, package: Path, newer: Path) -> None:
    """An upgrade and a removal keep configuration and data, a purge removes them."""
    said = box.run("dpkg", "--install", f"/mnt/{package.name}")
    assert f"systemctl start {UNIT.removesuffix('.service')}" in said
    assert box.run("dpkg", "--verify", "belatwist") == ""
    program = "/opt/belatwist/bin/bela"
    box.run("cp", "-p", program, "/root/")
    box.run("sh", "-c", f"echo >>{program}")
    assert box.try_("dpkg", "--verify", "belatwist").stdout.endswith(f" {program}\n")
    box.run("mv", "/root/bela", program)
    for page in box.show(UNIT, "Documentation").split():
        box.run("ls", page.removeprefix("file:"))
    assert box.run("systemctl", "is-enabled", UNIT) == "enabled"
    # Its samples would carry the name of the example.
    assert box.show(UNIT, "ActiveState") == "inactive"
    assert box.run("stat", "-c", "%U:%G %a", "/etc/belabox-metrics") == "root:metrics 750"
    assert box.run("stat", "-c", "%U:%G %a", STATE) == "metrics:metrics 750"
    assert box.run("getent", "passwd", "metrics").endswith(f":{STATE}:/usr/sbin/nologin")
    assert box.run("systemd-analyze", "verify", UNIT) == ""
    assert box.run("bela", "--version").endswith(__version__)

    box.write(CONFIG, OFFLINE)
    box.run("systemctl", "start", UNIT)
    database = box.run("stat", "-c", "%i", f"{STATE}/metrics.db")
    old = box.show(UNIT, "MainPID")

    box.run("dpkg", "--force-confdef", "--force-confold", "--install", f"/mnt/{newer.name}")
    assert box.run("cat", CONFIG) == OFFLINE.rstrip()
    assert box.run("stat", "-c", "%i", f"{STATE}/metrics.db") == database
    box.until(lambda: box.show(UNIT, "SubState") == "running", "the new version runs")
    assert box.show(UNIT, "MainPID") not in {"0", old}

    box.run("systemctl", "disable", "--now", UNIT)
    box.run("dpkg", "--force-confold", "--install", f"/mnt/{newer.name}")
    assert box.try_("systemctl", "is-enabled", UNIT).stdout == "disabled\n"
    assert box.show(UNIT, "ActiveState") == "inactive"
    box.run("systemctl", "enable", "--now", UNIT)

    box.run("dpkg", "--remove", "belatwist")
    assert box.show(UNIT, "ActiveState") == "inactive"
    assert box.try_("ls", "/opt/belatwist").returncode != 0
    assert box.run("cat", CONFIG) == OFFLINE.rstrip()
    assert box.run("stat", "-c", "%i", f"{STATE}/metrics.db") == database

    box.run("dpkg", "--purge", "belatwist")
    for path in ("/etc/belabox-metrics", STATE, "/opt/belatwist", "/usr/bin/bela"):
        assert box.try_("ls", path).returncode != 0, path
    found = box.run("find", "/etc/systemd", "/run/systemd", "/usr/lib/systemd", "-name", UNIT)
    assert found == ""
    assert box.try_("dpkg-query", "--status", "belatwist").returncode != 0


@pytest.fixture
def sources(package: Path) -> Path:
    """A clean copy of the checkout, and the wheels that an index would have."""
    folder = package.parent / "sources"
    kept = shutil.ignore_patterns(".*", "var", "dist", "__pycache__", "dropin.cache", "fixtures")
    shutil.copytree(CHECKOUT, folder, ignore=kept)
    wheels.download(package.parent / "wheels")
    return folder


def test_make_install(box: Machine, sources: Path) -> None:
    """``make install`` on a machine with Python and make leaves a service that starts."""
    box.run("cp", "-r", f"/mnt/{sources.name}", "/src")
    index = ("env", "PIP_NO_INDEX=1", "PIP_FIND_LINKS=/mnt/wheels")
    make = (*index, "make", "--no-print-directory", "-C", "/src")

    box.run(*make, "install", "DESTDIR=/stage", "PREFIX=/srv/agent", "SYSTEM=/usr")
    files = box.run(
        *("find", "/stage", "-type", "f", "-not", "-path", "*/site-packages/*"),
        *("-not", "-path", "*/share/doc/*"),
    )
    assert sorted(files.split()) == [
        "/stage/etc/belabox-metrics/config.yaml",
        "/stage/srv/agent/bin/bela",
        "/stage/srv/agent/bin/twistd",
        "/stage/srv/agent/pyvenv.cfg",
        f"/stage/usr/lib/systemd/system/{UNIT}",
        "/stage/usr/lib/sysusers.d/metrics-collector.conf",
        "/stage/usr/lib/tmpfiles.d/metrics-collector.conf",
        *(f"/stage/usr/share/belatwist/drop-ins/{name}" for name in DROP_INS),
    ]
    assert "ExecStart=/srv/agent/bin/twistd " in box.run(
        "cat", f"/stage/usr/lib/systemd/system/{UNIT}"
    )
    installed = box.run("cat", "/stage/usr/share/doc/belatwist/installation.md")
    assert "/srv/agent" in installed
    assert "/opt/belatwist" not in installed
    assert box.try_("getent", "passwd", "metrics").returncode != 0

    assert "a folder of its own" in box.try_(*make, "install", "PREFIX=/usr").stdout

    box.write(CONFIG, OFFLINE)
    box.run(*make, "install")
    assert box.run("cat", CONFIG) == OFFLINE.rstrip()
    assert box.run("systemd-analyze", "verify", UNIT) == ""
    for page in box.show(UNIT, "Documentation").split():
        assert page.startswith("file:/usr/local/share/doc/belatwist/")
        box.run("ls", page.removeprefix("file:"))
    box.run("systemctl", "start", UNIT)
    box.until(lambda: box.show(UNIT, "SubState") == "running", "the service runs")
    box.run(*make, "install")
    box.run("systemctl", "restart", UNIT)
    assert box.show(UNIT, "SubState") == "running"
    assert "plugin" not in box.journal("--unit", UNIT).lower()
