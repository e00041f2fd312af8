"""A proxy of the tests' own, between service and server: it does what a bad network does.

It knows as much of HTTP as the uploader speaks: requests with a ``Content-Length``, one after the
other on a connection. A thread a connection; whatever waits ends when the proxy is closed.
"""

import gzip
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from socket import (
    IPPROTO_TCP,
    SHUT_RDWR,
    SO_LINGER,
    SO_REUSEADDR,
    SOL_SOCKET,
    TCP_INFO,
    TCP_NODELAY,
    socket,
)
from struct import pack
from types import TracebackType
from typing import BinaryIO

from tests.process import TIMEOUT

Labels = tuple[tuple[str, str], ...]
"""The labels of a series, ``__name__`` among them, sorted."""

_ESTABLISHED = 1  # include/net/tcp_states.h
_PIECE = 4096


@dataclass(frozen=True)
class Request:
    """A request that has arrived whole.

    :ivar at: when, on the monotonic clock.
    :ivar wall: when, in Unix time.
    :ivar headers: names in lower case.
    :ivar sent: the body as it was sent.
    """

    at: float
    wall: float
    method: str
    path: str
    headers: Mapping[str, str]
    sent: bytes = field(repr=False)

    @cached_property
    def points(self) -> list[tuple[Labels, int, float]]:
        """The body's samples: labels, milliseconds, value."""
        gzipped = self.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(self.sent) if gzipped else self.sent
        lines = [json.loads(line) for line in body.splitlines()]
        return [
            (tuple(sorted(line["metric"].items())), at, value)
            for line in lines
            for at, value in zip(line["timestamps"], line["values"], strict=True)
        ]

    def names(self) -> set[str]:
        """Return the names of the metrics in the body."""
        return {dict(labels)["__name__"] for labels, _, _ in self.points}


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass the request on, and the answer back.

    :ivar delay: seconds before it is passed on.
    :ivar taken: called once the server has answered, before anything is passed back.
    """

    delay: float = 0.0
    taken: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer in the server's place."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection; the server never hears of the request."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing, until the other side gives up."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Pass the request on, and cut the connection in the answer.

    :ivar after: bytes of the answer that still get through.
    """

    after: int = 12


Action = Forward | Answer | Reset | Hang | Cut
Rule = Callable[[Request], Action]


@dataclass(slots=True)
class Exchange:
    """A request and what became of it.

    :ivar action: what was done.
    :ivar status: of the server's answer or the proxy's own; ``None`` while there is none.
    :ivar over: whether everything that was to be done is done.
    """

    request: Request
    action: Action
    status: int | None = None
    over: bool = False

    @property
    def taken(self) -> bool:
        """Whether the server has taken the body."""
        return (
            isinstance(self.action, Forward | Cut)
            and self.status is not None
            and self.status // 100 == 2
        )


def forward(_request: Request) -> Action:
    """Pass everything on: the rule of a good network."""
    return Forward()


class Proxy:
    """Listens on a loopback port of its own, which it keeps for life.

    :param target: the server's port on 127.0.0.1; may be changed at any time.
    :param tls: to be spoken with the service, not with the server.
    :ivar seen: every upload, in the order of arrival.
    :ivar round_trip: seconds that an answer takes longer to come.
    :ivar bandwidth: bytes a second of a request's body, or ``None``.
    :ivar most_open: the most connections that stood at the same time.
    :ivar broken: connections that ended before a request: why.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.seen: list[Exchange] = []
        self.round_trip = 0.0
        self.bandwidth: float | None = None
        self.most_open = 0
        self.broken: list[str] = []
        self._tls = tls
        self._rule: Rule = forward
        self._script: deque[Action | Rule] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._open: list[socket] = []
        self._threads: list[threading.Thread] = []
        # While connections are refused the port stays bound, so that nobody else gets it.
        self._holder = _bound(0)
        self.port = int(self._holder.getsockname()[1])
        self._listening: socket | None = None
        self.accept()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        self.refuse()
        self._holder.close()
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        """The import endpoint behind the proxy."""
        scheme, host = ("http", "127.0.0.1") if self._tls is None else ("https", "localhost")
        return f"{scheme}://{host}:{self.port}/api/v1/import"

    def rule(self, rule: Rule) -> None:
        """Say what happens to each upload from now on; it is called on a connection's thread."""
        with self._changed:
            self._rule = rule

    def script(self, *actions: Action | Rule) -> None:
        """Say what happens to the next uploads, before the rule holds again."""
        with self._changed:
            self._script.extend(actions)

    def heal(self) -> None:
        """Be a good network from now on."""
        with self._changed:
            self._rule = forward
            self._script.clear()
        self.round_trip, self.bandwidth = 0.0, None
        self.accept()

    def refuse(self) -> None:
        """Close the port, and reset the connections that stand."""
        if self._listening is not None:
            with suppress(OSError):
                self._listening.shutdown(SHUT_RDWR)  # Wakes the thread that accepts.
            self._listening.close()
            self._listening = None
            self._holder = _bound(self.port)
        with self._changed:
            for one in self._open:
                _reset(one)
                with suppress(OSError):
                    one.shutdown(SHUT_RDWR)  # Wakes the thread that reads.

    def accept(self) -> None:
        """Open the port, if it is not."""
        if self._listening is None:
            self._holder.close()
            self._listening = _bound(self.port)
            self._listening.listen()
            self._start(self._accept, self._listening)

    def wait(self, true: Callable[[Sequence[Exchange]], object], what: str) -> None:
        """Wait until something holds of all uploads seen.

        :param what: what to say when it does not come about.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: true(self.seen), TIMEOUT):
                last = [(one.action, one.status) for one in self.seen[-10:]]
                raise AssertionError(f"{what}: not among {len(self.seen)} uploads, last {last}")

    def wait_over(self, count: int) -> None:
        """Wait until so many more uploads than now are over."""
        wanted = len(self.seen) + count
        self.wait(
            lambda seen: len(seen) >= wanted and all(one.over for one in seen[:wanted]),
            f"{count} more uploads",
        )

    def _start(self, function: Callable[[socket], None], one: socket) -> None:
        thread = threading.Thread(target=function, args=(one,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket) -> None:
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            one.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            with self._changed:
                self._open.append(one)
                # The kernel's word: our threads may not have noticed yet that a client has gone.
                standing = sum(_state(other) == _ESTABLISHED for other in self._open)
                self.most_open = max(self.most_open, standing)
            self._start(self._serve, one)

    def _serve(self, raw: socket) -> None:
        one = raw if self._tls is None else self._wrap(self._tls, raw)
        try:
            if one is not None:
                with one.makefile("rb") as stream:
                    while self._exchange(one, stream):
                        pass
        except OSError:
            pass  # The client has gone.
        finally:
            with self._changed:
                self._open = [other for other in self._open if other not in (one, raw)]
            (one or raw).close()

    def _wrap(self, tls: ssl.SSLContext, raw: socket) -> ssl.SSLSocket | None:
        """Begin TLS; ``None`` when the client does not like our certificate."""
        one = tls.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._open[self._open.index(raw)] = one
        try:
            one.do_handshake()
        except OSError as error:
            one.close()
            with self._changed:
                self._open.remove(one)
                self.broken.append(str(error))
                self._changed.notify_all()
            return None
        return one

    def _exchange(self, one: socket, stream: BinaryIO) -> bool:
        """Take one request and deal with it; says whether the connection goes on."""
        request = self._read(stream)
        if request is None:
            return False
        if request.method != "POST":
            return self._act(one, Exchange(request, Forward()))
        with self._changed:
            action = self._script.popleft() if self._script else self._rule
        if callable(action):
            action = action(request)
        exchange = Exchange(request, action)
        with self._changed:
            self.seen.append(exchange)
            self._changed.notify_all()
        try:
            return self._act(one, exchange)
        finally:
            with self._changed:
                exchange.over = True
                self._changed.notify_all()

    def _read(self, stream: BinaryIO) -> Request | None:
        first = stream.readline().split()
        if len(first) != 3:
            return None
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        size = int(headers.get("content-length", "0"))
        body = bytearray()
        while len(body) < size:
            piece = stream.read(min(size - len(body), _PIECE))
            if not piece:
                return None
            body += piece
            if self.bandwidth is not None:
                self._closed.wait(len(piece) / self.bandwidth)
        method, path = first[0].decode(), first[1].decode()
        return Request(time.monotonic(), time.time(), method, path, headers, bytes(body))

    def _act(self, one: socket, exchange: Exchange) -> bool:
        action = exchange.action
        match action:
            case Reset():
                _reset(one)
                return False
            case Hang():
                with suppress(OSError):
                    one.recv(1)  # The client has nothing more to say but that it gives up.
                return False
            case Answer():
                exchange.status = action.status
                answer = _format(action.status, action.headers, action.body)
            case Forward() | Cut():
                if isinstance(action, Forward) and action.delay:
                    self._closed.wait(action.delay)
                found = self._ask_server(exchange.request)
                if found is None:
                    _reset(one)
                    return False
                exchange.status = found.status
                answer = _format(found.status, found.headers, found.body)
        if self.round_trip:
            self._closed.wait(self.round_trip)
        if isinstance(action, Cut):
            one.sendall(answer[: action.after])
            return False
        if isinstance(action, Forward) and action.taken is not None:
            action.taken()
        one.sendall(answer)
        return True

    def _ask_server(self, request: Request) -> Answer | None:
        """Pass a request on; ``None`` when the server does not answer."""
        passed = {
            name: value
            for name, value in request.headers.items()
            if name not in {"host", "connection", "content-length"}
        }
        connection = HTTPConnection("127.0.0.1", self.target, timeout=TIMEOUT)
        try:
            connection.request(request.method, request.path, request.sent or None, passed)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()


def _format(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    kept = {
        name: value
        for name, value in headers.items()
        if name.lower() not in {"connection", "transfer-encoding", "content-length"}
    }
    if status != 204:
        kept["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in kept.items())
    return f"HTTP/1.1 {status} Reason\r\n{head}\r\n".encode("latin-1") + body


def _bound(port: int) -> socket:
    one = socket()
    one.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    return one


def _reset(one: socket) -> None:
    """Have a connection end with a reset once it is closed."""
    with suppress(OSError):
        one.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))


def _state(one: socket) -> int:
    """Return a TCP connection's state."""
    try:
        return one.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0]
    except OSError:
        return 0
