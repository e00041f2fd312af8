"""The routes of the status page and of its data. All of them are read-only.

Nothing is kept between two requests: each one reads its file, or computes its answer.
"""

import json
import math
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web import http
from twisted.web.iweb import IRequest

from belatwist.collectors.registry import CATALOGUE
from belatwist.metrics.metric import MetricType
from belatwist.model import REAL, Sample
from belatwist.store.sql.ranges import (
    SERIES,
    Buckets,
    Grid,
    RangeScan,
    SeriesRow,
    all_series,
    series_named,
)
from belatwist.web.gzip import GzipEncoder, gzip_body
from belatwist.web.page.index import STATIC, render
from belatwist.web.page.query import MAX_SERIES, BadQueryError, RangeQuery, read
from belatwist.web.respond import error_body, respond

T = TypeVar("T")
View = Callable[..., bytes | Awaitable[bytes]]

MAX_QUERIES = 2
"""The most requests that may read the database at the same time."""

HEADERS: Mapping[bytes, bytes] = MappingProxyType(
    {
        # Each script and style is a file of ours; styles that a script sets are not inline ones.
        b"Content-Security-Policy": b"default-src 'none'; script-src 'self'; style-src 'self';"
        b" connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
        b" frame-ancestors 'none'",
        b"Cross-Origin-Opener-Policy": b"same-origin",
        b"Cross-Origin-Resource-Policy": b"same-origin",
        b"Referrer-Policy": b"no-referrer",
        b"X-Frame-Options": b"DENY",
    }
)
"""Headers that let a browser show the page, and nothing else."""

_HTML, _CSS, _JS = b"text/html; charset=utf-8", b"text/css", b"text/javascript"
_FILES: Mapping[str, bytes] = MappingProxyType(
    {
        "page.css": _CSS,
        "page.js": _JS,
        "charts.js": _JS,
        "uplot-1.6.32.min.css": _CSS,
        "uplot-1.6.32.min.js": _JS,
        "uplot-LICENSE.txt": b"text/plain; charset=utf-8",
    }
)
_VERSIONED = "uplot-1"
"""Files with a version in their name never change. For the others, a browser asks each time."""


class ChartSource(Protocol):
    """The part of the store that the charts read.

    :ivar opening: in words, the progress of its opening; ``None`` when it is open.
    """

    opening: str | None

    def transact(self, function: Callable[..., T], *args: object) -> "Deferred[T]":
        """Run a function of a cursor on the database's thread."""
        ...


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of an answer.

    A line stands for a name with its tags, also when the device was renamed meanwhile.

    :ivar shown: by name and tags.
    :ivar gauges: those of gauges by the ids of their series.
    :ivar counters: those of counters.
    """

    shown: dict[tuple[str, str], Buckets] = field(default_factory=dict)
    gauges: dict[int, Buckets] = field(default_factory=dict)
    counters: dict[int, Buckets] = field(default_factory=dict)


class Page:
    """Answers requests for the page and its data.

    :param reactor: schedules the pieces of a long answer, so that it does not hold up the reactor.
    :param source: reads the stored samples.
    :param samples: yields the last samples of each collector.
    """

    def __init__(
        self, reactor: Any, source: ChartSource, samples: Callable[[], Iterable[Sample]]
    ) -> None:
        self._reactor = reactor
        self._source = source
        self._samples = samples
        self._queries = 0

    def routes(self) -> Iterator[tuple[str, View]]:
        """Yield the routes whose answers need no snapshot of the agent."""
        yield "/page/<name>", self.file
        yield "/api/v1/series", self.series
        yield "/api/v1/query_range", self.query_range

    def index(self, request: IRequest, *, now: bytes, **about: Any) -> bytes:
        """Answer with the page itself; see :func:`belatwist.web.page.index.render`."""
        return self._static(request, render(now=now, **about), _HTML)

    def now(self, document: bytes) -> bytes:
        """Encode the current state: the health document and the last samples."""
        samples = [
            {
                "name": series.name,
                "tags": dict(series.tags),
                "time": timestamp_ms / 1000,
                "value": value,
            }
            for series, timestamp_ms, value in self._samples()
            if series.value_type == REAL
        ]
        return b'{"health":%b,"samples":%b}' % (document, msgspec.json.encode(samples))

    def file(self, request: IRequest, name: str) -> bytes:
        """Answer with a static file of the page."""
        kind = _FILES.get(name)
        if kind is None:
            return respond(request, http.NOT_FOUND, error_body("no such address"))
        body = (STATIC / name).read_bytes()
        kept = b"max-age=31536000, immutable" if name.startswith(_VERSIONED) else b"no-cache"
        request.setHeader(b"Cache-Control", kept)
        if request.setETag(b'W/"%08x-%x"' % (zlib.crc32(body), len(body))) == http.CACHED:
            return b""
        return self._static(request, body, kind)

    async def series(self, request: IRequest) -> bytes:
        """List the names and tags of the stored series; ``name`` limits the list to some names."""
        arguments: Mapping[bytes, list[bytes]] = request.args
        names = [name.decode("utf-8", "replace") for name in arguments.get(b"name", ())]
        if arguments.keys() - {b"name"} or len(names) > MAX_SERIES:
            reason = f"only the parameter name, at most {MAX_SERIES} times"
            return respond(request, http.BAD_REQUEST, error_body(reason))

        return await self._query(request, lambda: self._listed(names))

    async def query_range(self, request: IRequest) -> bytes:
        """Answer with points of some series: see ``docs/page.md``."""
        try:
            query = read(request.args)
        except BadQueryError as error:
            return respond(request, http.BAD_REQUEST, error_body(str(error)))

        return await self._query(request, lambda: self._points(query))

    async def _listed(self, names: list[str]) -> bytes:
        found: dict[tuple[str, str], None] = {}
        async for _, name, tags in self._stored(names):
            found[name, tags] = None
        encoded = []
        for number, (name, tags) in enumerate(found):
            if number % 100 == 99:
                await self._yield()
            encoded.append(msgspec.json.encode(_described(name, tags)))
        return b'{"series":[%b]}' % b",".join(encoded)

    async def _points(self, query: RangeQuery) -> bytes:
        lines = await self._lines(query)
        grid = Grid(query.start * 1000, query.step * 1000, query.points)
        scan = RangeScan(grid, lines.gauges, lines.counters)
        more = bool(lines.shown)
        while more:
            # When the client disconnects, Klein cancels the pending step, which ends this loop.
            more = await self._source.transact(scan.advance)
        encoded = []
        for (name, tags), line in sorted(lines.shown.items(), key=lambda item: item[0]):
            await self._yield()
            encoded.append(_encoded(name, tags, line, query))
        head = b'"start":%d,"end":%d,"step":%d' % (query.start, query.end, query.step)
        return b'{%b,"series":[%b]}' % (head, b",".join(encoded))

    async def _lines(self, query: RangeQuery) -> _Lines:
        lines = _Lines()
        async for number, name, tags in self._stored(sorted({s.name for s in query.selectors})):
            values = json.loads(tags)
            if not any(selector.matches(name, values) for selector in query.selectors):
                continue
            line = lines.shown.setdefault((name, tags), Buckets(query.points))
            (lines.counters if is_counter(name) else lines.gauges)[number] = line
            if len(lines.shown) > MAX_SERIES:
                raise BadQueryError(f"series: these are more than {MAX_SERIES}; name their tags")
        return lines

    async def _stored(self, names: list[str]) -> AsyncIterator[SeriesRow]:
        """Yield the series with one of the names; without names, all series."""
        after, more = 0, True
        while more:
            found = await (
                self._source.transact(series_named, names, after)
                if names
                else self._source.transact(all_series, after)
            )
            for row in found:
                yield row
            after, more = found[-1][0] if found else after, len(found) == SERIES

    async def _query(self, request: IRequest, function: Callable[[], Awaitable[bytes]]) -> bytes:
        """Answer with the result of a function that reads the database, unless that is busy."""
        opening = self._source.opening
        if opening is not None:
            return self._unavailable(request, f"the database {opening}")
        if self._queries >= MAX_QUERIES:
            reason = f"{MAX_QUERIES} other queries are being answered: try again"
            return self._unavailable(request, reason)
        self._queries += 1
        try:
            body = await function()
            encoder = GzipEncoder(request, body)
            while encoder.advance():
                await self._yield()
        except BadQueryError as error:
            return respond(request, http.BAD_REQUEST, error_body(str(error)))
        finally:
            self._queries -= 1
        return respond(request, http.OK, encoder.result())

    def _yield(self) -> "Deferred[None]":
        """Let the reactor do other work."""
        turn: Deferred[None] = deferLater(self._reactor, 0)
        return turn

    def _unavailable(self, request: IRequest, reason: str) -> bytes:
        request.setHeader(b"Retry-After", b"1")
        return respond(request, http.SERVICE_UNAVAILABLE, error_body(reason))

    def _static(self, request: IRequest, body: bytes, kind: bytes) -> bytes:
        for name, value in HEADERS.items():
            request.setHeader(name, value)
        return respond(request, http.OK, gzip_body(request, body), kind)


def is_counter(name: str) -> bool:
    """Return whether a stored metric is a counter, of which the charts show the rate.

    A metric that the catalogue does not have is from another version; its name decides.
    """
    entry = CATALOGUE.get(name)
    if entry is not None:
        return entry.type is MetricType.COUNTER
    return name.endswith(("_total", "_bucket", "_sum", "_count"))


def _described(name: str, tags: str) -> dict[str, Any]:
    entry = CATALOGUE.get(name)
    counter = is_counter(name)
    unit = entry.unit if entry is not None else ""
    return {
        "name": name,
        "tags": msgspec.Raw(tags.encode()),
        "kind": "counter" if counter else "gauge",
        "unit": unit,
    }


def _encoded(name: str, tags: str, line: Buckets, query: RangeQuery) -> bytes:
    known = [i for i in range(query.points) if line.weight[i]]
    result = _described(name, tags)
    result["times"] = [query.start + i * query.step for i in known]
    for value in query.values:
        result[value] = [_rounded(line.value(value, i)) for i in known]
    return msgspec.json.encode(result)


def _rounded(value: float) -> float | None:
    """Round to seven digits: further ones carry no information, and take room in the answer."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
