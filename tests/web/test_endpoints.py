"""The addresses of the agent over a connection in memory: statuses, heads and bounds."""

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.config import Health
from belatwist.health.snapshot import Snapshot
from belatwist.web.endpoints import LIMITS, Endpoint, site
from belatwist.web.site import LINGER_SECONDS
from tests.health.snapshots import HEALTH, HEALTHY, healthy_but
from tests.http_wire import Answer, Wire

METRICS = b"# TYPE up gauge\nup 1\n"
JSON = "application/json"

DEGRADED = healthy_but(storage={"wal_blocked": True})
FAILED = healthy_but(storage={"error": "database or disk is full"})


class EndpointCase(SynchronousTestCase):
    """An endpoint over an agent whose condition a test sets."""

    def setUp(self) -> None:
        self.events = self.enterContext(capturedLogs())
        self.clock = Clock()
        self.serve(HEALTH)

    def serve(self, health: Health, metrics: Callable[[], bytes] = lambda: METRICS) -> None:
        """Start anew with another configuration."""
        self.agent: Snapshot = HEALTHY
        self.asked = 0

        def snapshot() -> Snapshot:
            self.asked += 1
            return self.agent

        self.site: Any = site(Endpoint(snapshot, health, metrics), self.clock)
        self.wire = self.connect()

    def connect(self) -> Wire:
        """Open a connection."""
        return Wire(self.site, self.clock)

    def ask(self, path: bytes, method: bytes = b"GET") -> Answer:
        """Send a request without a body and take the one answer."""
        self.wire.send(method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        [answer] = self.wire.answers(method.decode())
        return answer

    def logged(self) -> list[str]:
        """Format what was logged."""
        return [str(formatEvent(event)) for event in self.events]


class AnswerTests(EndpointCase):
    """The answer of each address."""

    def test_statuses(self) -> None:
        """200 for ok and degraded, 503 for an error; readiness is 200 only for ok."""
        for agent, health, ready in (
            (HEALTHY, 200, 200),
            (DEGRADED, 200, 503),
            (FAILED, 503, 503),
        ):
            self.agent = agent
            assert self.ask(b"/health")[0] == health
            assert self.ask(b"/health/ready")[0] == ready
            assert self.ask(b"/health/live")[0] == 200
            assert self.ask(b"/metrics")[0] == 200

    def test_the_document(self) -> None:
        """Each request looks at the agent anew; the body is the whole document."""
        document = json.loads(self.ask(b"/health")[2])
        assert (document["status"], document["device_id"]) == ("ok", "belabox-001")
        self.agent = FAILED
        document = json.loads(self.ask(b"/health")[2])
        assert document["status"] == "error"
        assert document["reasons"] == [
            "storage: samples cannot be stored: database or disk is full"
        ]
        assert self.asked == 2

    def test_ready_says_why_not(self) -> None:
        """The short answer has the reasons as well."""
        self.agent = DEGRADED
        answer = json.loads(self.ask(b"/health/ready")[2])
        assert (answer["ready"], answer["status"]) == (False, "degraded")
        assert len(answer["reasons"]) == 1

    def test_live_asks_nobody(self) -> None:
        """It only proves that the reactor turns."""
        assert json.loads(self.ask(b"/health/live")[2]) == {"live": True}
        assert self.asked == 0

    def test_metrics(self) -> None:
        """The text is passed on as the format that it is."""
        _, headers, body = self.ask(b"/metrics")
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert body == METRICS

    def test_another_path(self) -> None:
        """The configured path is the only one; the metrics stay where scrapers look for them."""
        self.serve(Health(path="/internal/status.json"))
        for path, status in (
            (b"/internal/status.json", 200),
            (b"/internal/status.json/live", 200),
            (b"/internal/status.json/ready", 200),
            (b"/metrics", 200),
            (b"/health", 404),
            (b"/health/live", 404),
            (b"/internal", 404),
        ):
            assert self.ask(path)[0] == status, path

    def test_two_endpoints_are_two(self) -> None:
        """Each has the routes of its own configuration."""
        first = self.wire
        self.serve(Health(path="/other"))
        assert self.ask(b"/health")[0] == 404
        first.send(b"GET /health HTTP/1.1\r\n\r\n")
        assert [status for status, _, _ in first.answers()] == [200]

    def test_head(self) -> None:
        """HEAD answers as GET does, without the body."""
        for path in (b"/health", b"/health/live", b"/health/ready", b"/metrics"):
            got, asked = self.ask(path), self.ask(path, b"HEAD")
            assert asked[0] == got[0]
            assert asked[1] == got[1]
            assert asked[2] == b""
            assert int(asked[1]["content-length"]) == len(got[2])

    def test_unknown_paths(self) -> None:
        """Other paths are 404 as JSON, however they are spelt."""
        paths = (
            b"/",
            b"/x",
            b"/health/",
            b"/health/live/",
            b"/health/../metrics",
            b"/%2e%2e/",
            b"/Health",
            b"*",
            b"http://localhost/health",
        )
        for path in paths:
            status, headers, body = self.ask(path)
            assert (status, headers["content-type"]) == (404, JSON), path
            assert json.loads(body) == {"error": "no such address"}
        status, headers, body = self.ask(b"/%ff")
        assert (status, headers["content-type"]) == (400, JSON)
        assert json.loads(body) == {"error": "the path is not UTF-8"}

    def test_a_query_changes_nothing(self) -> None:
        """A query does not change the answer."""
        assert self.ask(b"/health?verbose=1&x=%ff")[0] == 200

    def test_other_methods(self) -> None:
        """The endpoint is only read: any other method is 405 as JSON, with those that are."""
        for path in (b"/health", b"/health/live", b"/health/ready", b"/metrics"):
            for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"BREW"):
                status, headers, body = self.ask(path, method)
                assert (status, headers["content-type"]) == (405, JSON)
                assert headers["allow"] == "GET, HEAD"
                assert json.loads(body) == {"error": "only GET, HEAD here"}

    def test_heads(self) -> None:
        """No cache keeps an answer, no browser guesses its type, and none names the server."""
        refused = self.connect()
        refused.send(b"POST /health HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
        answers = [
            *(self.ask(path) for path in (b"/health", b"/metrics", b"/x", b"/%ff", b"*")),
            self.ask(b"/health", b"POST"),
            *refused.answers(),
        ]
        assert [status for status, _, _ in answers] == [200, 200, 404, 400, 404, 405, 413]
        for _, headers, body in answers:
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"
            assert int(headers["content-length"]) == len(body)
            assert "server" not in headers

    def test_a_fault_of_ours(self) -> None:
        """It is logged with its traceback; the client gets a bare 500, and life goes on."""

        def fail() -> bytes:
            raise ZeroDivisionError("secret")

        self.serve(HEALTH, fail)
        status, headers, body = self.ask(b"/metrics")
        assert (status, headers["content-type"]) == (500, JSON)
        assert json.loads(body) == {"error": "internal error"}
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        assert self.ask(b"/health")[0] == 200

    def test_nothing_is_logged(self) -> None:
        """Frequent requests do not wear out the flash."""
        for path in (b"/health", b"/metrics", b"/x"):
            self.ask(path)
        self.wire.lose()
        assert self.logged() == []


class BoundTests(EndpointCase):
    """The limits on a client."""

    def test_no_body_is_taken(self) -> None:
        """Not a byte of it, at any declared length; and no client is invited to send it."""
        for length in (b"Content-Length: 1", b"Transfer-Encoding: chunked"):
            wire = self.connect()
            wire.send(b"GET /health HTTP/1.1\r\nExpect: 100-continue\r\n" + length + b"\r\n\r\n")
            [(status, headers, body)] = wire.answers()
            assert (status, headers["connection"]) == (413, "close")
            assert json.loads(body) == {"error": "no body is taken here"}
            assert wire.transport.half_closed
            wire.send(b"5\r\nhello\r\n")
            [request] = wire.requests
            assert request.content is not None
            assert request.content.tell() == 0
            self.clock.advance(LINGER_SECONDS)
            assert wire.transport.disconnected
        assert self.asked == 0

    def test_an_empty_body_is_none(self) -> None:
        """Some clients say that they send nothing."""
        self.wire.send(b"GET /health HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        assert [status for status, _, _ in self.wire.answers()] == [200]

    def test_connections(self) -> None:
        """The seventeenth is closed at once, and there is room again when one ends."""
        wires = [self.wire, *(self.connect() for _ in range(LIMITS.connections - 1))]
        assert len(wires) == 16
        assert self.site.buildProtocol(None) is None
        wires.pop().lose()
        wires.append(self.connect())
        assert self.logged() == [
            "Connection limit reached: 16 are open, further ones are closed at once"
        ]

    def test_silence(self) -> None:
        """A connection is closed after ten silent seconds: new, within a head, or between two."""
        self.wire.lose()
        for sent in (b"", b"GET /hea", b"GET /health HTTP/1.1\r\n\r\n"):
            wire = self.connect()
            if sent:
                self.clock.advance(9)
                wire.send(sent)
            self.clock.advance(9.75)
            assert not wire.transport.disconnecting
            self.clock.advance(0.25)
            assert wire.transport.disconnecting
            wire.lose()
        assert self.logged() == []

    def test_a_trickle(self) -> None:
        """A head that comes byte by byte is cut after fifteen seconds."""
        for _ in range(14):
            self.wire.send(b"G")
            self.clock.advance(1)
        self.wire.send(b"E")
        self.clock.advance(0.9)
        assert not self.wire.transport.disconnected
        self.clock.advance(0.1)
        assert self.wire.transport.disconnected
        assert self.logged() == ["Request took over 15 s, connection closed"]

    def test_answers_that_are_not_taken(self) -> None:
        """A client that closes neither side nor takes what it asked for is cut."""
        self.wire.send(b"GET /health HTTP/1.1\r\n\r\n")
        self.clock.advance(LIMITS.idle)
        assert self.wire.transport.disconnecting
        assert not self.wire.transport.disconnected
        self.clock.advance(LIMITS.request)
        assert self.wire.transport.disconnected

    def test_long_heads(self) -> None:
        """A request line, a header, all headers together and their number are bounded."""
        for head in (
            b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: %s\r\n" % (b"x" * 1000) * 20,
            b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 501,
        ):
            wire = self.connect()
            wire.send(head + b"\r\n")
            received = wire.transport.value()
            assert received.startswith(b"HTTP/1.1 400 ") or received == b""
            assert wire.transport.disconnecting
            wire.lose()
        assert self.asked == 0

    def test_no_timer_stays(self) -> None:
        """Neither without a connection, nor after the last client has disconnected."""
        self.site.doStart()
        self.wire.send(b"GET /health HTTP/1.1\r\n\r\n")
        self.wire.lose()
        self.site.doStop()
        assert [call for call in self.clock.getDelayedCalls() if call.active()] == []
