"""Access control: the names of the device, and logins."""

import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.collectors.registry import SOURCES
from belatwist.config import load, read_logins
from belatwist.errors import ConfigError
from belatwist.web.access import Access
from belatwist.web.endpoints import Endpoint, site
from tests.health.snapshots import HEALTHY
from tests.http_wire import Answer, Wire
from tests.process import write_config

HOME = "192.168.1.10"


def access(host: str = "0.0.0.0", *logins: str, own: str = "Box") -> Access:
    """Make the rules of the machine "box"; without logins no request needs one."""
    read = (lambda: logins) if logins else None
    return Access([host], b"/health/live", read, seconds=float, hostname=lambda: own)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "192.168.1.10:9100",
        "[::1]:9100",
        "[fe80::1]",
        "localhost",
        "localhost:9100",
        "LOCALHOST.",
        "box",
        "box.local:80",
        "BOX.Local",
        "box.local.",
        None,
    ],
)
def test_names_of_this_machine(host: str | None) -> None:
    """An address, or a name that no foreign name server gives; a program may send none at all."""
    assert access().refusal(b"/", host, None) is None


@pytest.mark.parametrize(
    "host", ["box.example.org", "BOX.example.org:9100", "box.example.org.", "box", "box.local"]
)
def test_a_host_name_with_a_domain(host: str) -> None:
    """A machine may be called by its whole name; mDNS announces the first part of it."""
    assert access(own="box.example.org").refusal(b"/", host, None) is None


def test_the_domain_of_a_host_name_is_not_its_own() -> None:
    """Another machine of the same domain is another machine."""
    for host in ("example.org", "other.example.org", "example", "box.example"):
        assert access(own="box.example.org").refusal(b"/", host, None) is not None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:9100",
        "box.evil.example",
        "box.local.evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "2130706433",
        "0x7f.1",
        "127.0.0.1 evil",
        "127.0.0.1:9100:1",
        "[::1",
        "[evil]",
        "::1",
        "box\N{FULLWIDTH FULL STOP}local",
    ],
)
def test_names_of_others(host: str) -> None:
    """A name that its owner may let point anywhere is refused, however it begins."""
    refusal = access().refusal(b"/health/live", host, None)
    assert refusal is not None
    assert (refusal.status, refusal.challenge) == (403, False)


def basic(login: str, scheme: str = "Basic") -> str:
    """Write the header."""
    return f"{scheme} {base64.b64encode(login.encode()).decode()}"


def test_logins() -> None:
    """Any of the file's lines, wholly; and the bare sign of life needs none."""
    guarded = access(HOME, "me:pässword:1", "you:b")
    for good in (basic("me:pässword:1"), basic("you:b"), basic("you:b", "bAsIc")):
        assert guarded.refusal(b"/", HOME, good) is None
    for bad in (
        None,
        "",
        "Basic",
        "Basic ???",
        "Basic w6Q=",
        basic("me:pässword:1", "Bearer"),
        basic("me:pässword"),
        basic("me"),
        basic("you:b\n"),
        basic(":"),
        basic(""),
    ):
        refusal = guarded.refusal(b"/", HOME, bad)
        assert refusal is not None
        assert (refusal.status, refusal.challenge) == (401, True)
    assert guarded.refusal(b"/health/live", HOME, None) is None
    for path in (b"/health", b"/metrics", b"/health/live/", b"/health/%6cive", b"/api/v1/now"):
        assert guarded.refusal(path, HOME, None) is not None


def secret(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file of logins."""
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file(tmp_path: Path) -> None:
    """Lines of user and password, for its owner alone."""
    path = secret(tmp_path / "logins", "me:a b\nyou:ü:\n")
    assert read_logins(str(path)) == ("me:a b", "you:ü:")


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("me:a\n", 0o640, "mode 0640: only its owner may have access: chmod 600"),
        ("", 0o600, "the file is empty"),
        ("\n", 0o600, "the file is empty"),
        ("me\n", 0o600, "user:password"),
        (":a\n", 0o600, "user:password"),
        ("me:\n", 0o600, "user:password"),
        ("me:a\n\nyou:b\n", 0o600, "user:password"),
        ("me:a\tb\n", 0o600, "user:password"),
        ("x" * 5000, 0o600, "larger than 4096 bytes"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, mode: int, says: str) -> None:
    """The start is refused, in a line that names the key and holds no password."""
    path = secret(tmp_path / "logins", text, mode)
    config = write_config(tmp_path, health={"enabled": True, "basic_auth_file": str(path)})
    with pytest.raises(ConfigError) as refusal:
        load(config, SOURCES)
    assert "health.basic_auth_file: " in str(refusal.value)
    assert says in str(refusal.value)
    assert "me:" not in str(refusal.value)


class GuardTests(SynchronousTestCase):
    """The whole way, over a connection in memory."""

    def setUp(self) -> None:
        self.events = self.enterContext(capturedLogs())
        self.folder = Path(self.enterContext(TemporaryDirectory()))
        self.logins = secret(self.folder / "logins", "me:secret-1\n")
        health = {"enabled": True, "host": "127.0.0.1", "basic_auth_file": str(self.logins)}
        config = load(write_config(self.folder, health=health), SOURCES).health
        self.clock = Clock()
        self.site: Any = site(Endpoint(lambda: HEALTHY, config, lambda: b""), self.clock)

    def logged(self) -> list[str]:
        """Format what was logged above debug."""
        return [str(formatEvent(e)) for e in self.events if e["log_level"] > LogLevel.debug]

    def ask(self, path: str, *headers: str) -> Answer:
        """Send a request and take its answer."""
        wire = Wire(self.site, self.clock)
        wire.send("\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""]).encode())
        [answer] = wire.answers()
        wire.lose()
        return answer

    def test_a_login_is_asked_for(self) -> None:
        """Without it there is a 401 that makes a browser ask, as JSON; with it the answer."""
        for path in ("/health", "/health/ready", "/metrics", "/nothing"):
            status, headers, body = self.ask(path)
            assert status == 401
            assert headers["www-authenticate"] == 'Basic realm="belatwist", charset="UTF-8"'
            assert json.loads(body) == {"error": "user and password are needed"}
        assert self.ask("/health", f"Authorization: {basic('me:secret-1')}")[0] == 200
        assert self.ask("/health/live")[0] == 200

    def test_a_foreign_name(self) -> None:
        """It is refused before anything else, also where no login is needed."""
        for path in ("/health", "/health/live", "/%ff", "*"):
            status, headers, body = self.ask(path, "Host: evil.example")
            assert (status, headers["content-type"]) == (403, "application/json")
            assert json.loads(body).keys() == {"error"}

    def test_headers_that_are_no_text(self) -> None:
        """They are refused like any that do not fit; what a client sends is no fault of ours."""
        for header, expected in ((b"Host", 403), (b"Authorization", 401), (b"Cookie", 401)):
            wire = Wire(self.site, self.clock)
            wire.send(b"GET /health HTTP/1.1\r\n" + header + b": Basic \xff\r\n\r\n")
            [(status, headers, _)] = wire.answers()
            assert (status, headers["content-type"]) == (expected, "application/json")
            wire.lose()
        assert self.events == []

    def test_a_name_that_is_allowed(self) -> None:
        """A scraper may ask by the name that it has of the device; by no other of its domain."""
        health = {"enabled": True, "allowed_hosts": ["Bela-1.Example.org."]}
        config = load(write_config(self.folder, health=health), SOURCES).health
        self.site = site(Endpoint(lambda: HEALTHY, config, lambda: b""), self.clock)
        for name in ("bela-1.example.org:9100", "BELA-1.example.org", "127.0.0.1", "localhost"):
            assert self.ask("/metrics", f"Host: {name}")[0] == 200
        for name in ("bela-2.example.org", "example.org", "bela-1.example.org.evil.example"):
            status, _, body = self.ask("/metrics", f"Host: {name}")
            assert status == 403
            assert "health.allowed_hosts" in json.loads(body)["error"]

    def test_the_file_changes(self) -> None:
        """A new password works at once; without the file no login works, which is logged once."""
        secret(self.logins, "me:secret-2\n")
        assert self.ask("/health", f"Authorization: {basic('me:secret-1')}")[0] == 401
        assert self.ask("/health", f"Authorization: {basic('me:secret-2')}")[0] == 200
        assert self.events == []
        self.logins.unlink()
        for _ in range(3):
            assert self.ask("/health", f"Authorization: {basic('me:secret-2')}")[0] == 503
            assert self.ask("/health/live")[0] == 200
        [logged] = self.logged()
        assert logged.startswith(
            "Logins cannot be read, requests are refused: health.basic_auth_file: "
        )
        assert "secret" not in logged
        secret(self.logins, "me:secret-2\n")
        assert self.ask("/health", f"Authorization: {basic('me:secret-2')}")[0] == 200
        assert self.logged()[1:] == ["Logins can be read again"]
