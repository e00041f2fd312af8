"""Runs the ``bela`` command: within this process, or as one of its own."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from belatwist.cli.commands import bela as command
from belatwist.model import Sample, Series, sample
from belatwist.store.sql import schema
from tests.store.databases import fresh, insert

PROGRAM = [sys.executable, "-m", "belatwist.cli"]
CHECKOUT = Path(__file__).parent.parent.parent

GOOD: dict[str, Any] = {"status": "ok", "reasons": [], "version": "0.1.0", "collectors": {}}
"""A health document."""


def bela(*arguments: object) -> Result:
    """Run a command here; an exception that it lets through is raised."""
    return CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=False)


def process(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command as a process, to its end."""
    return subprocess.run(
        [*PROGRAM, *(str(one) for one in arguments)],
        cwd=options.pop("cwd", CHECKOUT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """Start a command as a process; its output is piped."""
    return subprocess.Popen(
        [*PROGRAM, *(str(one) for one in arguments)],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def make(path: Path, samples: list[Sample]) -> Path:
    """Make a database as the agent leaves it: with a write-ahead log, closed."""
    connection = fresh(path)
    schema.configure(connection, synchronous="normal", cache_mb=8, mmap_mb=0)
    insert(connection, samples)
    connection.close()
    return path


def ticks(series: Series, first: int, count: int, step: int = 1000) -> list[Sample]:
    """Make samples of one series, one each step."""
    return [sample(series, first + n * step, n + 0.5) for n in range(count)]


@contextmanager
def serving(code: int, body: bytes) -> Iterator[str]:
    """Answer every request alike; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/health"
        finally:
            server.shutdown()
            thread.join()
