"""The page and its data over a connection in memory: what is answered, and what it may cost."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from belatwist.health.snapshot import Snapshot
from belatwist.model import Sample, Series, sample
from belatwist.store.sql import ranges
from belatwist.web import gzip as web_gzip
from belatwist.web.endpoints import Endpoint, site
from belatwist.web.page import index
from belatwist.web.page.query import MAX_SERIES
from belatwist.web.page.resource import HEADERS, MAX_QUERIES, Page, is_counter
from tests.health.snapshots import HEALTH, HEALTHY, NOW_MS, healthy_but
from tests.http_wire import Answer, Wire
from tests.store.databases import LOAD, STATE, fresh, insert

FAILED = healthy_but(storage={"error": "database or disk is full"})
SENT = Series.of("network.tx_bytes_total", "box", {"interface": "usb0"})
OTHER = Series.of("network.tx_bytes_total", "box", {"interface": "usb1"})
RENAMED = Series.of("system.load_1m", "an-earlier-name")
RANGE = "/api/v1/query_range?start=1000&end=1020&step=10"

STATIC = Path(index.__file__).with_name("static")


class Held:
    """A database whose thread does what it is asked when a test says so, or at once.

    :ivar calls: what waits to be done.
    :ivar done: how much was done.
    """

    def __init__(self) -> None:
        self.opening: str | None = None
        self.connection = fresh()
        self.holding = False
        self.calls: list[Callable[[], None]] = []
        self.done = 0

    def transact(self, function: Callable[..., Any], *args: object) -> "Deferred[Any]":
        """Do it, now or later."""
        result: Deferred[Any] = Deferred()

        def work() -> None:
            self.done += 1
            maybeDeferred(function, self.connection.cursor(), *args).chainDeferred(result)

        if self.holding:
            self.calls.append(work)
        else:
            work()
        return result

    def turn(self) -> None:
        """Do the next thing."""
        self.calls.pop(0)()


class PageCase(SynchronousTestCase):
    """A page over an agent and a database whose condition a test sets."""

    def setUp(self) -> None:
        self.events = self.enterContext(capturedLogs())
        self.clock = Clock()
        self.agent: Snapshot = HEALTHY
        self.samples: list[Sample] = []
        self.database = Held()
        self.addCleanup(self.database.connection.close)
        page = Page(self.clock, self.database, lambda: self.samples)
        endpoint = Endpoint(lambda: self.agent, HEALTH, lambda: b"", page)
        self.site: Any = site(endpoint, self.clock)
        self.wire = self.connect()

    def connect(self) -> Wire:
        """Open a connection."""
        return Wire(self.site, self.clock)

    def begin(self, path: str, *headers: str, method: str = "GET") -> Wire:
        """Send a request on a connection of its own."""
        wire = self.connect()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
        wire.send("\r\n".join(lines).encode())
        return wire

    def run_turns(self) -> None:
        """Let everything go on that waits for its turn."""
        self.clock.pump([0] * 200)

    def ask(self, path: str, *headers: str, method: str = "GET") -> Answer:
        """Send a request and take its answer."""
        wire = self.begin(path, *headers, method=method)
        self.run_turns()
        [answer] = wire.answers(method)
        wire.lose()
        return answer

    def get(self, path: str, status: int = 200) -> Any:
        """Ask for JSON."""
        found, headers, body = self.ask(path)
        assert (found, headers["content-type"]) == (status, "application/json"), body
        return json.loads(body)

    def store(self, *samples: Sample) -> None:
        """Have samples in the database."""
        insert(self.database.connection, samples)


class IndexTests(PageCase):
    """The page itself."""

    def test_it_says_how_it_is_by_itself(self) -> None:
        """The first bytes have the verdict and its reasons, as text, without a script."""
        status, headers, body = self.ask("/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b'<h2 id="word">All is well</h2>' in body
        self.agent = FAILED
        _, _, body = self.ask("/")
        assert b'<section id="verdict" class="error"' in body
        assert b"<li>storage: samples cannot be stored: database or disk is full</li>" in body

    def test_it_brings_what_its_script_needs(self) -> None:
        """The data is that of ``/api/v1/now``: no second request is needed to show it."""
        self.samples = [sample(SENT, NOW_MS, 5.0)]
        _, _, body = self.ask("/")
        found = re.search(rb'<script type="application/json" id="first">(.*?)</script>', body)
        assert found is not None
        data = json.loads(found[1])
        assert data["now"] == self.get("/api/v1/now")
        assert data["words"].keys() == {"ok", "degraded", "error"}

    def test_names_from_outside_are_texts(self) -> None:
        """No name of a device or an interface opens or closes an element."""
        evil = "</script><img src=x onerror=alert(1)>\"'&"
        self.agent = healthy_but(device_id=evil, storage={"error": evil})
        self.samples = [sample(Series.of("cpu.temperature", evil, {"zone": evil}), 1, 1.0)]
        _, _, body = self.ask("/")
        assert b"<img" not in body
        assert body.count(b"<script") == body.count(b"</script>") == 2

    def test_heads(self) -> None:
        """A browser may only show the page, from here; no other site may frame or read it."""
        for path in ("/", "/page/page.js", "/page/uplot-1.6.32.min.css"):
            _, headers, _ = self.ask(path, "Origin: http://evil.example")
            for name, value in HEADERS.items():
                assert headers[name.decode().lower()] == value.decode()
            assert headers["x-content-type-options"] == "nosniff"
            assert not [name for name in headers if name.startswith("access-control")]
        policy = HEADERS[b"Content-Security-Policy"].decode()
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none';")

    def test_nothing_in_it_is_inline_or_from_elsewhere(self) -> None:
        """The policy blocks nothing of the page, and every file that the page names is served."""
        page = (STATIC / "index.html").read_text()
        assert not re.search(r"\s(style|on\w+)=|<style|//|<base", page)
        assert re.findall(r"<script(.*?)>", page) == [
            ' type="application/json" id="first"',
            ' type="module" src="page/page.js"',
        ]
        for target in re.findall(r'(?:src|href)="([\w./-]+)"', page):
            if target != "metrics":
                assert self.ask(f"/{target}")[0] == 200
        for name in ("page.css", "page.js", "charts.js"):
            assert not re.search(r"https?:|url\(|@import|innerHTML", (STATIC / name).read_text())

    def test_another_health_path(self) -> None:
        """The page leads to the configured one."""
        assert b'<a href="health">' in self.ask("/")[2]


class FileTests(PageCase):
    """The static files."""

    def test_files(self) -> None:
        """Each is given as it lies there, with its type."""
        for path in sorted(STATIC.iterdir()):
            if path.name == "index.html":
                continue
            status, headers, body = self.ask(f"/page/{path.name}")
            assert (status, body) == (200, path.read_bytes())
            kinds = {".js": "text/javascript", ".css": "text/css"}
            assert headers["content-type"] == kinds.get(path.suffix, "text/plain; charset=utf-8")

    def test_a_file_that_is_known_is_not_sent_again(self) -> None:
        """It is asked for by its tag, or not at all if its name has a version."""
        _, headers, _ = self.ask("/page/page.js")
        assert headers["cache-control"] == "no-cache"
        status, again, body = self.ask("/page/page.js", f"If-None-Match: {headers['etag']}")
        assert (status, body, again["etag"]) == (304, b"", headers["etag"])
        assert self.ask("/page/page.js", 'If-None-Match: W/"0"')[0] == 200
        _, headers, _ = self.ask("/page/uplot-1.6.32.min.js")
        assert headers["cache-control"] == "max-age=31536000, immutable"

    def test_compression(self) -> None:
        """A client that accepts gzip gets it; the first view then takes some eight kilobytes."""
        total = 0
        for path in ("/", "/page/page.css", "/page/page.js"):
            _, plain, body = self.ask(path)
            _, headers, small = self.ask(path, "Accept-Encoding: br, gzip;q=0.8")
            assert "content-encoding" not in plain
            assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept-Encoding")
            assert gzip.decompress(small) == body
            total += len(small)
        assert total < 9000
        for refused in ("gzip;q=0", "gzip; q=0.000", "br", "x-gzip-not", ""):
            assert "content-encoding" not in self.ask("/", f"Accept-Encoding: {refused}")[1]

    def test_no_other_file(self) -> None:
        """Only those that are listed: no template, no path that leads elsewhere."""
        for name in (
            "index.html",
            "",
            "../resource.py",
            "..%2fresource.py",
            "%2e%2e/index.py",
            "x",
        ):
            assert self.ask(f"/page/{name}")[0] == 404

    def test_the_library_has_its_licence(self) -> None:
        """The vendored file says which version it is, and its licence lies beside it."""
        assert "(v1.6.32)" in (STATIC / "uplot-1.6.32.min.js").read_text()
        assert (STATIC / "uplot-LICENSE.txt").read_text().startswith("The MIT License")


class NowTests(PageCase):
    """The current figures."""

    def test_health_and_samples(self) -> None:
        """The same document as elsewhere, always with 200, and the numbers from memory."""
        self.agent = FAILED
        self.samples = [sample(SENT, NOW_MS, 5.0), Sample(STATE, NOW_MS, "connected")]
        found = self.get("/api/v1/now")
        assert found["health"] == self.get("/health", 503)
        assert found["samples"] == [
            {
                "name": "network.tx_bytes_total",
                "tags": {"interface": "usb0"},
                "time": NOW_MS / 1000,
                "value": 5.0,
            }
        ]
        assert self.database.done == 0


class DataTests(PageCase):
    """The stored series."""

    def test_series(self) -> None:
        """Each name with its tags once, also when the device was renamed."""
        self.store(*(sample(one, 1, 1) for one in (LOAD, RENAMED, SENT)))
        found = self.get("/api/v1/series")["series"]
        assert found == [
            {"name": "system.load_1m", "tags": {}, "kind": "gauge", "unit": "tasks"},
            {
                "name": "network.tx_bytes_total",
                "tags": {"interface": "usb0"},
                "kind": "counter",
                "unit": "bytes",
            },
        ]
        assert self.get("/api/v1/series?name=system.load_1m&name=x")["series"] == found[:1]
        assert "parameter" in self.get("/api/v1/series?match=x", 400)["error"]

    def test_a_query(self) -> None:
        """Several series in one answer: gauges as they are, counters as rates per second."""
        self.store(
            sample(LOAD, 1_000_000, 1),
            sample(LOAD, 1_005_000, 2),
            sample(RENAMED, 1_006_000, 6),
            sample(SENT, 1_000_000, 0),
            sample(SENT, 1_010_000, 1000),
            sample(OTHER, 1_000_000, 7),
        )
        selector = "network.tx_bytes_total%7Binterface%3D%22usb0%22%7D"
        found = self.get(f"{RANGE}&series={selector}&series=system.load_1m&series=no.such")
        assert found == {
            "start": 1000,
            "end": 1020,
            "step": 10,
            "series": [
                {
                    "name": "network.tx_bytes_total",
                    "tags": {"interface": "usb0"},
                    "kind": "counter",
                    "unit": "bytes",
                    "times": [1010],
                    "min": [100],
                    "avg": [100],
                    "max": [100],
                },
                {
                    "name": "system.load_1m",
                    "tags": {},
                    "kind": "gauge",
                    "unit": "tasks",
                    "times": [1000],
                    "min": [1],
                    "avg": [3],
                    "max": [6],
                },
            ],
        }
        [one] = self.get(f"{RANGE}&series=system.load_1m&values=max")["series"]
        assert one.keys() == {"name", "tags", "kind", "unit", "times", "max"}

    def test_no_such_series(self) -> None:
        """Nothing is found, and nothing of the samples is read."""
        assert self.get(f"{RANGE}&series=no.such")["series"] == []
        assert self.database.done == 1

    def test_what_cannot_be_asked(self) -> None:
        """It is 400 as JSON, and the database is not asked."""
        for path in ("/api/v1/query_range", f"{RANGE}&series=a&x=y", f"{RANGE}&series=%ff"):
            assert self.get(path, 400).keys() == {"error"}
        assert self.database.done == 0

    def test_too_many_series(self) -> None:
        """A name may stand for more series than an answer may have."""
        self.store(
            *(
                sample(Series.of("a", "box", {"n": str(n)}), 1_000_000, n)
                for n in range(MAX_SERIES + 1)
            )
        )
        assert "more than 64" in self.get(f"{RANGE}&series=a", 400)["error"]
        assert len(self.get(f"{RANGE}&series=a%7Bn%3D%221%22%7D")["series"]) == 1

    def test_only_to_be_read(self) -> None:
        """GET and HEAD; another method is 405."""
        self.store(sample(LOAD, 1_000_000, 1))
        for path in ("/", "/api/v1/now", "/api/v1/series", f"{RANGE}&series=system.load_1m"):
            got, asked = self.ask(path), self.ask(path, method="HEAD")
            assert (got[0], asked[0], asked[2]) == (200, 200, b"")
            assert asked[1]["content-length"] == got[1]["content-length"] == str(len(got[2]))
            assert asked[1]["content-type"] == got[1]["content-type"]
            for method in ("POST", "PUT", "DELETE", "OPTIONS"):
                assert self.ask(path, method=method)[0] == 405

    def test_while_the_database_is_opened(self) -> None:
        """A migration takes its time: the page says so, and waits for nothing."""
        self.database.opening = "is being migrated"
        for path in ("/api/v1/series", f"{RANGE}&series=a"):
            found = self.get(path, 503)
            assert found == {"error": "the database is being migrated"}
        assert self.ask("/")[0] == 200

    def test_a_failure(self) -> None:
        """It is logged once, the client learns no details, and the next request is answered."""
        self.database.connection.execute("ALTER TABLE samples RENAME TO away")
        self.store_series()
        for _ in range(MAX_QUERIES + 1):
            assert self.get(f"{RANGE}&series=a", 500) == {"error": "internal error"}
        assert len(self.flushLoggedErrors()) == 1

    def store_series(self) -> None:
        """Have a series without samples."""
        self.database.connection.execute(
            "INSERT INTO series (name, device_id, tags, value_type) VALUES ('a', 'box', '{}', 0)"
        )

    def test_nothing_is_logged(self) -> None:
        """A page that is open all night does not wear out the flash."""
        for path in ("/", "/api/v1/now", "/api/v1/series", "/api/v1/query_range", "/page/x"):
            self.ask(path)
        assert [formatEvent(event) for event in self.events] == []


class CostTests(PageCase):
    """How much of the database's thread a client may use."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(ranges, "ROWS", 2)
        self.store(*(sample(LOAD, 1_000_000 + n, n) for n in range(20)))
        self.database.holding = True

    def query(self) -> Wire:
        """Begin a query of eleven pieces and come to its third."""
        wire = self.begin(f"{RANGE}&series=system.load_1m")
        for _ in range(3):
            self.database.turn()
        return wire

    def test_a_piece_at_a_time(self) -> None:
        """The next step queues when the last is done, behind the work that has come meanwhile."""
        wire = self.begin(f"{RANGE}&series=system.load_1m")
        while self.database.calls:
            assert len(self.database.calls) == 1
            self.database.turn()
        self.run_turns()
        [(status, _, body)] = wire.answers()
        assert status == 200
        assert json.loads(body)["series"][0]["avg"] == [9.5]
        assert self.database.done >= 11

    def test_a_client_that_goes_away(self) -> None:
        """Its query ends with the piece that is being read, and makes room for another."""
        wires = [self.query() for _ in range(MAX_QUERIES)]
        for wire in wires:
            wire.lose()
        assert len(self.database.calls) == MAX_QUERIES
        while self.database.calls:
            self.database.turn()
        assert self.database.done == 4 * MAX_QUERIES
        self.database.holding = False
        assert self.get(f"{RANGE}&series=system.load_1m")["series"]
        assert self.flushLoggedErrors() == []

    def test_not_more_than_two(self) -> None:
        """A third query is refused for now; none is queued."""
        first, second = self.query(), self.query()
        status, headers, body = self.ask(f"{RANGE}&series=system.load_1m")
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body) == {"error": "2 other queries are being answered: try again"}
        assert self.ask("/api/v1/series")[0] == 503
        assert self.ask("/api/v1/now")[0] == 200
        while self.database.calls:
            self.database.turn()
        self.run_turns()
        assert [one.answers()[0][0] for one in (first, second)] == [200, 200]

    def test_a_long_answer_takes_turns(self) -> None:
        """Lines are encoded, and the whole compressed, in pieces between which others go on."""
        self.database.holding = False
        many = [Series.of("a", "box", {"n": str(n)}) for n in range(10)]
        self.store(*(sample(one, 1_000_000, 1) for one in many))
        self.patch(web_gzip, "GZIP_CHUNK", 100)
        turns = []
        later = self.clock.callLater

        def counted(*call: Any) -> Any:
            turns.append(call)
            return later(*call)

        self.patch(self.clock, "callLater", counted)
        status, headers, body = self.ask(f"{RANGE}&series=a", "Accept-Encoding: gzip")
        assert (status, headers["content-encoding"]) == (200, "gzip")
        assert len(turns) >= len(many) + len(gzip.decompress(body)) // 100
        assert len(json.loads(gzip.decompress(body))["series"]) == 10


class KindTests(SynchronousTestCase):
    """The metrics that are shown as rates."""

    def test_kinds(self) -> None:
        """By the catalogue, and by the name for what it does not know."""
        assert is_counter("network.tx_bytes_total")
        assert is_counter("storage.write_duration_seconds_bucket")
        assert is_counter("of.another.version_total")
        assert not is_counter("memory.total_bytes")
        assert not is_counter("of.another.version")
