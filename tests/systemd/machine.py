"""A machine in a box: a real systemd as PID 1, in namespaces of its own (see ``machine.sh``)."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

TIMEOUT = 30.0
"""Seconds after which something that should have happened has not."""

PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "dpkg", "systemctl", "systemd-analyze")
"""The required programs, besides root and overlayfs."""


def unavailable() -> str | None:
    """Return why no machine can be booted here, ``None`` when one can."""
    if os.geteuid() != 0:
        return "it takes root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"it takes {', '.join(missing)}"
    if not Path("/lib/systemd/systemd").exists():
        return "it takes systemd"
    return None


class Machine:
    """A machine, from its boot to its end; a context manager.

    :param shared: a folder that is at ``/mnt`` inside, read only.
    :ivar boot_seconds: how long the boot took.
    """

    def __init__(self, shared: Path) -> None:
        began = time.monotonic()
        self._process = subprocess.Popen(
            [Path(__file__).with_name("machine.sh"), f"bela-box-{os.getpid()}", shared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A Ctrl-C is for the tests, which then pull the plug.
            start_new_session=True,
        )
        try:
            assert self._process.stdout is not None
            pid = self._process.stdout.readline().strip()
            assert pid.isdecimal(), "the namespaces could not be set up"
            self._inside = [
                *("nsenter", "--target", pid, "--mount", "--uts", "--ipc", "--net", "--pid"),
                *("--cgroup", "--root", "--wd", "env", "-i", "LC_ALL=C.UTF-8", "HOME=/root"),
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ]
            self.until(
                lambda: (
                    self.try_("systemctl", "is-system-running").stdout
                    in {"running\n", "degraded\n"}
                ),
                "the machine has booted",
            )
        except BaseException:
            self.stop()
            raise
        self.boot_seconds = time.monotonic() - began

    def __enter__(self) -> "Machine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Pull the plug: every process of the machine, its mounts and control groups are gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(TIMEOUT)
        finally:
            # What it has started dies with it.
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def try_(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as root; returns its status and output, standard error included."""
        return subprocess.run(
            [*self._inside, *command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=2 * TIMEOUT,
        )

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command as root, which must succeed; returns its output, less the last newline."""
        done = self.try_(*command, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout.removesuffix("\n")

    def write(self, path: str, text: str) -> None:
        """Write a file, and the folders above it."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "write", path, stdin=text)

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit)

    def journal(self, *options: str) -> str:
        """Return the messages of the journal, one a line."""
        return self.run("journalctl", "--quiet", "--no-pager", "--output=cat", *options)

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float = TIMEOUT) -> None:
        """Wait for a condition to become true.

        :param what: the condition in words, for when it does not.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                tail = self.try_("journalctl", "--quiet", "--no-pager", "--lines=40").stdout
                raise AssertionError(f"not within {seconds:g} s: {what}\n{tail}")
            time.sleep(0.02)
