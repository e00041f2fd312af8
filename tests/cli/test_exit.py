"""Without a verdict, ``bela status`` never exits with the status of one."""

import json
import os
import signal
import socket
import subprocess

import click
import pytest

from belatwist.cli import status
from tests.cli.running import CHECKOUT, GOOD, PROGRAM, bela, serving, start
from tests.process import TIMEOUT


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (EOFError(), "interrupted"),
        (click.Abort(), "interrupted"),
        (click.ClickException("odd"), "odd"),
        (OSError(28, "No space left on device"), "the output cannot be written: No space left"),
        (OSError(5, "Input/output error", "/x"), "/x: Input/output error"),
        (RuntimeError("can't start\nnew thread"), "unexpected: RuntimeError: can't start\\nnew"),
        (MemoryError(), "unexpected: MemoryError: "),
    ],
    ids=repr,
)
def test_a_mishap_of_its_own_is_unknown(
    error: BaseException, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any exception gives status 3 and one line on stdout, since 1 means DEGRADED."""

    def fetch(*_: object) -> None:
        raise error

    monkeypatch.setattr(status, "fetch", fetch)
    done = bela("status", "--url", "http://127.0.0.1:1/")
    assert done.exit_code == 3
    assert done.stdout.startswith(f"UNKNOWN - {why}")
    assert done.stdout.count("\n") == 1
    assert ("Traceback" in done.stderr) == why.startswith("unexpected")


def redirected(how: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``bela status`` as a shell does, with some of its streams redirected."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {how}', "sh", *PROGRAM, "status", *arguments],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


NO_SPACE = "the output cannot be written: No space left on device\n"
CLOSED = "stdout and stderr must be open; /dev/null will do\n"


@pytest.mark.process
@pytest.mark.parametrize(
    ("how", "arguments", "out", "err"),
    [
        (">/dev/full", ("--url", "URL"), "", f"bela: {NO_SPACE}"),
        (">/dev/full", ("--url", "URL", "--json"), "", f"bela: {NO_SPACE}"),
        (">/dev/full", ("--help",), "", f"bela: {NO_SPACE}"),
        (">/dev/full", ("--config", "none.yaml"), "", "bela: none.yaml: no such file;"),
        (">/dev/full 2>/dev/full", ("--url", "URL"), "", ""),
        ("2>/dev/full", ("--nonsense",), "", ""),
        ("2>/dev/full", ("--config", "none.yaml"), "UNKNOWN - none.yaml: no such file;", ""),
        (">&-", ("--url", "URL"), "", f"bela: {CLOSED}"),
        ("2>&-", ("--url", "URL"), f"UNKNOWN - {CLOSED}", ""),
        (">&- 2>&-", ("--url", "URL"), "", ""),
    ],
)
def test_streams_that_cannot_be_written(
    how: str, arguments: tuple[str, ...], out: str, err: str
) -> None:
    """If a stream fails, the status is 3, and the other stream has the reason."""
    with serving(200, json.dumps(GOOD).encode()) as url:
        done = redirected(how, *(one.replace("URL", url) for one in arguments))
    assert done.returncode == 3
    assert done.stdout.startswith(out)
    assert done.stderr.startswith(err)
    assert (done.stdout == "", done.stderr == "") == (out == "", err == "")
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_nobody_reads_the_answer() -> None:
    """A closed pipe ends the command without output, and not as DEGRADED."""
    reading, writing = os.pipe()
    os.close(reading)
    with serving(200, json.dumps(GOOD).encode()) as url:
        done = subprocess.run(
            [*PROGRAM, "status", "--url", url],
            cwd=CHECKOUT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    os.close(writing)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.process
def test_it_is_interrupted() -> None:
    """Ctrl-C while the command waits for the service gives status 3."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(TIMEOUT)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/health"
        with start("status", "--url", url, "--timeout", "60") as running:
            peer, _ = listening.accept()
            with peer:
                running.send_signal(signal.SIGINT)
                out, err = running.communicate(timeout=TIMEOUT)
    assert (running.returncode, out, err) == (3, "UNKNOWN - interrupted\n", "")
