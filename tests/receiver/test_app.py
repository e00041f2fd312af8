"""Tests of the receiver over a connection in memory: routes, counts, bounds and the log."""

import gzip
import json
from io import BytesIO
from typing import Any

from constantly import NamedConstant
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.receiver.app import MAX_LOGGED_SERIES
from belatwist.receiver.bounds import (
    LIMITS,
    MAX_BODIES_BYTES,
    MAX_BODY_BYTES,
    RETRY_AFTER_SECONDS,
)
from belatwist.receiver.memory import Memory
from belatwist.receiver.parse import MAX_LINES, Line
from belatwist.receiver.unpack import PIECE_BYTES
from belatwist.web.site import LINGER_SECONDS

from .wire import Turns, Wire

NOW = 1_697_040_000_000
GOOD = b'{"metric":{"__name__":"a","core":"0"},"values":[1,2],"timestamps":[%d,%d]}' % (
    NOW,
    NOW + 1,
)
JSON = "application/json"


class ReceiverTests(SynchronousTestCase):
    """Answers, memory and log."""

    def setUp(self) -> None:
        self.events = self.enterContext(capturedLogs())
        self.wire = Wire()

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a request without a body and take the one answer."""
        self.wire.send(request + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        [answer] = self.wire.answers()
        return answer

    def ask_json(self, path: bytes) -> Any:
        """GET what is JSON."""
        status, headers, body = self.ask(b"GET " + path)
        assert (status, headers["content-type"]) == (200, JSON)
        return json.loads(body)

    def health(self) -> dict[str, Any]:
        """GET the counts."""
        health: dict[str, Any] = self.ask_json(b"/health")
        return health

    def logged(self) -> list[str]:
        """Format what the receiver logged."""
        return [
            str(formatEvent(event))
            for event in self.events
            if event["log_namespace"].startswith("belatwist")
        ]

    def test_import(self) -> None:
        """Good lines are kept and answered with 204 and nothing else, as VictoriaMetrics does."""
        self.wire.post(b"/api/v1/import", GOOD + b"\n" + GOOD)
        [(status, headers, body)] = self.wire.answers()
        assert (status, body) == (204, b"")
        assert "content-type" not in headers
        assert "transfer-encoding" not in headers
        assert self.ask_json(b"/api/v1/series") == [
            {
                "metric": {"__name__": "a", "core": "0"},
                "samples": 4,
                "first_timestamp_ms": NOW,
                "last_timestamp_ms": NOW + 1,
                "last_value": 2.0,
                "duplicates": 2,
            }
        ]

    def test_series_by_name(self) -> None:
        """A request may select a name; an unknown name gives an empty list."""
        self.wire.post(b"/api/v1/import", GOOD + b"\n" + GOOD.replace(b'"a"', b'"b"'))
        self.wire.answers()
        for query, count in ((b"", 2), (b"?name=b", 1), (b"?name=c", 0), (b"?name=%FF", 0)):
            assert len(self.ask_json(b"/api/v1/series" + query)) == count

    def test_too_many_lines(self) -> None:
        """A body of more lines than are taken is 413, with the line, although they are blank."""
        self.wire.post(b"/api/v1/import", b"\n" * (MAX_LINES + 1))
        [(status, headers, body)] = self.wire.answers()
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body) == {"error": "more than 100000 lines", "line": MAX_LINES + 1}

    def test_nothing_of_a_bad_request_is_kept(self) -> None:
        """A bad line refuses the whole body, also the good lines steps before it."""
        lines = [GOOD] * 2000
        self.wire.post(b"/api/v1/import", b"\n".join([*lines, b"{}", *lines]))
        [(status, headers, body)] = self.wire.answers()
        assert (status, headers["content-type"]) == (400, JSON)
        assert json.loads(body) == {"error": "Object missing required field `metric`", "line": 2001}
        assert self.ask_json(b"/api/v1/series") == []
        health = self.health()
        assert (health["samples"], health["series"]) == (0, 0)
        assert (health["requests"], health["rejected_requests"]) == (1, 1)

    def test_a_form_is_no_form(self) -> None:
        """Curl calls every body a form; it is read as lines all the same."""
        form = b"Content-Type: application/x-www-form-urlencoded"
        self.wire.post(b"/api/v1/import", GOOD.replace(b'"0"', b'"b=c&d=e"'), form)
        assert [request.args for request in self.wire.requests] == [{}]
        assert [status for status, _, _ in self.wire.answers()] == [204]

    def test_older_format(self) -> None:
        """The answer has the count, and what the Go client looks for."""
        metric = {"name": "cpu.temperature", "value": 52.3, "timestamp": "2023-10-11T16:53:20.5Z"}
        batch = {"device_id": "d", "timestamp": "2023-10-11T16:53:21Z", "metrics": [metric] * 2}
        self.wire.post(b"/api/metrics", json.dumps(batch).encode())
        [(status, headers, body)] = self.wire.answers()
        assert (status, headers["content-type"]) == (200, JSON)
        assert json.loads(body) == {"accepted": 2, "received": 2, "success": True}
        [series] = self.ask_json(b"/api/v1/series")
        assert series["metric"] == {"__name__": "cpu.temperature", "device_id": "d"}
        assert (series["samples"], series["duplicates"]) == (2, 1)

    def test_older_format_bad(self) -> None:
        """A bad document is refused with a reason, and no line."""
        self.wire.post(b"/api/metrics", b"[1]")
        [(status, _, body)] = self.wire.answers()
        assert status == 400
        assert list(json.loads(body)) == ["error"]

    def test_unknown_encoding(self) -> None:
        """415 says which encoding is known (RFC 9110 section 15.5.16)."""
        self.wire.post(b"/api/v1/import", GOOD, b"Content-Encoding: zstd")
        [(status, headers, body)] = self.wire.answers()
        assert (status, headers["accept-encoding"]) == (415, "gzip")
        assert json.loads(body) == {"error": "Content-Encoding 'zstd' is not known here"}

    def test_two_encodings_are_not_the_first(self) -> None:
        """Encodings applied one after the other are unknown, not half undone."""
        self.wire.post(
            b"/api/v1/import",
            gzip.compress(gzip.compress(GOOD)),
            b"Content-Encoding: gzip",
            b"Content-Encoding: gzip",
        )
        assert [status for status, _, _ in self.wire.answers()] == [415]

    def test_health(self) -> None:
        """The counts are those since the start; time is the given clock's."""
        fresh = {"requests": 0, "samples": 0, "series": 0, "dropped_series": 0}
        assert self.health() == {
            "status": "ok",
            "uptime_seconds": 0.0,
            "rejected_requests": 0,
            **fresh,
        }
        self.wire.clock.advance(12.5)
        self.wire.post(b"/api/v1/import", GOOD)
        self.wire.post(b"/api/v1/import", b"x")
        self.wire.answers()
        assert self.health() == {
            "status": "ok",
            "requests": 2,
            "samples": 2,
            "series": 1,
            "dropped_series": 0,
            "rejected_requests": 1,
            "uptime_seconds": 12.5,
        }

    def test_dropped_series_are_counted(self) -> None:
        """The counts have the dropped series."""
        self.wire.receiver.memory = Memory(max_series=1)
        self.wire.post(b"/api/v1/import", GOOD + b"\n" + GOOD.replace(b'"a"', b'"b"'))
        self.wire.answers()
        health = self.health()
        assert (health["series"], health["dropped_series"]) == (1, 1)

    def test_page(self) -> None:
        """The first page names every address, as plain text; HEAD gives its headers only."""
        status, headers, body = self.ask(b"GET /")
        assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
        for path in (b"/api/v1/import", b"/api/metrics", b"/api/v1/series", b"/health"):
            assert path in body
        self.wire.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert self.wire.transport.value().endswith(b"\r\n\r\n")

    def test_unknown_paths(self) -> None:
        """Other paths are 404, as JSON, however they are spelt."""
        for path in (b"/x", b"/health/", b"/api/v1/import/..", b"/%2e%2e/", b"/<b>"):
            status, headers, body = self.ask(b"GET " + path)
            assert (status, headers["content-type"]) == (404, JSON), path
            assert json.loads(body) == {"error": "no such address"}

    def test_other_methods(self) -> None:
        """Other methods are 405, as JSON, with the methods that are allowed."""
        for path, methods, allowed in (
            (b"/api/v1/import", (b"GET", b"PUT", b"OPTIONS", b"BREW"), "POST"),
            (b"/api/metrics", (b"GET", b"DELETE"), "POST"),
            (b"/health", (b"POST", b"PATCH"), "GET, HEAD"),
            (b"/api/v1/series", (b"POST",), "GET, HEAD"),
            (b"/", (b"POST",), "GET, HEAD"),
        ):
            for method in methods:
                status, headers, body = self.ask(method + b" " + path)
                assert (status, headers["content-type"]) == (405, JSON)
                assert headers["allow"] == allowed
                assert json.loads(body) == {"error": f"only {allowed} here"}

    def test_strange_hosts_and_paths(self) -> None:
        """A Host or a path that is no text is the client's fault, and no traceback of ours."""
        hosts = (b"\xff", b"a..b", b"a b", b"[::1", b"x" * 300, b"")
        for host in hosts:
            self.wire.send(b"GET /health HTTP/1.1\r\nHost: %s\r\n\r\n" % host)
        assert [status for status, _, _ in self.wire.answers()] == [200] * len(hosts)
        status, headers, body = self.ask(b"GET /%ff")
        assert (status, headers["content-type"]) == (400, JSON)
        assert json.loads(body) == {"error": "the path is not UTF-8"}

    def test_an_unexpected_error_is_json(self) -> None:
        """A fault of ours is logged with its traceback; the client gets a bare 500 as JSON."""

        def add(line: Line, request: int) -> bool:
            raise ZeroDivisionError

        self.patch(self.wire.receiver.memory, "add", add)
        self.wire.post(b"/api/v1/import", GOOD)
        [(status, headers, body)] = self.wire.answers()
        assert (status, headers["content-type"]) == (500, JSON)
        assert json.loads(body) == {"error": "internal error"}
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    def test_an_error_outside_the_routes_is_json(self) -> None:
        """Also where Twisted would answer with a page of its own."""

        def fail(request: object) -> None:
            raise ZeroDivisionError

        self.patch(self.wire.channel.site, "getResourceFor", fail)
        status, headers, body = self.ask(b"GET /")
        assert (status, headers["content-type"]) == (500, JSON)
        assert json.loads(body) == {"error": "internal error"}
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    def test_one_line_is_logged_per_request(self) -> None:
        """It says how much came from whom; there is no access log beside it."""
        compressed = gzip.compress(b"\n".join([GOOD, GOOD, GOOD.replace(b'"a"', b'"b"')]))
        self.wire.post(
            b"/api/v1/import", compressed, b"Content-Encoding: gzip", b"X-Device-ID: belabox-001"
        )
        self.wire.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert self.logged() == [
            "Received 6 samples of 2 series from 'belabox-001'"
            f" in {len(compressed)} bytes ({3 * len(GOOD) + 2} unpacked)"
        ]
        assert [str(formatEvent(e)) for e in self.events] == self.logged()

    def test_series_are_counted_per_request(self) -> None:
        """A series that is known already counts in the next request again."""
        for _ in range(2):
            self.wire.post(b"/api/v1/import", GOOD)
        assert [text[:31] for text in self.logged()] == ["Received 2 samples of 1 series "] * 2

    def test_verbose_logs_every_series_once(self) -> None:
        """With verbose, each series of a request is described too, however many lines it has."""
        self.wire = Wire(verbose=True)
        last = GOOD.replace(b"[1,2]", b"[3,4.5]").replace(b"%d]" % (NOW + 1), b"%d]" % (NOW + 2))
        self.wire.post(b"/api/v1/import", b"\n".join([GOOD, GOOD.replace(b'"a"', b'"b"'), last]))
        self.wire.post(b"/api/v1/import", GOOD)
        texts = self.logged()
        assert texts[:2] == [
            f"Series '__name__=a, core=0': 4 samples, the last 4.5 at {NOW + 2}",
            f"Series '__name__=b, core=0': 2 samples, the last 2.0 at {NOW + 1}",
        ]
        assert texts[3] == f"Series '__name__=a, core=0': 2 samples, the last 2.0 at {NOW + 1}"
        assert [text[:8] for text in texts[2::2]] == ["Received"] * 2

    def test_verbose_is_bounded(self) -> None:
        """Of many series the first are described, the others counted."""
        for series, more in (
            (MAX_LOGGED_SERIES, []),
            (MAX_LOGGED_SERIES + 2, ["2 more series are not shown"]),
        ):
            before = len(self.logged())
            self.wire = Wire(verbose=True)
            lines = [GOOD.replace(b'"0"', b'"%d"' % n) for n in range(series)]
            self.wire.post(b"/api/v1/import", b"\n".join(lines + lines))
            *described, last = self.logged()[before:]
            assert described[0].startswith("Series '__name__=a, core=0': 4 samples")
            assert described[MAX_LOGGED_SERIES:] == more
            assert last.startswith(f"Received {4 * series} samples of {series} series ")

    def test_nothing_from_outside_can_forge_a_log_line(self) -> None:
        """Texts from clients are quoted and bounded, and never taken for a format."""
        self.wire = Wire(verbose=True)
        device = b"X-Device-ID: {samples}\x1b[31m\xff" + b"x" * 5000
        value = json.dumps("\n[forged] \x1b[31m{samples}\u202e" + "y" * 3000).encode()
        body = GOOD.replace(b'"0"', value)
        self.wire.post(b"/api/v1/import", body, device)
        self.wire.post(b"/api/v1/import", GOOD[:-1] + b',"\\u001b[31m\\n":1}', device)
        texts = self.logged()
        assert len(texts) == 3
        for text in texts:
            assert text.isprintable(), text
            assert len(text) < 700
        assert r"from '{samples}\u001b[31m" in texts[1]
        assert self.events[-1]["log_level"] == LogLevel.warn
        assert "Refused samples from" in texts[2]


class BoundTests(SynchronousTestCase):
    """Requests that are refused before they have arrived."""

    def setUp(self) -> None:
        self.wire = Wire()

    def head(self, *headers: bytes) -> bytes:
        """Write the head of an upload."""
        return b"\r\n".join([b"POST /api/v1/import HTTP/1.1", b"Host: x", *headers, b"", b""])

    def assert_refused(self) -> None:
        """Assert one 413 as JSON, and that nothing follows it."""
        [(status, headers, body)] = self.wire.answers()
        assert (status, headers["content-type"]) == (413, JSON)
        assert headers["connection"] == "close"
        assert "longer than 8388608 bytes" in json.loads(body)["error"]
        assert self.wire.transport.half_closed

    def counts(self) -> tuple[int, int]:
        """Ask, over a connection of its own, for the requests and how many were refused."""
        other = Wire(beside=self.wire)
        other.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        [(_, _, body)] = other.answers()
        health = json.loads(body)
        return health["requests"], health["rejected_requests"]

    def test_a_declared_length_is_refused_before_the_body(self) -> None:
        """The head alone is answered, and counted."""
        self.wire.send(self.head(b"Content-Length: %d" % (MAX_BODY_BYTES + 1)))
        self.assert_refused()
        assert self.counts() == (1, 1)

    def test_no_body_is_invited_that_is_refused(self) -> None:
        """A client that asks first, with Expect, gets 413 and no 100."""
        length = b"Content-Length: %d" % (MAX_BODY_BYTES + 1)
        self.wire.send(self.head(length, b"Expect: 100-continue"))
        self.assert_refused()

    def test_a_body_that_is_not_too_long_is_invited(self) -> None:
        """The same client gets 100 for a body within the bound."""
        self.wire.send(self.head(b"Content-Length: %d" % len(GOOD), b"Expect: 100-continue"))
        assert self.wire.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"

    def test_a_chunked_body_is_cut_at_the_bound(self) -> None:
        """A body of unknown length is refused with the byte that is too much, and thrown away."""
        self.wire.channel.dataReceived(self.head(b"Transfer-Encoding: chunked"))
        blanks = b" " * (1024 * 1024)
        for _ in range(MAX_BODY_BYTES // len(blanks)):
            self.wire.channel.dataReceived(b"100000\r\n" + blanks + b"\r\n")
        assert self.wire.transport.value() == b""
        self.wire.channel.dataReceived(b"1\r\n \r\n")
        self.assert_refused()
        self.wire.channel.dataReceived(b"100000\r\n" + blanks + b"\r\n")
        [content] = [request.content for request in self.wire.requests]
        assert isinstance(content, BytesIO)
        assert content.closed
        assert self.counts() == (1, 1)

    def test_a_refused_upload_is_read_to_its_end_and_closed(self) -> None:
        """A client that sends all of its body is let go then; what follows is not answered."""
        self.wire.send(self.head(b"Content-Length: %d" % (MAX_BODY_BYTES + 1)))
        self.assert_refused()
        self.wire.channel.dataReceived(b" " * (MAX_BODY_BYTES + 1) + b"GET / HTTP/1.1\r\n\r\n")
        assert self.wire.transport.disconnecting
        assert self.wire.answers() == []

    def test_a_refused_upload_is_cut_after_a_while(self) -> None:
        """A client that neither ends nor goes away is cut off."""
        self.wire.send(self.head(b"Content-Length: %d" % (2 * MAX_BODY_BYTES)))
        self.wire.clock.advance(LINGER_SECONDS - 0.1)
        self.wire.channel.dataReceived(b" ")
        assert not self.wire.transport.disconnected
        self.wire.clock.advance(0.1)
        assert self.wire.transport.disconnected

    def test_idle_connections_are_closed(self) -> None:
        """A connection on which nothing comes for a minute is closed."""
        assert self.wire.channel.site.timeOut == 60
        self.wire.send(self.head(b"Content-Length: 10"))
        self.wire.clock.advance(59)
        assert not self.wire.transport.disconnecting
        self.wire.clock.advance(1)
        assert self.wire.transport.disconnecting

    def test_bodies_stay_in_memory(self) -> None:
        """No body is written to a temporary file: flash wears out, and the bound allows it."""
        self.wire.channel.dataReceived(self.head(b"Content-Length: 200000"))
        [request] = self.wire.requests
        assert isinstance(request.content, BytesIO)

    def test_pipelined_requests_survive_a_bad_one(self) -> None:
        """Requests that follow a 400 on the same connection are answered, in order."""
        bad = self.head(b"Content-Length: 1") + b"x"
        good = self.head(b"Content-Length: %d" % len(GOOD)) + GOOD
        self.wire.send(bad + good + bad + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [status for status, _, _ in self.wire.answers()] == [400, 204, 400, 200]
        assert not self.wire.transport.disconnecting

    def test_a_client_that_leaves_early_changes_nothing(self) -> None:
        """An upload that has arrived is kept, although the client has disconnected."""
        self.wire.channel.dataReceived(self.head(b"Content-Length: %d" % len(GOOD)) + GOOD)
        self.wire.lose()
        self.wire.clock.advance(0)
        assert len(self.wire.receiver.memory) == 1
        assert self.flushLoggedErrors() == []

    def test_other_work_goes_on_between_the_steps(self) -> None:
        """A large body is read over many turns of the reactor, and requests beside it answered."""
        self.wire = Wire(clock=Turns())
        body = b"\n".join([GOOD] * 20_000)
        self.wire.channel.dataReceived(self.head(b"Content-Length: %d" % len(body)) + body)
        steps = 2 * (len(body) // PIECE_BYTES)
        for _ in range(steps):
            self.wire.clock.advance(Turns.TURN)
        assert self.counts() == (1, 0)
        assert self.wire.answers() == []
        for _ in range(10):
            self.wire.clock.advance(Turns.TURN)
        assert [status for status, _, _ in self.wire.answers()] == [204]


class SharedBoundTests(SynchronousTestCase):
    """The limits on all clients together."""

    HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

    def setUp(self) -> None:
        self.events = self.enterContext(capturedLogs())
        self.wire = Wire()

    def logged(self, level: NamedConstant = LogLevel.debug) -> list[str]:
        """Format what the receiver logged, at a level or above it."""
        return [
            str(formatEvent(event))
            for event in self.events
            if event["log_namespace"].startswith("belatwist") and event["log_level"] >= level
        ]

    def start(self, path: bytes = b"/api/v1/import", wire: Wire | None = None) -> Wire:
        """Send all of the longest body but its last byte."""
        wire = Wire(beside=self.wire) if wire is None else wire
        wire.channel.dataReceived(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, MAX_BODY_BYTES)
            + b" " * 1023
            + (b"\n" + b" " * 1023) * (MAX_BODY_BYTES // 1024 - 1)
        )
        return wire

    def fill(self, path: bytes = b"/api/v1/import") -> list[Wire]:
        """Start as many bodies as there is room for."""
        return [self.start(path) for _ in range(MAX_BODIES_BYTES // MAX_BODY_BYTES)]

    def statuses(self, wires: list[Wire]) -> list[int]:
        """Take what was answered on several connections."""
        return [status for wire in wires for status, _, _ in wire.answers()]

    def test_bodies_share_a_budget(self) -> None:
        """A body that does not fit beside the others is 503; those that fitted are taken."""
        wires = self.fill()
        assert self.statuses(wires) == []
        extra = self.start()
        [(status, headers, body)] = extra.answers()
        assert (status, headers["content-type"]) == (503, JSON)
        assert headers["retry-after"] == str(RETRY_AFTER_SECONDS)
        assert headers["connection"] == "close"
        assert json.loads(body) == {"error": "too many bodies at the same time"}
        assert extra.transport.half_closed
        assert self.logged() == [
            "Refused samples from a request that was not read: too many bodies at the same time"
        ]
        for wire in wires:
            wire.send(b" ")
        assert self.statuses(wires) == [204] * len(wires)

    def test_every_way_a_body_ends_gives_its_room_back(self) -> None:
        """Taken, refused, not read at all, or left unfinished: there is room again for others."""
        for path, last, answered in (
            (b"/api/v1/import", b" ", 204),
            (b"/api/v1/import", b"x", 400),
            (b"/api/metrics", b" ", 413),
            (b"/nowhere", b" ", 404),
        ):
            wires = self.fill(path)
            for wire in wires:
                wire.send(last)
            assert self.statuses(wires) == [answered] * len(wires)
        for wire in self.fill():
            wire.lose()
        wires = self.fill()
        self.start()
        wires.pop().lose()
        assert self.statuses([self.start()]) == []

    def test_a_body_counts_until_it_is_read(self) -> None:
        """Also when its client goes away before that."""
        self.wire = Wire(clock=Turns())
        for wire in self.fill():
            wire.channel.dataReceived(b" ")
            wire.lose()
        assert self.statuses([self.start()]) == [503]
        self.wire.clock.pump([Turns.TURN] * 5000)
        assert self.statuses([self.start()]) == []
        assert self.flushLoggedErrors() == []

    def test_a_trickle_does_not_keep_a_request_alive(self) -> None:
        """A body or a head of which a byte comes now and then is cut when its time is over."""
        self.wire.lose()
        for head in (b"POST /api/v1/import HTTP/1.1\r\nContent-Length: 99\r\n\r\n", b"G"):
            wire = Wire(beside=self.wire)
            self.wire.clock.advance(LIMITS.idle - 1)
            wire.send(head)
            for _ in range(int(LIMITS.request) // 10 - 1):
                self.wire.clock.advance(10)
                wire.send(b"x")
            self.wire.clock.advance(9)
            assert not wire.transport.disconnected
            self.wire.clock.advance(1)
            assert wire.transport.disconnected
            wire.lose()
        assert self.logged() == ["Request took over 120 s, connection closed"] * 2

    def test_each_request_has_time_of_its_own(self) -> None:
        """A connection that is used now and then lives for as long as it is."""
        for _ in range(10):
            self.wire.clock.advance(LIMITS.idle - 1)
            self.wire.send(self.HEALTH)
        assert self.statuses([self.wire]) == [200] * 10
        assert not self.wire.transport.disconnecting
        self.wire.lose()
        assert [call for call in self.wire.clock.getDelayedCalls() if call.active()] == []

    def test_a_last_answer_that_is_not_taken_is_cut(self) -> None:
        """The time goes on after an answer that ends the connection, until that has ended."""
        self.wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert self.statuses([self.wire]) == [200]
        self.wire.clock.advance(LIMITS.request)
        assert self.wire.transport.disconnected

    def test_no_more_is_answered_than_the_client_takes(self) -> None:
        """Requests that were read already wait while the answers before them are not taken."""
        self.wire.channel.pauseProducing()
        self.wire.send(self.HEALTH * 3)
        assert self.statuses([self.wire]) == []
        self.wire.channel.resumeProducing()
        assert self.statuses([self.wire]) == [200] * 3

    def test_connections_are_bounded(self) -> None:
        """Beyond the limit each new one is closed at once; the log has its begin and its end."""
        site = self.wire.site
        wires = [Wire(beside=self.wire) for _ in range(LIMITS.connections - 1)]
        assert self.logged() == []
        for _ in range(3):
            assert [site.buildProtocol(None) for _ in range(3)] == [None] * 3
            wires.pop().lose()
            wires.append(Wire(beside=self.wire))
        full = "Connection limit reached: 64 are open, further ones are closed at once"
        assert self.logged(LogLevel.info) == [full]
        wires[0].send(self.HEALTH)
        assert self.statuses(wires) == [200]
        for wire in wires:
            wire.lose()
        cleared = "Connection limit cleared: 32 are open, after 0 s and 9 failures"
        assert self.logged(LogLevel.info) == [full, cleared]
        assert site.connections == 1
