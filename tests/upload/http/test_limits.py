"""The client against servers whose answers do not end."""

from collections.abc import Generator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from belatwist.errors import BelaError
from belatwist.http.limits import MAX_HEADER_BYTES
from belatwist.upload.http.client import HTTPImportClient
from belatwist.upload.policy import Accepted, Retryable
from tests.http.servers import Server, Talk, flood, raw, serving

Test = Generator[Deferred[Any], Any, None]

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n"
CHUNKED = b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADERS = f"the headers have more than {MAX_HEADER_BYTES:,} bytes"
ANSWER = "the answer has more than 49,152 bytes after its headers"

ENDLESS = {
    "headers": (flood(NO_CONTENT, b"a: b\r\n" * 1000), HEADERS),
    "one header": (flood(NO_CONTENT + b"a: ", b"b" * 65536), HEADERS),
    "one header in small pieces": (flood(NO_CONTENT + b"a: ", b"b" * 100), HEADERS),
    "one folded header": (flood(NO_CONTENT + b"a: b\r\n", b" more\r\n"), HEADERS),
    "a status": (flood(b"HTTP/1.1 204 ", b"x" * 1000), HEADERS),
    "interim answers": (flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), HEADERS),
    "hints": (flood(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"), HEADERS),
    "trailers": (flood(CHUNKED + b"1\r\nx\r\n0\r\n", b"a: b\r\n" * 100), ANSWER),
    "one trailer": (flood(CHUNKED + b"0\r\na: ", b"b" * 1000), ANSWER),
    "chunks of one byte with extensions": (
        flood(CHUNKED, b"1;" + b"e" * 500 + b"\r\nx\r\n"),
        ANSWER,
    ),
}


def client(url: str, timeout: float = 5.0) -> HTTPImportClient:
    """Make a client with a time-out fit for a test."""
    endpoint = f"{url}/api/v1/import"
    return HTTPImportClient(reactor, endpoint, headers={}, body_headers={}, timeout=timeout)


@pytest.mark.parametrize(("talk", "reason"), ENDLESS.values(), ids=ENDLESS)
@pytest_twisted.inlineCallbacks
def test_an_endless_answer_to_an_upload(talk: Talk, reason: str) -> Test:
    """The connection is aborted at the limit, and the samples are sent again, on another one."""
    with serving(talk) as (url, servers):
        one = client(url)
        for _ in range(2):
            assert (yield one.post(b"")) == Retryable(reason, error_type="HttpError")
            yield servers.all_closed()
        yield one.close()
    assert len(servers.requests) == 2


@pytest.mark.parametrize(("talk", "reason"), ENDLESS.values(), ids=ENDLESS)
@pytest_twisted.inlineCallbacks
def test_an_endless_answer_to_the_question_for_the_time(talk: Talk, reason: str) -> Test:
    """The same limits hold where the clocks are compared."""
    with serving(talk) as (url, servers):
        with pytest.raises(BelaError) as raised:
            yield Deferred.fromCoroutine(client(url).date_of(f"{url}/health"))
        assert str(raised.value) == reason
        yield servers.all_closed()


@pytest_twisted.inlineCallbacks
def test_a_connection_that_is_used_again_counts_anew() -> Test:
    """Each answer may have as much as the first."""
    headers = b"a: b\r\n" * (MAX_HEADER_BYTES // 12)

    def talk(server: Server) -> None:
        server.say(NO_CONTENT, headers, b"\r\n")
        server.forget()

    with serving(talk) as (url, servers):
        one = client(url)
        for _ in range(5):
            assert (yield one.post(b"")) == Accepted(204, 0)
        yield one.close()
        yield servers.all_closed()
    assert len(servers.requests) == 5
    assert servers.connections == 1


@pytest.mark.parametrize(("more", "reason"), [(0, "no answer within 0.3 s"), (1, HEADERS)])
@pytest_twisted.inlineCallbacks
def test_headers_of_just_the_limit(more: int, reason: str) -> Test:
    """The limit itself is allowed, and not a byte more."""
    lines = b"a: b\r\n" * 2000
    rest = MAX_HEADER_BYTES - len(NO_CONTENT) - len(lines)
    with serving(raw(NO_CONTENT, lines, b"c" * (rest + more))) as (url, _):
        one = client(url, timeout=0.3)
        outcome = yield one.post(b"")
        yield one.close()
    assert outcome.reason == reason
