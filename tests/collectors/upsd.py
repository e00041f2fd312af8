"""A real ``upsd`` with a driver that makes a UPS up, from Debian's nut-server."""

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from tests.process import TIMEOUT, free_port, until_listening

FOLDER = Path("/lib/nut")


class Upsd:
    """Serves one UPS, named ``bag``.

    :param folder: a new one, for its configuration and sockets.
    """

    def __init__(self, folder: Path) -> None:
        if not (FOLDER / "dummy-ups").exists():
            reason = "dummy-ups is not installed (Debian: apt-get install nut-server)"
            if os.environ.get("BELA_REQUIRE_VICTORIA") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        self.port = free_port()
        self._folder = folder
        self._variables = folder / "bag.dev"
        names = ("NUT_CONFPATH", "NUT_STATEPATH", "NUT_ALTPIDPATH", "NUT_PIDPATH")
        self._environment = {**os.environ, **dict.fromkeys(names, str(folder))}
        (folder / "ups.conf").write_text(
            f"[bag]\n driver = dummy-ups\n port = {self._variables}\n desc = x\n pollinterval = 1\n"
        )
        (folder / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {self.port}\nMAXAGE 2\n")
        (folder / "upsd.users").touch()
        for name in ("upsd.conf", "upsd.users"):
            (folder / name).chmod(0o640)

    def __enter__(self) -> "Upsd":
        self.say("OL", 100)
        self._driver = self._run("dummy-ups", "-a", "bag", "-F")
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.send_signal(signal.SIGCONT)
        for process in (self._driver, self._server):
            process.kill()
            process.wait(TIMEOUT)

    def say(self, status: str, charge: int) -> None:
        """Let the UPS have a state, which ``upsd`` has after its driver's next look."""
        new = self._variables.with_suffix(".new")
        new.write_text(f"ups.status: {status}\nbattery.charge: {charge}\nbattery.voltage: 7.41\n")
        new.rename(self._variables)

    def freeze(self) -> None:
        """Let the driver say nothing any more, as one whose cable was pulled."""
        self._driver.send_signal(signal.SIGSTOP)

    def start(self) -> None:
        """Start the server."""
        self._server = self._run("upsd", "-F")
        until_listening(self.port)

    def stop(self) -> None:
        """End the server; its driver goes on."""
        self._server.kill()
        self._server.wait(TIMEOUT)

    def _run(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        user = ("-u", "root") if os.geteuid() == 0 else ()
        return subprocess.Popen(
            [FOLDER / program, *arguments, *user],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
