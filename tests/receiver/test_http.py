"""Tests of the receiver over real connections: every status, and what happens to the connection."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool

from belatwist.receiver.app import Receiver, site
from belatwist.receiver.bounds import MAX_BODY_BYTES
from belatwist.receiver.parse import MAX_LINE_BYTES, MAX_UNPACKED_BYTES

NOW = 1_697_040_000_000
GOOD = b'{"metric":{"__name__":"a"},"values":[1,2],"timestamps":[%d,%d]}\n' % (NOW, NOW + 1)
reactor: Any = installed_reactor
GZIP = {"Content-Encoding": "gzip"}


class Client:
    """A receiver listening on a loopback port, and a client for it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pool = HTTPConnectionPool(reactor)
        self._http = HTTPClient(Agent(reactor, pool=self.pool))

    async def ask(
        self, method: str, path: str, **kwargs: Any
    ) -> tuple[int, dict[str, list[str]], bytes]:
        """Send a request and read its answer: status, headers and body."""
        response = await self._http.request(
            method, f"http://127.0.0.1:{self.port}{path}", reactor=reactor, **kwargs
        )
        headers = {
            name.decode().lower(): [value.decode() for value in values]
            for name, values in response.headers.getAllRawHeaders()
        }
        return response.code, headers, await response.content()

    async def post(
        self, body: bytes, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, list[str]], bytes]:
        """Send an import request."""
        return await self.ask("POST", "/api/v1/import", data=body, headers=headers or {})

    async def series(self) -> Any:
        """List what the receiver holds."""
        return json.loads((await self.ask("GET", "/api/v1/series"))[2])

    async def connect(self) -> "Raw":
        """Open a connection to write to byte by byte."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        raw: Raw = await connectProtocol(endpoint, Raw())
        return raw


class Raw(Protocol):
    """A connection that collects what comes until it is closed.

    :ivar closed: fires with all that came, when the other side has closed.
    """

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[bytes] = Deferred()

    def write(self, data: bytes) -> None:
        """Send bytes."""
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        """Collect."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Hand over what was collected."""
        self.closed.callback(self.received)


@pytest_twisted.async_yield_fixture
async def client() -> AsyncIterator[Client]:
    """Serve a fresh receiver for one test."""
    port = reactor.listenTCP(0, site(Receiver(reactor), reactor), interface="127.0.0.1")
    client = Client(port.getHost().port)
    yield client
    await client.pool.closeCachedConnections()
    await port.stopListening()


def bomb(piece: bytes, pieces: int) -> Iterator[bytes]:
    """Compress the same piece again and again, without ever holding the whole."""
    packer = zlib.compressobj(9, wbits=31)
    for _ in range(pieces):
        yield packer.compress(piece)
    yield packer.flush()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (GOOD + GOOD, {}),
        (GOOD + GOOD, {"Content-Encoding": "identity"}),
        (gzip.compress(GOOD + GOOD), GZIP),
        (gzip.compress(GOOD) + gzip.compress(GOOD), GZIP),
    ],
    ids=["plain", "identity", "gzip", "gzip of two members"],
)
async def test_good_lines(client: Client, body: bytes, headers: dict[str, str]) -> None:
    """Good lines are kept in every encoding, and answered with 204 and no body."""
    status, answered, content = await client.post(body, headers)
    assert (status, content) == (204, b"")
    assert "content-type" not in answered
    [series] = await client.series()
    assert (series["samples"], series["last_timestamp_ms"]) == (4, NOW + 1)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("body", "headers", "status", "line"),
    [
        (GOOD + b"x", {}, 400, 2),
        (gzip.compress(GOOD + b"{}"), GZIP, 400, 2),
        (GOOD, GZIP, 400, None),
        (gzip.compress(GOOD), {}, 400, 1),
        (gzip.compress(GOOD * 50)[:-9], GZIP, 400, None),
        (b"", GZIP, 400, None),
        (GOOD, {"Content-Encoding": "zstd"}, 415, None),
        (GOOD + b" " * (MAX_LINE_BYTES + 1), {}, 413, 2),
    ],
    ids=[
        "bad line",
        "bad line in gzip",
        "plain called gzip",
        "gzip called plain",
        "gzip cut short",
        "nothing called gzip",
        "unknown encoding",
        "long line",
    ],
)
async def test_bad_bodies(
    client: Client, body: bytes, headers: dict[str, str], status: int, line: int | None
) -> None:
    """A bad body is refused with its status, a reason and the line, and nothing of it is kept."""
    answered_status, answered, content = await client.post(body, headers)
    assert (answered_status, answered["content-type"]) == (status, ["application/json"])
    error = json.loads(content)
    assert error.pop("error")
    assert error == ({} if line is None else {"line": line})
    assert await client.series() == []


@pytest_twisted.ensureDeferred
async def test_older_format(client: Client) -> None:
    """The older format is counted in the answer."""
    body = json.dumps([{"name": "a.b", "value": 1, "timestamp": NOW}]).encode()
    status, _, content = await client.ask("POST", "/api/metrics", data=body)
    assert (status, json.loads(content)["accepted"]) == (200, 1)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/health", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/import", 405),
        ("DELETE", "/api/metrics", 405),
    ],
)
async def test_statuses(client: Client, method: str, path: str, status: int) -> None:
    """Addresses and methods that there are, and that there are not."""
    answered_status, headers, _ = await client.ask(method, path)
    assert answered_status == status
    assert ("allow" in headers) == (status == 405)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("piece", "count", "reason"),
    [
        (bytes(1024 * 1024), 80, "longer than 1048576 bytes"),
        (b"\n".rjust(1024 * 1024), 80, f"unpacks to more than {MAX_UNPACKED_BYTES} bytes"),
    ],
    ids=["one line", "many lines"],
)
async def test_a_gzip_bomb_is_refused_cheaply(
    client: Client, piece: bytes, count: int, reason: str
) -> None:
    """80 MiB of zeros or of blank lines get 413, for a small part of that in memory."""
    body = b"".join(bomb(piece, count))
    tracemalloc.start()
    try:
        status, headers, content = await client.post(body, GZIP)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (status, headers["content-type"]) == (413, ["application/json"])
    assert reason in json.loads(content)["error"]
    assert peak < 10 * 1024 * 1024
    assert await client.series() == []


HEAD = b"POST /api/v1/import HTTP/1.1\r\nHost: localhost\r\n"


@pytest_twisted.ensureDeferred
async def test_a_declared_length_is_refused_before_the_body(client: Client) -> None:
    """A client that sends only the head is answered, and sees the connection end."""
    raw = await client.connect()
    raw.write(HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
    received = await raw.closed
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b'"error"' in received


@pytest_twisted.ensureDeferred
async def test_a_chunked_upload_is_cut(client: Client) -> None:
    """A client that sends on and on gets to read the 413, and is disconnected."""
    raw = await client.connect()
    raw.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    for _ in range(2 * MAX_BODY_BYTES // 0x10000):
        raw.write(chunk)
    received = await raw.closed
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b'"error"' in received


@pytest_twisted.ensureDeferred
async def test_the_connection_lives_on_after_a_400(client: Client) -> None:
    """Requests sent at once over one connection are all answered, the bad one with 400."""
    raw = await client.connect()
    good = HEAD + b"Content-Length: %d\r\n\r\n" % len(GOOD) + GOOD
    bad = HEAD + b"Content-Length: 1\r\n\r\nx"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    raw.write(bad + good + last)
    received = await raw.closed
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"400", b"204", b"200"]
    assert b'"samples":2' in received


@pytest_twisted.ensureDeferred
async def test_the_connection_ends_after_a_413(client: Client) -> None:
    """Also where the body had arrived and only proved too large when it was unpacked."""
    raw = await client.connect()
    body = b"".join(bomb(bytes(1024 * 1024), 2))
    raw.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body))
    raw.write(body + b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = await raw.closed
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in received
    assert received.count(b"HTTP/1.1") == 1
