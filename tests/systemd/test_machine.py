"""The machine in a box: it is closed, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.systemd.conftest import CHECKOUT
from tests.systemd.machine import TIMEOUT, Machine

pytestmark = pytest.mark.process


def traces(pid: int) -> list[str]:
    """Return what there is outside of the machines of a process: control groups and processes."""
    name = f"bela-box-{pid}"
    found = [str(path) for path in Path("/sys/fs/cgroup").rglob(name)]
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if name.encode() in status.read_bytes():
                found.append(str(status))
        except OSError:
            continue
    return found


def mounts() -> list[str]:
    """Return what is mounted here."""
    return sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())


def test_it_is_closed_and_leaves_nothing(bootable: None, tmp_path: Path) -> None:
    """Changes inside do not show outside; in the end no process, mount or group is left."""
    before = (mounts(), os.uname().nodename)
    canary = tmp_path / "canary"
    canary.touch()
    with Machine(tmp_path) as box:
        assert box.run("cat", "/proc/1/comm") == "systemd"
        assert box.run("hostname") == "box"
        assert box.run("ls", "/mnt") == "canary"
        assert box.try_("touch", "/mnt/canary").returncode != 0
        assert box.try_("sysctl", "-w", "kernel.pid_max=1000").returncode != 0
        box.write("/etc/of-the-box", "")
        box.write("/tmp/of-the-box", "")
        box.run("systemd-run", "--quiet", "--unit=lasting", "sleep", "infinity")
        assert box.show("lasting", "ActiveState") == "active"
        assert traces(os.getpid())
        assert len(box.run("ip", "-brief", "address").splitlines()) == 1
    assert not traces(os.getpid())
    assert not Path("/etc/of-the-box").exists()
    assert not Path("/tmp/of-the-box").exists()
    assert canary.exists()
    assert (mounts(), os.uname().nodename) == before


def test_it_ends_with_its_owner(bootable: None, tmp_path: Path) -> None:
    """SIGKILL of the tests themselves leaves nothing either."""
    code = (
        "import sys, time; from pathlib import Path; from tests.systemd.machine import Machine\n"
        "box = Machine(Path(sys.argv[1])); print('booted', flush=True); time.sleep(1000)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=CHECKOUT, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    with owner.stdout:
        assert owner.stdout.readline() == b"booted\n"
        assert traces(owner.pid)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    deadline = time.monotonic() + TIMEOUT
    while traces(owner.pid):
        assert time.monotonic() < deadline, traces(owner.pid)
        time.sleep(0.02)


def test_a_boot_that_fails_is_reported(bootable: None, tmp_path: Path) -> None:
    """A machine without its namespaces reports that, and leaves nothing."""
    before = mounts()
    with pytest.raises(AssertionError, match="could not be set up"):
        Machine(tmp_path / "missing")
    assert not traces(os.getpid())
    assert mounts() == before
