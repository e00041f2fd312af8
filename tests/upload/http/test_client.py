"""The HTTP client against real servers on loopback, most of which misbehave."""

import gc
import gzip
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.logger import LogLevel
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from belatwist.errors import BelaError
from belatwist.runtime.listener import Listener
from belatwist.upload.http import endpoints
from belatwist.upload.http.client import HTTPImportClient
from belatwist.upload.policy import (
    Accepted,
    Misconfigured,
    Rejected,
    Retryable,
    SendResult,
    advice,
)
from tests.faults.certificates import Authority
from tests.log_events import Captured
from tests.process import free_port


class Import(Resource):
    """Has prepared answers, and keeps the requests.

    :ivar answers: called with each request, in turn; the last one stays.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[int] = set()
        self.answer: Callable[[Request], Any] = no_content

    def render_POST(self, request: Request) -> Any:
        assert request.content is not None
        self.bodies.append(request.content.read())
        self.keep_headers(request)
        assert request.channel is not None
        self.connections.add(id(request.channel))
        return self.answer(request)

    def keep_headers(self, request: Request) -> None:
        """Keep the headers of a request, by their names in lower case."""
        found = request.requestHeaders.getAllRawHeaders()
        self.headers.append({k.decode().lower(): v[0].decode() for k, v in found})


def no_content(request: Request) -> bytes:
    """As VictoriaMetrics answers."""
    request.setResponseCode(204)
    return b""


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Request], bytes]:
    """Answer with a status, a body and headers."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(code)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return body

    return answer


def untyped(code: int, body: bytes = b"") -> Callable[[Request], bytes]:
    """Answer with a status and a body that has no type."""

    def answer(request: Any) -> bytes:
        request.setResponseCode(code)
        request.defaultContentType = None
        return body

    return answer


def never(_request: Request) -> int:
    """Take the body and say nothing."""
    return NOT_DONE_YET


def reset(request: Request) -> int:
    """Take the body and cut the connection before the answer."""
    assert request.channel is not None
    request.channel.transport.abortConnection()  # type: ignore[union-attr]
    return NOT_DONE_YET


def cut_short(request: Request) -> int:
    """Promise more than is sent, and cut the connection."""
    request.setHeader("content-length", "100")
    request.write(b"0123456789")
    assert request.channel is not None
    request.channel.transport.loseConnection()  # type: ignore[union-attr]
    return NOT_DONE_YET


def trickle(request: Request) -> int:
    """Send the headers and a byte, and then nothing more."""
    request.setHeader("content-length", "100")
    request.write(b"0")
    return NOT_DONE_YET


@contextmanager
def listening(factory: Factory[Any], host: str = "127.0.0.1") -> Iterator[str]:
    """Serve on a free loopback port; yields the URL of the import endpoint."""
    listener = Listener(reactor, host, 0, factory, "test")
    listener.open()
    try:
        yield f"{listener.url}/api/v1/import"
    finally:
        listener.stopService()


def client(url: str, **options: Any) -> HTTPImportClient:
    """Make a client with a time-out fit for a test."""
    return HTTPImportClient(
        reactor,
        url,
        **{"headers": {"X-Device-ID": "d"}, "body_headers": {}, "timeout": 5.0, **options},
    )


def posting(
    answer: Callable[[Request], Any], **options: Any
) -> "Deferred[tuple[SendResult, Import]]":
    """Post once to a server that gives an answer."""

    async def run() -> tuple[SendResult, Import]:
        resource = Import()
        resource.answer = answer
        with listening(Site(resource)) as url:
            one = client(url, **options)
            outcome = await one.post(b"body")
            await one.close()
        return outcome, resource

    return Deferred.fromCoroutine(run())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (no_content, Accepted(204, 0)),
        (status(204, Content_Type="text/html; charset=utf-8"), Accepted(204, 0)),
        (
            status(200, b"ok\n\x1b[31m", Content_Type="Text/Plain; charset=utf-8"),
            Retryable(
                "HTTP 200 with a body of text/plain is not VictoriaMetrics' answer, which is 204:"
                r" ok \u001b[31m",
                200,
            ),
        ),
        (
            untyped(200),
            Retryable(
                "HTTP 200 with an empty body is not VictoriaMetrics' answer, which is 204", 200
            ),
        ),
        (
            untyped(200, b"ok"),
            Retryable(
                "HTTP 200 with a body without a type is not VictoriaMetrics' answer, which is 204:"
                " ok",
                200,
            ),
        ),
        (
            untyped(200, b"<HTML>"),
            Retryable("a web page answered, perhaps of a captive portal: HTTP 200: <HTML>", 200),
        ),
        (status(400, b"cannot parse\nline"), Rejected(400, "HTTP 400: cannot parse line")),
        (status(413), Rejected(413, "HTTP 413")),
        (
            status(401, b"no"),
            Misconfigured(401, "HTTP 401: no", "remote.auth_token_file: the server wants a token"),
        ),
        (status(404), Misconfigured(404, "HTTP 404")),
        (
            status(302, b"moved", Location="http://u:p@192.0.2.1:81/a;id=1?next=x#y"),
            Misconfigured(302, "HTTP 302: a redirect to http://192.0.2.1:81/a"),
        ),
        (status(307, Location="/login?x"), Misconfigured(307, "HTTP 307: a redirect to /login")),
        (status(301, Location="http://[x"), Misconfigured(301, "HTTP 301")),
        (
            status(308, Location="/\x1b" + "x" * 9999),
            Misconfigured(308, r"HTTP 308: a redirect to /\u001b" + "x" * 142 + "…"),
        ),
        (status(429, Retry_After="7"), Retryable("HTTP 429", 429, 7.0)),
        (status(503), Retryable("HTTP 503", 503, 0.0)),
    ],
)
@pytest_twisted.inlineCallbacks
def test_answers(
    answer: Callable[[Request], Any], expected: SendResult
) -> "Generator[Deferred[Any], Any, None]":
    """Each answer of a server becomes a result; no redirect is followed."""
    outcome, _ = yield posting(answer)
    assert outcome == expected


@pytest.mark.parametrize("answer", [reset, cut_short])
@pytest_twisted.inlineCallbacks
def test_broken_connections_are_retried(
    answer: Callable[[Request], Any],
) -> "Generator[Deferred[Any], Any, None]":
    """A connection that breaks before the whole answer is there says nothing about the body."""
    outcome, _ = yield posting(answer)
    assert isinstance(outcome, Retryable)
    assert outcome.status is None
    assert "\n" not in outcome.reason


@pytest.mark.parametrize("answer", [never, trickle])
@pytest_twisted.inlineCallbacks
def test_silence_ends(answer: Callable[[Request], Any]) -> "Generator[Deferred[Any], Any, None]":
    """The time-out covers the whole attempt: no headers, or a body that does not end."""
    outcome, _ = yield posting(answer, timeout=0.2)
    assert outcome == Retryable("no answer within 0.2 s", error_type="TimeoutError")


@pytest_twisted.inlineCallbacks
def test_nobody_listens() -> "Generator[Deferred[Any], Any, None]":
    """A refused connection is retried, and its reason names the error."""
    with listening(Site(Import())) as url:
        pass
    one = client(url)
    outcome = yield one.post(b"body")
    yield one.close()
    assert isinstance(outcome, Retryable)
    assert "ConnectionRefusedError" in outcome.reason
    assert outcome.error_type == "ConnectionRefusedError"


@pytest_twisted.inlineCallbacks
def test_whether_connections_stand_is_told() -> "Generator[Deferred[Any], Any, None]":
    """Of each attempt to connect to the server; a kept connection takes none."""
    told: list[bool] = []
    with listening(Site(Import())) as url:
        one = client(url)
        one.watch(told.append)
        for _ in range(2):
            yield one.post(b"body")
        yield Deferred.fromCoroutine(one.date_of(f"{url}/health"))
        assert told == [True]
        yield one.close()
    for _ in range(2):
        yield one.post(b"body")
    with pytest.raises(BelaError):
        yield Deferred.fromCoroutine(one.date_of(f"{url}/health"))
    assert told == [True, False, False, False]
    with pytest.raises(BelaError):
        yield Deferred.fromCoroutine(one.date_of(f"http://127.0.0.2:{free_port()}/health"))
    assert told == [True, False, False, False]
    yield one.close()


@pytest_twisted.inlineCallbacks
def test_a_knock_is_a_connection_and_no_request() -> "Generator[Deferred[Any], Any, None]":
    """It says whether somebody listens, also where nobody would speak TLS, and leaves nothing."""
    resource = Import()
    with listening(Site(resource)) as url:
        one = client(url)
        assert (yield one.probe()) is None
        assert (yield client(url.replace("http:", "https:")).probe()) is None
    assert resource.bodies == []
    with Captured() as log, pytest.raises(ConnectError):
        yield one.probe()
    assert [text for text in log.texts(LogLevel.info) if "Factory" in text] == []


@pytest_twisted.inlineCallbacks
def test_a_knock_looks_no_name_up_again() -> "Generator[Deferred[Any], Any, None]":
    """The address of a name is known from the last connection."""
    with (
        listening(Site(Import())) as url,
        mock.patch.object(endpoints, "HostnameEndpoint", wraps=HostnameEndpoint) as made,
    ):
        one = client(url.replace("127.0.0.1", "localhost"))
        yield one.probe()
        yield one.post(b"body")
        yield one.probe()
        yield one.close()
    hosts = [call.args[1] for call in made.call_args_list]
    assert hosts == [b"localhost", b"localhost", "127.0.0.1"]


@pytest_twisted.inlineCallbacks
def test_one_connection_is_used_again() -> "Generator[Deferred[Any], Any, None]":
    """Requests that follow each other share a connection, and the body arrives as it was given."""
    resource = Import()
    with listening(Site(resource)) as url:
        one = client(url)
        for _ in range(3):
            yield one.post(gzip.compress(b"x" * 100_000))
        yield one.close()
    assert len(resource.connections) == 1
    assert gzip.decompress(resource.bodies[2]) == b"x" * 100_000


@pytest_twisted.inlineCallbacks
def test_headers() -> "Generator[Deferred[Any], Any, None]":
    """The given headers are sent; the body's length is; no token where there is none."""
    _, resource = yield posting(
        no_content,
        headers={"User-Agent": "belatwist/1", "X-Device-ID": "d"},
        body_headers={"Content-Encoding": "gzip"},
    )
    sent = resource.headers[0]
    assert sent["user-agent"] == "belatwist/1"
    assert sent["x-device-id"] == "d"
    assert sent["content-encoding"] == "gzip"
    assert sent["content-length"] == "4"
    assert "authorization" not in sent


@pytest_twisted.inlineCallbacks
def test_token_is_read_again_when_it_changes(
    tmp_path: Path,
) -> "Generator[Deferred[Any], Any, None]":
    """A new token is used without a restart."""
    file = tmp_path / "token"
    file.write_text("first\n")
    resource = Import()
    with listening(Site(resource)) as url:
        one = client(url, token=lambda: file.read_text().strip())
        yield one.post(b"")
        file.write_text("the second\n")
        yield one.post(b"")
        file.unlink()
        missing = yield one.post(b"")
        yield one.close()
    assert [h["authorization"] for h in resource.headers] == ["Bearer first", "Bearer the second"]
    assert isinstance(missing, Retryable)
    assert "second" not in missing.reason


@pytest_twisted.inlineCallbacks
def test_an_answer_is_not_kept_whole() -> "Generator[Deferred[Any], Any, None]":
    """A long error page is quoted at its beginning, on one line, without control characters."""
    outcome, _ = yield posting(status(500, b"<html>\r\n\x1b[31m" + b"x" * 1_000_000))
    assert isinstance(outcome, Retryable)
    assert len(outcome.reason) < 400
    assert outcome.reason.startswith(r"HTTP 500: <html> \u001b[31mxxx")


def stalled(request: Request) -> int:
    """Answer 200, and a body that begins and does not go on."""
    request.setHeader("content-length", "100000")
    request.write(b"0")
    return NOT_DONE_YET


def endless(request: Request) -> int:
    """Answer 200, and a body without an end."""

    class Producer:
        def resumeProducing(self) -> None:
            request.write(b"x" * 65536)

        def stopProducing(self) -> None:
            pass

    request.registerProducer(Producer(), False)
    return NOT_DONE_YET


class Counting(Site):
    """Counts the connections that are open."""

    open_now = 0

    def buildProtocol(self, address: Any) -> Any:
        protocol = super().buildProtocol(address)
        lost = protocol.connectionLost
        self.open_now += 1

        def connectionLost(reason: Failure) -> None:
            self.open_now -= 1
            lost(reason)

        protocol.connectionLost = connectionLost
        return protocol


@pytest.mark.parametrize(("answer", "words"), [(stalled, "no answer"), (endless, "web page")])
@pytest_twisted.inlineCallbacks
def test_an_abandoned_answer_leaves_no_connection(
    answer: Callable[[Request], Any], words: str
) -> "Generator[Deferred[Any], Any, None]":
    """An answer that stalls or does not end is cut off, with its connection."""
    resource = Import()
    resource.answer = answer
    site = Counting(resource)
    with listening(site) as url:
        one = client(url, timeout=0.3)
        for _ in range(3):
            outcome = yield one.post(b"body")
            assert isinstance(outcome, Retryable)
            assert words in outcome.reason
        yield one.close()
        yield task.deferLater(reactor, 0.05)
        assert site.open_now == 0


@pytest_twisted.inlineCallbacks
def test_a_packed_answer_is_not_unpacked() -> "Generator[Deferred[Any], Any, None]":
    """Two megabytes of gzip that would be two thousand are not unpacked, nor asked for."""
    bomb = gzip.compress(b"0" * 40_000_000)
    outcome, resource = yield posting(status(400, bomb, Content_Encoding="gzip"))
    assert outcome.status == 400
    assert "accept-encoding" not in resource.headers[0]


@pytest_twisted.inlineCallbacks
def test_no_cookie_is_kept() -> "Generator[Deferred[Any], Any, None]":
    """What a server sets never comes back to it, nor does it stay in memory."""

    def answer(request: Request) -> bytes:
        for i in range(20):
            value = b"portal%d=s3cret; Path=/; Max-Age=9999" % i
            request.responseHeaders.addRawHeader(b"Set-Cookie", value)
        request.responseHeaders.addRawHeader(b"Set-Cookie2", b"old=s3cret; Version=1")
        return no_content(request)

    resource = Health()
    resource.answer = resource.page_answer = answer
    with listening(Site(resource)) as url:
        one = client(url)
        for _ in range(3):
            assert (yield one.post(b"body")) == Accepted(204, 0)
            yield Deferred.fromCoroutine(one.date_of(url))
        yield one.close()
    assert len(resource.headers) == 6
    assert all("cookie" not in name for sent in resource.headers for name in sent)
    jars = [kept for kept in gc.get_objects() if isinstance(kept, CookieJar)]
    assert jars
    assert [cookie.name for jar in jars for cookie in jar if cookie.value == "s3cret"] == []


@pytest_twisted.inlineCallbacks
def test_headers_of_any_bytes() -> "Generator[Deferred[Any], Any, None]":
    """A header that is no text in any encoding does not turn a success into a failure."""

    def answer(request: Request) -> bytes:
        request.responseHeaders.setRawHeaders(b"Retry-After", [b"\xff\xfe"])
        return no_content(request)

    outcome, _ = yield posting(answer)
    assert outcome == Accepted(204, 0)


@pytest_twisted.inlineCallbacks
def test_a_token_that_is_repeated_is_not_told() -> "Generator[Deferred[Any], Any, None]":
    """A server that repeats the request does not bring the token into the log."""
    page = status(401, b"no such token: s3cret-token; really: s3cret-token")
    outcome, resource = yield posting(page, token=lambda: "s3cret-token")
    assert resource.headers[0]["authorization"] == "Bearer s3cret-token"
    assert outcome == Misconfigured(401, "HTTP 401: no such token: …; really: …")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (lambda: "s3cret-token", "remote.url: the server wants a user name and a password"),
        (None, "remote.auth_token_file and remote.url: the server wants a token"),
    ],
)
@pytest_twisted.inlineCallbacks
def test_a_server_that_wants_a_password(
    token: Callable[[], str] | None, words: str
) -> "Generator[Deferred[Any], Any, None]":
    """It is probably another one than the server that the token is for."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(401)
        for challenge in (b'Digest realm="x"', b'Basic realm="x"'):
            request.responseHeaders.addRawHeader(b"WWW-Authenticate", challenge)
        return b"no"

    outcome, _ = yield posting(answer, token=token)
    assert isinstance(outcome, Misconfigured)
    assert outcome.reason == "HTTP 401: no"
    assert str(advice(outcome)).startswith(words)


@pytest_twisted.inlineCallbacks
def test_a_token_in_a_header_is_not_told() -> "Generator[Deferred[Any], Any, None]":
    """Neither where an answer redirects, nor in the type of its body."""
    for page in (
        status(302, Location="http://host/s3cret-token/x"),
        status(200, b"x", Content_Type="text/" + "x" * 44 + "s3cret-token"),
    ):
        outcome, _ = yield posting(page, token=lambda: "s3cret-token")
        assert isinstance(outcome, Misconfigured | Retryable)
        assert "…" in outcome.reason
        assert "s3c" not in outcome.reason


SECRETS = ("s3cret-token", "x=1&authKey=k3y%2B", "k3y%2B", "k3y+")


@pytest.mark.parametrize("secret", SECRETS)
@pytest_twisted.inlineCallbacks
def test_nothing_secret_is_told_of_an_answer(secret: str) -> "Generator[Deferred[Any], Any, None]":
    """Neither the token nor the query, nor a value in it, however the server repeats them."""
    page = f"{secret}\x1b[31m{secret}\r\n({secret})".encode()
    resource = Import()
    resource.answer = status(500, page)
    with listening(Site(resource)) as url:
        one = client(f"{url}?x=1&authKey=k3y%2B", token=lambda: "s3cret-token")
        outcome = yield one.post(b"body")
        yield one.close()
    assert isinstance(outcome, Retryable)
    assert outcome.reason == r"HTTP 500: …\u001b[31m… (…)"


@pytest.mark.parametrize("secret", SECRETS)
@pytest_twisted.inlineCallbacks
def test_nothing_secret_is_told_of_an_error(secret: str) -> "Generator[Deferred[Any], Any, None]":
    """Also when an answer that is not HTTP repeats them, and the error quotes it."""

    class Repeats(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 %b\x07%b \xff\r\n\r\n" % ((secret.encode(),) * 2))
            self.transport.loseConnection()

    with listening(Factory.forProtocol(Repeats)) as base:
        url = f"{base}?x=1&authKey=k3y%2B"
        one = client(url, token=lambda: "s3cret-token")
        outcome = yield one.post(b"body")
        with pytest.raises(BelaError) as raised:
            yield Deferred.fromCoroutine(one.date_of(url))
        yield one.close()
    assert isinstance(outcome, Retryable)
    for text in (outcome.reason, str(raised.value)):
        assert "…" in text
        assert text.isprintable()
        assert not any(one in text for one in SECRETS)


def date_of(url: str, times: int = 1, **options: Any) -> "Deferred[list[tuple[str | None, str]]]":
    """Ask for the time."""

    async def run() -> list[tuple[str | None, str]]:
        one = client(url, **options)
        try:
            return [
                await one.date_of(url.replace("/api/v1/import", "/health")) for _ in range(times)
            ]
        finally:
            await one.close()

    return Deferred.fromCoroutine(run())


class Health(Import):
    """Answers a request for the time.

    :ivar page_answer: called with each such request, if it is there, before the answer.
    """

    page = b"text/plain"
    page_answer: Callable[[Request], Any] | None = None

    def render_GET(self, request: Request) -> bytes:
        self.keep_headers(request)
        if self.page_answer is not None:
            self.page_answer(request)
        request.setResponseCode(200)
        request.setHeader("content-type", self.page)
        return b"OK"


@pytest_twisted.inlineCallbacks
def test_the_servers_time_and_address() -> "Generator[Deferred[Any], Any, None]":
    """The address is that of the connection, also where an earlier one is used again."""
    with listening(Site(Health())) as url:
        answers = yield date_of(url, times=2)
    port = url.split(":")[2].partition("/")[0]
    for date, server in answers:
        assert parsedate_to_datetime(date).year >= 2026
        assert server == f"127.0.0.1:{port}"


@pytest_twisted.inlineCallbacks
def test_a_captive_portals_time_is_none() -> "Generator[Deferred[Any], Any, None]":
    """It answers for every server, with a page of its own; its clock may be as wrong as ours."""
    portal = Health()
    portal.page = b"text/html; charset=utf-8"
    with (
        listening(Site(portal)) as url,
        pytest.raises(BelaError, match="200: a web page, not"),
    ):
        yield date_of(url)


@pytest_twisted.inlineCallbacks
def test_a_server_by_its_ipv6_address() -> "Generator[Deferred[Any], Any, None]":
    """Samples and the question for the time reach it; its query is sent as it was written."""
    with listening(Site(health := Health()), "::1") as url:
        one = client(f"{url}?extra_label=site=%C3%A9")
        outcome = yield one.post(b"body")
        ((_, server),) = yield date_of(url)
        yield one.close()
    assert outcome == Accepted(204, 0)
    assert health.bodies == [b"body"]
    assert server == url.removeprefix("http://").partition("/")[0]


@pytest_twisted.inlineCallbacks
def test_the_address_behind_tls(tmp_path: Path) -> "Generator[Deferred[Any], Any, None]":
    """It is known of an encrypted connection, and of a name, as well."""
    authority = Authority(tmp_path / "ca")
    authority.server("localhost")
    pem = str(tmp_path / "ca" / "server.pem")
    context = DefaultOpenSSLContextFactory(pem, pem, SSL.TLS_SERVER_METHOD)
    with listening(TLSMemoryBIOFactory(context, False, Site(Health()))) as url:
        port = url.split(":")[2].partition("/")[0]
        named = url.replace("http://127.0.0.1", "https://LocalHost")
        ((_, server),) = yield date_of(named, ca_file=authority.file)
    assert server == f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("own", "key"), [(True, "remote.url"), (False, "monitoring.clock_skew_url")]
)
@pytest_twisted.inlineCallbacks
def test_the_key_of_a_server_with_a_foreign_certificate(
    own: bool, key: str, tmp_path: Path
) -> "Generator[Deferred[Any], Any, None]":
    """The error names the key whose host is not in the certificate."""
    authority = Authority(tmp_path / "ca")
    authority.server("localhost")
    pem = str(tmp_path / "ca" / "server.pem")
    context = DefaultOpenSSLContextFactory(pem, pem, SSL.TLS_SERVER_METHOD)
    with listening(TLSMemoryBIOFactory(context, False, Site(Health()))) as base:
        url = base.replace("http:", "https:")
        one = client(url if own else "http://127.0.0.1:1/api/v1/import", ca_file=authority.file)
        with pytest.raises(BelaError, match=f"for another host than that of {key}$"):
            yield Deferred.fromCoroutine(one.date_of(url))
        yield one.close()


@pytest_twisted.inlineCallbacks
def test_no_time() -> "Generator[Deferred[Any], Any, None]":
    """Nothing listens, or nothing answers: the error says so in words."""
    with listening(Site(Health())) as url:
        pass
    with pytest.raises(BelaError, match=r"^ConnectionRefusedError: "):
        yield date_of(url)
    with (
        mock.patch("belatwist.upload.http.client.DATE_TIMEOUT", 0.1),
        listening(Factory.forProtocol(Protocol)) as url,
        pytest.raises(BelaError, match=r"^no answer within 0\.1 s$"),
    ):
        yield date_of(url)


@pytest_twisted.inlineCallbacks
def test_a_web_page_is_no_acceptance() -> "Generator[Deferred[Any], Any, None]":
    """A captive portal answers 200 to everything; the samples are not delivered by that."""
    page = status(200, b"<html>Please log in", Content_Type="text/html; charset=utf-8")
    outcome, _ = yield posting(page)
    assert isinstance(outcome, Retryable)
    assert "captive portal" in outcome.reason


class NotHTTP(Protocol):
    """Speaks something else."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        pass


@pytest_twisted.inlineCallbacks
def test_something_else_answers() -> "Generator[Deferred[Any], Any, None]":
    """A port on which no HTTP is spoken is an outcome, not an exception."""
    with listening(Factory.forProtocol(NotHTTP)) as url:
        one = client(url)
        outcome = yield one.post(b"body")
        yield one.close()
    assert isinstance(outcome, Retryable)


@pytest_twisted.inlineCallbacks
def test_tls_needs_a_known_certificate() -> "Generator[Deferred[Any], Any, None]":
    """A server that does not speak TLS, where https is asked for, gets no body."""
    resource = Import()
    with listening(Site(resource)) as url:
        one = client(url.replace("http://", "https://"))
        outcome = yield one.post(b"body")
        yield one.close()
    assert isinstance(outcome, Retryable)
    assert resource.bodies == []
