"""The bounded GET against servers on loopback, most of which misbehave."""

import errno
import gzip
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from belatwist.errors import AbsentError, HiddenError, HttpError
from belatwist.http.get import CURE, TIMEOUT, Answer, HttpGetter
from belatwist.http.limits import MAX_HEADER_BYTES
from belatwist.log.throttle import kind_of
from belatwist.scheduler.service import DEADLINE
from tests.faults.certificates import Authority
from tests.http.servers import Server, Talk, answer, flood, raw, serving
from tests.log_events import Captured
from tests.process import free_port

OK = b"HTTP/1.1 200 OK\r\n"
Test = Generator[Deferred[Any], Any, None]


def get(url: str, **options: Any) -> "Deferred[Answer]":
    """Ask, with a time-out fit for a test."""
    ca_file = options.pop("ca_file", None)
    getter = HttpGetter(reactor, ca_file)
    return Deferred.fromCoroutine(getter.get(url, **{"timeout": 5.0, **options}))


def refused(url: str, **options: Any) -> "Deferred[HttpError]":
    """Ask, and expect an error."""

    async def run() -> HttpError:
        with pytest.raises(HttpError) as raised:
            await get(url, **options)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) <= 300
        return raised.value

    return Deferred.fromCoroutine(run())


@pytest.mark.parametrize(
    "talk",
    [
        answer(b"<x>1</x>"),
        answer(b"<x>1</x>", b"Content-Encoding: Identity"),
        raw(OK, b"Transfer-Encoding: chunked\r\n\r\n3\r\n<x>\r\n5\r\n1</x>\r\n0\r\n\r\n"),
        raw(b"HTTP/1.0 200 OK\r\n\r\n<x>1", b"</x>", close=True),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", OK, b"Content-Length: 8\r\n\r\n<x>1</x>"),
        raw(OK, b"Content-Length: 8\r\n\r\n<x>1</x>and more"),
    ],
    ids=["length", "identity", "chunked", "until the close", "after a 100", "too much"],
)
@pytest_twisted.inlineCallbacks
def test_a_whole_answer(talk: Talk) -> Test:
    """However a server marks the end of the body, all of it is there, and nothing else."""
    with serving(talk) as (url, servers):
        assert (yield get(f"{url}/api?x=1")) == Answer(200, b"<x>1</x>")
        yield servers.all_closed()
    assert servers.requests[0].splitlines()[0] == "GET /api?x=1 HTTP/1.1"


@pytest_twisted.inlineCallbacks
def test_what_is_sent() -> Test:
    """The given headers, no wish for a packed answer, and no connection that is kept."""
    with serving(answer()) as (url, servers):
        yield get(url, headers={"Authorization": "Basic abc"})
    sent = {line.lower() for line in servers.requests[0].splitlines()}
    assert {"authorization: basic abc", "accept-encoding: identity", "connection: close"} <= sent


@pytest_twisted.inlineCallbacks
def test_a_cookie_is_not_sent_back() -> Test:
    """Nothing of an answer is in the next request of the same getter."""
    getter = HttpGetter(reactor)
    with serving(answer(b"", b"Set-Cookie: session=s3cret; Path=/")) as (url, servers):
        for _ in range(2):
            yield Deferred.fromCoroutine(getter.get(url))
    assert "s3cret" not in servers.requests[1]
    assert servers.requests[0] == servers.requests[1]


HANGS = {
    "before the headers": raw(),
    "within the headers": raw(OK, b"Content-Le"),
    "before the body": raw(OK, b"Content-Length: 8\r\n\r\n"),
    "within the body": raw(OK, b"Content-Length: 8\r\n\r\n<x>"),
    "within a chunk": raw(OK, b"Transfer-Encoding: chunked\r\n\r\n8\r\n<x>"),
    "before the close": raw(OK, b"\r\n<x>1</x>"),
}


@pytest.mark.parametrize("talk", HANGS.values(), ids=HANGS)
@pytest_twisted.inlineCallbacks
def test_a_server_that_hangs(talk: Talk) -> Test:
    """The time-out ends the request wherever it is, and its connection."""
    with serving(talk) as (url, servers):
        error = yield refused(url, timeout=0.2)
        assert str(error) == f"{url.removeprefix('http://')}: no answer within 0.2 s"
        assert error.code == "timeout"
        yield servers.all_closed()


@pytest_twisted.inlineCallbacks
def test_a_trickle() -> Test:
    """A byte now and then does not put the time-out off."""

    def talk(server: Server) -> None:
        def more() -> None:
            if server in servers.open:
                server.say(b"x")
                reactor.callLater(0.02, more)

        server.say(OK, b"Content-Length: 10000\r\n\r\n")
        more()

    with serving(talk) as (url, servers):
        error = yield refused(url, timeout=0.2)
        assert error.code == "timeout"
        yield servers.all_closed()


@pytest_twisted.inlineCallbacks
def test_cancelling_closes_the_connection() -> Test:
    """As the scheduler does at a collector's deadline."""
    for talk in HANGS.values():
        asked: Deferred[None] = Deferred()

        def told(server: Server, talk: Talk = talk, asked: "Deferred[None]" = asked) -> None:
            talk(server)
            reactor.callLater(0.02, asked.callback, None)

        with serving(told) as (url, servers):
            request = get(url)
            yield asked
            request.cancel()
            with pytest.raises((CancelledError, HttpError)):
                yield request
            yield servers.all_closed()


LONG = {
    "a length": raw(OK, b"Content-Length: 1001\r\n\r\n", b"x" * 1001),
    "chunks": flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "an endless body": flood(OK + b"\r\n", b"x" * 65536),
}


@pytest.mark.parametrize("talk", LONG.values(), ids=LONG)
@pytest_twisted.inlineCallbacks
def test_a_body_that_is_too_long(talk: Talk) -> Test:
    """It is an error: its beginning alone could mean something else."""
    with serving(talk) as (url, servers):
        error = yield refused(url, limit=1000)
        assert str(error).endswith(": the answer has more than 1,000 bytes")
        assert error.code == "too long"
        yield servers.all_closed()


@pytest_twisted.inlineCallbacks
def test_a_body_of_just_the_limit() -> Test:
    """The limit itself is allowed."""
    with serving(answer(b"x" * 1000)) as (url, _):
        assert (yield get(url, limit=1000)).body == b"x" * 1000


HEADERS = {
    "many": flood(OK, b"a: b\r\n" * 1000),
    "many answers before the answer": flood(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "one without an end": flood(OK, b"x" * 1000),
    "a status without an end": flood(b"HTTP/1.1 200 ", b"x" * 1000),
    "one in pieces": flood(OK + b"a: b\r\n", b" more\r\n"),
}


@pytest.mark.parametrize("talk", HEADERS.values(), ids=HEADERS)
@pytest_twisted.inlineCallbacks
def test_headers_without_an_end(talk: Talk) -> Test:
    """Twisted bounds a line; here all of them together are bounded."""
    with serving(talk) as (url, servers):
        error = yield refused(url)
        assert str(error).endswith(f": the headers have more than {MAX_HEADER_BYTES:,} bytes")
        assert error.code == "too long"
        yield servers.all_closed()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (b"http://portal.example/login?next=s3cret", "a redirect to portal.example"),
        (b"https://user:s3cret@[::1]:8443/s3cret", "a redirect to ::1"),
        (b"/login?s3cret", "a redirect"),
        (b"http://[s3cret", "a redirect"),
        (b"http://\x1b\xff" + b"x" * 1000, r"a redirect to \u001bÿ" + "x" * 98),
        (b"", "a redirect"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_a_redirect_is_not_followed(location: bytes, words: str) -> Test:
    """It is an error that names the host that it points to, and nothing else of it."""
    talk = answer(b"", b"Location: " + location, status=b"302 Found")
    with serving(talk) as (url, servers):
        error = yield refused(url)
        assert str(error).endswith(f": HTTP 302: {words}")
        assert (error.code, error.status) == ("redirect", 302)
    assert len(servers.requests) == 1


@pytest.mark.parametrize("status", [304, 400, 401, 404, 500, 503, 999])
@pytest_twisted.inlineCallbacks
def test_another_status(status: int) -> Test:
    """It is an error that has the status, and the body is not read."""
    talk = flood(b"HTTP/1.1 %d Reason\r\n\r\n" % status, b"x" * 65536)
    with serving(talk) as (url, servers):
        error = yield refused(url)
        assert str(error).endswith(f": HTTP {status}")
        assert (error.code, error.status) == (f"HTTP {status}", status)
        yield servers.all_closed()


@pytest_twisted.inlineCallbacks
def test_a_packed_answer() -> Test:
    """A bomb of gzip is not unpacked, and is not taken for the text that it is not."""
    bomb = gzip.compress(b"0" * 40_000_000)
    with serving(answer(bomb, b"Content-Encoding: gzip")) as (url, _):
        error = yield refused(url, limit=100_000)
    assert str(error).endswith(": the answer is packed (gzip), unasked")


@pytest.mark.parametrize(
    "talk",
    [
        raw(close=True),
        raw(OK, close=True),
        raw(OK, b"Content-Length: 8\r\n\r\n<x>", close=True),
        raw(OK, b"Content-Length: 8\r\n\r\n<x>", reset=True),
        raw(OK, b"Transfer-Encoding: chunked\r\n\r\n8\r\n<x>", close=True),
        raw(OK, b"Transfer-Encoding: chunked\r\n\r\n3\r\n<x>\r\n", close=True),
        raw(OK, b"\r\n<x>", reset=True),
        raw(OK, b"Content-Length: 8\r\nContent-Length: 3\r\n\r\n<x>1</x>"),
        raw(OK, b"Content-Length: -1\r\n\r\n"),
        raw(OK, b"Transfer-Encoding: gzip\r\n\r\n"),
        raw(OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"SSH-2.0-OpenSSH_9.2\r\n" * 10),
        raw(b"\x00\xff\r\n\x1b[31m\r\n\r\n"),
        raw(b"HTTP/1.1 abc\r\n\r\n"),
        raw(OK, b"no colon\r\n\r\n"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_an_answer_cut_short_or_none(talk: Talk) -> Test:
    """It is an error at once, not a shorter answer."""
    with serving(talk) as (url, servers):
        error = yield refused(url)
        assert error.code not in {"timeout", "refused"}
        assert error.status is None
        yield servers.all_closed()


@pytest_twisted.inlineCallbacks
def test_nobody_listens() -> Test:
    """A refusal is told from silence."""
    port = free_port()
    error = yield refused(f"http://127.0.0.1:{port}/x?s3cret")
    assert str(error) == f"127.0.0.1:{port}: the connection was refused"
    assert kind_of(error) == "HttpError refused"


@pytest_twisted.inlineCallbacks
def test_no_route() -> Test:
    """A network that cannot be reached is told from a server that does not answer."""
    error = yield refused("http://[100::1]/")
    assert str(error) == "[100::1]: there is no route"
    assert error.code == "unreachable"


@pytest_twisted.inlineCallbacks
def test_a_name_that_does_not_exist() -> Test:
    """The error says that it is the name."""
    error = yield refused("http://modem.invalid/")
    assert str(error) == "modem.invalid: the name cannot be resolved"


@implementer(IHostnameResolver)
class NoNames:
    """Fails the test that looks a name up."""

    def resolveHostName(self, *arguments: Any, **options: Any) -> NoReturn:
        raise AssertionError(arguments)


def test_an_address_is_not_looked_up() -> None:
    """A look-up takes a thread, and may wait for a name server; the clock ends the attempt."""
    clock = MemoryReactorClock()
    clock.installNameResolver(NoNames())
    for number, host in enumerate(("192.168.8.1", "[fe80::1]"), 1):
        getter = HttpGetter(clock)
        failed = Deferred.fromCoroutine(getter.get(f"http://{host}:8080/", timeout=3.0))
        assert clock.tcpClients[-1][:2] == (host.strip("[]"), 8080)
        assert len(clock.tcpClients) == number
        clock.advance(3.0)
        found: list[Any] = []
        failed.addBoth(found.append)
        assert "no answer within 3 s" in str(found[0].value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "modem",
        "ftp://127.0.0.1/",
        "http://",
        "http://127.0.0.1:x/",
        "http://127.0.0.1:0/",
        "http://[::1/",
        "http://user:s3cret@127.0.0.1/",
        "http://mödem/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\r\nX: b",
    ],
)
@pytest_twisted.inlineCallbacks
def test_a_url_that_cannot_be_asked(url: str) -> Test:
    """It is refused before anything is sent, and not repeated, because of the login in it."""
    error = yield refused(url)
    assert str(error).startswith("a URL must be")


@pytest.mark.parametrize("secret", ["s3cret-word", "k3y%2B", "k3y+"])
@pytest_twisted.inlineCallbacks
def test_secrets_are_not_in_errors(secret: str) -> Test:
    """Neither the query nor the headers' values, however the server repeats them."""
    word = secret.encode()
    for talk in (
        raw(b"HTTP/1.1 %b\x07 %b\xff\r\n\r\n" % (word, word)),
        answer(b"", b"Location: http://%b/" % word, status=b"301 Moved"),
        answer(b"", b"Content-Encoding: %b" % word),
        raw(OK, b"Transfer-Encoding: %b\r\n\r\n" % word),
    ):
        with serving(talk) as (url, _):
            error = yield refused(
                f"{url}/?a=1&key=k3y%2B", headers={"Authorization": "Bearer s3cret-word"}
            )
            assert secret not in str(error)


def behind_tls(folder: Path) -> Callable[[Any], Any]:
    """Put servers behind TLS, with the certificate of a folder."""
    pem = str(folder / "server.pem")
    context = DefaultOpenSSLContextFactory(pem, pem, SSL.TLS_SERVER_METHOD)
    return lambda servers: TLSMemoryBIOFactory(context, False, servers)


@pytest_twisted.inlineCallbacks
def test_tls(tmp_path: Path) -> Test:
    """A server with the right certificate is asked, and cannot keep the connection open."""
    authority = Authority(tmp_path / "ca")
    authority.server("localhost")
    talk = raw(OK, b"Content-Length: 8\r\n\r\n<x>1</x>")
    with serving(talk, wrap=behind_tls(tmp_path / "ca")) as (url, servers):
        named = url.replace("http://127.0.0.1", "https://localhost")
        assert (yield get(named, ca_file=authority.file)).body == b"<x>1</x>"
        yield servers.all_closed()


@pytest.mark.parametrize(
    ("host", "days", "trusted", "words"),
    [
        ("localhost", 1, False, "is not trusted"),
        ("localhost", -1, True, "is not trusted: it has expired"),
        ("example.org", 1, True, "is for another host than that of the request"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_a_wrong_certificate(
    tmp_path: Path, host: str, days: float, trusted: bool, words: str
) -> Test:
    """Nothing is sent to a server that is not the right one, and the error says why."""
    authority = Authority(tmp_path / "ca")
    authority.server(host, days=days)
    with serving(answer(b"x"), wrap=behind_tls(tmp_path / "ca")) as (url, servers):
        named = url.replace("http://127.0.0.1", "https://localhost")
        error = yield refused(named, ca_file=authority.file if trusted else None)
        assert words in str(error)
        assert error.code == "TLS"
        yield servers.all_closed()
    assert servers.requests == []


@pytest_twisted.inlineCallbacks
def test_no_tls_where_it_is_expected() -> Test:
    """A server that speaks plain HTTP gets no request over TLS."""
    with serving(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (url, servers):
        # The greeting of TLS has no empty line, so the server must talk by itself.
        servers.protocol = Impatient
        error = yield refused(url.replace("http:", "https:"))
        assert error.code == "TLS"
    assert servers.requests == []


class Impatient(Server):
    """Talks before it has read the request."""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.factory.talk(self)


@pytest_twisted.inlineCallbacks
def test_requests_are_not_logged() -> Test:
    """Twisted logs the start and stop of factories; here they would be lines at each tick."""
    with Captured() as log, serving(answer(b"x")) as (url, _):
        yield get(url)
        yield get(url.replace("127.0.0.1", "localhost"))
        yield refused(f"http://127.0.0.1:{free_port()}/")
    assert [text for text in log.texts(LogLevel.info) if "actory" in text] == []


@pytest_twisted.inlineCallbacks
def test_the_source_address() -> Test:
    """The request comes from the address that was asked for."""
    with serving(answer(b"x")) as (url, servers):
        yield get(url, source="127.0.0.7")
        yield get(url.replace("127.0.0.1", "localhost"), source="127.0.0.8")
        assert servers.peers == ["127.0.0.7", "127.0.0.8"]
        error = yield refused(url, source="192.0.2.1")
        assert error.code == "EADDRNOTAVAIL"
        error = yield refused(url, source="::1")
        assert error.code == "ConnectBindError"


@pytest_twisted.inlineCallbacks
def test_through_the_loopback_interface() -> Test:
    """Any user may bind a socket to an interface, since Linux 5.7; also for a name."""
    with serving(answer(b"x")) as (url, _):
        assert (yield get(url, interface="lo")).body == b"x"
        assert (yield get(url.replace("127.0.0.1", "localhost"), interface="lo")).body == b"x"


@pytest.mark.parametrize("name", ["none0", "", "lo-but-much-too-long", "l\0", "\x1b"])
@pytest_twisted.inlineCallbacks
def test_an_interface_that_is_not_there(name: str) -> Test:
    """A modem that is not plugged in is absent; a long name is not cut to another's."""
    with serving(answer(b"x")) as (url, servers):
        with pytest.raises(AbsentError, match=r"^there is no interface [ -~]*$"):
            yield get(url, interface=name)
        assert servers.requests == []


@pytest_twisted.inlineCallbacks
def test_an_interface_that_may_not_be_chosen(monkeypatch: pytest.MonkeyPatch) -> Test:
    """As Linux before 5.7 answers a user without the capability: it is hidden, with the cure."""
    really = socket.socket.setsockopt

    def setsockopt(made: socket.socket, level: int, option: int, *value: Any) -> None:
        if option == socket.SO_BINDTODEVICE:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        really(made, level, option, *value)

    monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
    with serving(answer(b"x")) as (url, servers), pytest.raises(HiddenError) as raised:
        yield get(url, interface="lo")
    assert str(raised.value) == "the kernel does not let the agent choose interface lo"
    assert raised.value.cure == CURE
    assert servers.requests == []


def test_the_time_out_is_shorter_than_the_deadline_of_collectors() -> None:
    """The error of the request, which names the server, comes before the scheduler's."""
    assert TIMEOUT < DEADLINE


@pytest_twisted.inlineCallbacks
def test_nothing_is_left_of_many_requests() -> Test:
    """No timer, no socket: of requests that succeed, fail and are given up."""
    before = len(reactor.getDelayedCalls()), len(reactor.getReaders())
    for talk in (answer(b"x"), raw(close=True), raw()):
        with serving(talk) as (url, servers):
            for _ in range(5):
                request = get(url, timeout=0.05)
                request.addErrback(lambda failure: failure.trap(HttpError))
                yield request
            yield servers.all_closed()
    yield deferLater(reactor, 0.0)
    after = len(reactor.getDelayedCalls()), len(reactor.getReaders())
    assert after == before
