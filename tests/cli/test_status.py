"""``bela status`` asks the running service."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from belatwist import config
from belatwist.cli import status
from tests.cli.running import GOOD, bela, process, serving
from tests.process import Twistd, free_port, write_config


@contextmanager
def talking(*pieces: bytes) -> Iterator[str]:
    """Accept one connection, send pieces, and then nothing until the test ends."""
    over = threading.Event()

    def run() -> None:
        peer, _ = listening.accept()
        with peer:
            for piece in pieces:
                peer.sendall(piece)
            over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/health"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("word", "code", "expected"), [("ok", 200, 0), ("degraded", 200, 1), ("error", 503, 2)]
)
def test_the_exit_status_is_the_verdict(word: str, code: int, expected: int) -> None:
    """The exit status is Nagios', and the first line has the verdict with its first reason."""
    document = GOOD | {"status": word, "reasons": ["storage: is full", "uploader: is slow"]}
    with serving(code, json.dumps(document).encode()) as url:
        done = bela("status", "--url", url)
    assert (done.exit_code, done.stderr) == (expected, "")
    first, second, *_ = done.stdout.splitlines()
    assert first == f"{word.upper()} - storage: is full"
    assert second == "  uploader: is slow"


def test_the_document_as_it_is() -> None:
    """``--json`` prints the document with only its control characters escaped."""
    body = '{"status":"ok", "reasons":[],\n "name":"\u009b31m é"}'
    with serving(200, body.encode()) as url:
        done = bela("status", "--url", url, "--json")
    assert done.exit_code == 0
    assert done.stdout == body.replace("\u009b", "\\u009b") + "\n"
    assert json.loads(done.stdout) == json.loads(body)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (404, b"<html>not found</html>"),
        (200, b""),
        (200, b"{}"),
        (200, b'{"status": "ok", "received": 5}'),
        (200, b'{"status": "fine", "reasons": []}'),
        (200, b'{"status": ["ok"], "reasons": []}'),
        (200, b'["ok"]'),
        (200, b'{"status": "ok"'),
        (200, b"\xff\xfe\xfd"),
        (200, b"[" * 100_000),
        (200, b'{"status": "ok", "reasons": [], "x": "' + b"x" * status.MAX_BYTES + b'"}'),
    ],
    ids=range(11),
)
def test_a_strange_answer(code: int, body: bytes) -> None:
    """If another program answers, one line says so, with the address."""
    with serving(code, body) as url:
        done = bela("status", "--url", url)
    assert (done.exit_code, done.stderr) == (2, "")
    assert done.stdout.startswith(
        f"ERROR - {url}: the answer (HTTP {code}) is not a health document"
    )
    assert done.stdout.count("\n") == 1


def test_another_protocol() -> None:
    """An answer that is not HTTP is reported as such."""
    with talking(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
        done = bela("status", "--url", url)
    assert done.exit_code == 2
    assert "the answer is not HTTP" in done.stdout


@pytest.mark.parametrize("pieces", [(), (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{",)])
def test_no_end_of_the_answer(pieces: tuple[bytes, ...]) -> None:
    """After the time-out the command stops waiting for an answer or for its end."""
    with talking(*pieces) as url:
        done = bela("status", "--url", url, "--timeout", "0.2")
    assert done.exit_code == 2
    assert done.stdout.startswith(f"ERROR - {url}: no answer within 0.2 s")


def test_nobody_there(tmp_path: Path) -> None:
    """The line has the address, the reason and the cure; with ``--json`` it is on stderr."""
    port = free_port()
    path = write_config(tmp_path, health={"enabled": True, "port": port})
    done = bela("status", "--config", path)
    assert (done.exit_code, done.stderr) == (2, "")
    assert done.stdout == (
        f"ERROR - http://127.0.0.1:{port}/health: nothing listens there: is the service running"
        " (systemctl status metrics-collector)?\n"
    )
    done = bela("status", "--config", path, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nothing listens there" in done.stderr


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:9100/h"),
        ("0.0.0.0", "http://127.0.0.1:9100/h"),
        ("::", "http://[::1]:9100/h"),
        ("::1", "http://[::1]:9100/h"),
        ("localhost", "http://localhost:9100/h"),
        ("192.0.2.7", "http://192.0.2.7:9100/h"),
    ],
)
def test_where_it_asks(host: str, expected: str) -> None:
    """For a service that listens on all addresses the URL has the loopback address."""
    assert status.address(host, 9100, "/h") == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://box:9100", "http://box:9100/health"),
        ("http://box:9100/", "http://box:9100/health"),
        ("https://box/state", "https://box/state"),
    ],
)
def test_a_url_without_a_path(url: str, expected: str) -> None:
    """The URL gets the default path."""
    assert status.checked_url(url) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "box:9100"),
        ("--url", "ftp://box/"),
        ("--url", "http://me:secret@box/"),
        ("--url", "http://box:99999/"),
        ("--url", "http://[box/"),
        ("--timeout", "0"),
        ("--timeout", "soon"),
        ("--timeout", "nan"),
        ("--timeout", "inf"),
        ("--timeout", "-inf"),
        ("--nonsense",),
        ("argument",),
    ],
)
def test_a_mistake_of_usage_is_unknown(arguments: tuple[str, ...]) -> None:
    """The exit status is 3, as Nagios expects, not 2."""
    done = bela("status", *arguments)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "Error: " in done.stderr


def test_a_configuration_that_does_not_say_where(tmp_path: Path) -> None:
    """If it cannot be read, or the endpoint is off, the command prints one line with UNKNOWN."""
    done = bela("status", "--config", tmp_path / "none.yaml")
    assert done.exit_code == 3
    assert done.stdout.startswith(f"UNKNOWN - {tmp_path}/none.yaml: no such file")
    done = bela("status", "--config", write_config(tmp_path, health={"enabled": False}))
    assert done.exit_code == 3
    assert done.stdout.startswith("UNKNOWN - health.enabled is false")


def test_without_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the default file the command uses the default address, with a note."""
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "none.yaml"))
    monkeypatch.setattr(status, "fetch", lambda url, _, __: (url.encode(), GOOD))
    done = bela("status", "--json")
    assert done.stdout == "http://127.0.0.1:9100/health\n"
    assert "using the defaults" in done.stderr


@pytest.mark.process
def test_the_real_service(tmp_path: Path) -> None:
    """The command finds the service by its configuration, and every part of the report is known."""
    path = write_config(
        tmp_path,
        health={"enabled": True, "port": free_port()},
        metrics=[{"name": "system.load", "interval": "100ms"}, {"name": "cpu.usage"}],
    )
    with Twistd("bela", "--config", str(path), cwd=tmp_path) as service:
        service.expect_event("Metrics collected")
        done = process("status", "--config", path)
        raw = process("status", "--config", path, "--json")
        assert service.stop() == 0
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OK - all is well\n")
    assert "test-device, belatwist " in done.stdout
    assert str(tmp_path / "metrics.db") in done.stdout
    assert "?" not in done.stdout
    assert "unknown" not in done.stdout
    (load,) = (line for line in done.stdout.splitlines() if line.startswith("system.load"))
    assert load.split()[1] == "ok"
    assert json.loads(raw.stdout)["device_id"] == "test-device"
    done = process("status", "--config", path)
    assert done.returncode == 2


@pytest.mark.process
def test_a_service_that_asks_for_a_password(tmp_path: Path) -> None:
    """The command takes the login from the configuration; with a URL alone it cannot."""
    logins = tmp_path / "logins"
    logins.write_text("me:se cret\n")
    logins.chmod(0o600)
    port = free_port()
    path = write_config(
        tmp_path, health={"enabled": True, "port": port, "basic_auth_file": str(logins)}
    )
    with Twistd("bela", "--config", str(path), cwd=tmp_path) as service:
        service.expect_event("scheduler.tick_stored")
        done = bela("status", "--config", str(path))
        assert (done.exit_code, done.stdout.splitlines()[0]) == (0, "OK - all is well")
        refused = bela("status", "--url", f"http://127.0.0.1:{port}")
        assert refused.exit_code == 2
        assert "the service requires a login" in refused.stdout
        assert service.stop() == 0
