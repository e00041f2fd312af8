"""Runs the real program: ``twistd`` as a process of its own, with a configuration of the test's."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import yaml

TIMEOUT = 20.0
"""Seconds after which something that should have happened has not."""


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until_listening(port: int) -> None:
    """Wait until a loopback port is open: VictoriaMetrics' programs log it a moment before."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


def twistd(*arguments: str) -> list[str]:
    """Return the command line of ``twistd`` in the foreground, in this environment."""
    program = Path(sys.executable).with_name("twistd")
    return [str(program), "--nodaemon", "--pidfile=", *arguments]


class Lines:
    """The lines of a stream, read by a thread, so that waiting for one can end."""

    def __init__(self, stream: IO[str]) -> None:
        self.seen: list[str] = []
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._read, args=(stream,))
        self.thread.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, wanted: Callable[[str], bool], what: str) -> str:
        """Wait for a line and return it.

        :param what: what to say when it does not come.
        """
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                line = self._queue.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"{what}: not among\n" + "\n".join(self.seen[-100:]))
            self.seen.append(line)
            if wanted(line):
                return line

    def rest(self) -> list[str]:
        """Read to the end of the stream and return every line there was."""
        while (line := self._queue.get(timeout=TIMEOUT)) is not None:
            self.seen.append(line)
        return self.seen


class Twistd:
    """A running service.

    :param arguments: what follows ``twistd -n``: the service and its options.
    :param hooked: run it by way of :mod:`tests.twistd_with_hooks`.
    :param module: run it by way of this module.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        hooked: bool = False,
        module: str | None = None,
    ) -> None:
        command = twistd(*arguments)
        if hooked:
            module = "tests.twistd_with_hooks"
        if module is not None:
            command[:1] = [sys.executable, "-m", module]
            env = {"PYTHONPATH": str(Path(__file__).parent.parent), **(env or {})}
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.log = Lines(self.process.stdout)

    def __enter__(self) -> "Twistd":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.log.thread.join()

    def expect(self, text: str) -> str:
        """Wait for a line of the log that holds a text."""
        return self.log.until(lambda line: text in line, repr(text))

    def expect_event(self, wanted_event: str) -> dict[str, Any]:
        """Wait for an event of a JSON log.

        :param wanted_event: its name (``upload.failed``), or the beginning of its message.
        """
        found: dict[str, Any] = {}

        def wanted(line: str) -> bool:
            if line.startswith("{"):
                found.clear()
                found.update(json.loads(line))
            message = str(found.get("msg", ""))
            return found.get("event") == wanted_event or message.startswith(wanted_event)

        self.log.until(wanted, repr(wanted_event))
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)

    def wait(self) -> int:
        """Wait for the process to end by itself; returns the exit status."""
        return self.process.wait(TIMEOUT)


def write_config(folder: Path, **sections: Any) -> Path:
    """Write a configuration for tests: everything in ``folder``, fast, JSON on stdout.

    :param sections: merged into the sections of the same name.
    """
    config: dict[str, Any] = {
        "device": {"id": "test-device"},
        "storage": {"path": str(folder / "metrics.db")},
        "remote": {"enabled": False},
        "health": {"enabled": False},
        "logging": {"level": "debug", "format": "json", "output": "stdout"},
    }
    for name, section in sections.items():
        if isinstance(section, dict):
            config.setdefault(name, {}).update(section)
        else:
            config[name] = section
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
