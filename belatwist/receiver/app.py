"""The receiver over HTTP.

Importing this module imports Klein, which installs the reactor: import it late.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import msgspec
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IRequest
from twisted.web.server import Site
from werkzeug.exceptions import HTTPException

from belatwist.log.events import Event
from belatwist.receiver.bounds import LIMITS, MAX_BODIES_BYTES, Body, Budget, UploadRequest
from belatwist.receiver.memory import Memory
from belatwist.receiver.parse import BodyParser, Line, Step, read_import, read_metrics
from belatwist.receiver.unpack import BadBodyError, BodyTooLargeError, UnknownEncodingError, quote
from belatwist.web.respond import error_body, no_route, respond
from belatwist.web.site import BoundedRequest, BoundedSite

MAX_LOGGED_SERIES = 1000
"""The most series of a request that get a line of their own in the log."""

_LOGGED_PER_STEP = 50

# Without a FailureLog: the receiver is for tests, where each request counts.
RECEIVED = Event(
    "receiver.received",
    LogLevel.info,
    "Received {samples} samples of {series} series from {device}"
    " in {bytes} bytes ({raw_bytes} unpacked)",
)
SERIES = Event(
    "receiver.series",
    LogLevel.info,
    "Series {series}: {samples} samples, the last {value} at {timestamp}",
)
MORE_SERIES = Event("receiver.more_series", LogLevel.info, "{count} more series are not shown")
REFUSED = Event(
    "receiver.refused",
    LogLevel.warn,
    "Refused samples from {device}: {reason}",
    cure="Correct the sender; the reason names the fault of its request.",
)

_PAGE = b"""belatwist receiver, for quick local testing

POST /api/v1/import   VictoriaMetrics JSON lines, plain or gzip
POST /api/metrics     the older JSON format
GET  /api/v1/series   what was received; ?name=... for one name
GET  /health          counts
"""


@dataclass(slots=True)
class _LoggedSeries:
    """The log's view of one series of a request: its labels, quoted and cut, and its samples."""

    series: str
    samples: int = 0
    last_value: float = 0.0
    last_timestamp_ms: int = 0


@dataclass(slots=True)
class _Upload:
    """A request with samples, and its counts.

    :ivar read: the parser of its format.
    :ivar number: the number of the request, from 1.
    :ivar device: the sender, quoted for the log.
    :ivar logged: the first series, by the hash of their labels; the labels may be much longer.
    """

    read: BodyParser
    number: int
    device: str
    body: bytes
    encoding: str
    samples: int = 0
    series: int = 0
    unpacked_bytes: int = 0
    logged: dict[int, _LoggedSeries] = field(default_factory=dict)

    def steps(self) -> Iterator[Step]:
        return self.read(self.body, self.encoding)

    def note(self, line: Line) -> None:
        key = hash(line.labels)
        logged = self.logged.get(key)
        if logged is None:
            if len(self.logged) == MAX_LOGGED_SERIES:
                return
            labels = ", ".join(f"{name}={value}" for name, value in line.labels)
            logged = self.logged[key] = _LoggedSeries(quote(labels, 500))
        logged.samples += len(line.values)
        logged.last_value = line.values[-1]
        logged.last_timestamp_ms = line.timestamps[-1]


class Receiver:
    """Receives samples over HTTP, checks them strictly and keeps the last ones.

    :param clock: schedules the steps of the parser, and measures the uptime.
    :param verbose: whether to log every series of every request.
    :param memory: keeps the samples; a default one if left out.
    """

    app = Klein()
    _log = Logger()

    def __init__(
        self, clock: IReactorTime, *, verbose: bool = False, memory: Memory | None = None
    ) -> None:
        self.memory = Memory() if memory is None else memory
        self._clock = clock
        self._verbose = verbose
        self._started = clock.seconds()
        self._requests = 0
        self._rejected_requests = 0
        self._samples = 0
        # One step in each turn of the reactor: a large body must not hold up other work.
        self._cooperator = Cooperator(
            terminationPredicateFactory=lambda: lambda: True,
            scheduler=lambda step: clock.callLater(0, step),
        )

    def refused(self, reason: str) -> None:
        """Count and log an upload that was refused before its body had arrived."""
        self._requests += 1
        self._reject(reason, "a request that was not read")

    @app.route("/", methods=["GET"])
    def index(self, request: IRequest) -> bytes:
        """Answer with the list of addresses."""
        return respond(request, http.OK, _PAGE, b"text/plain; charset=utf-8")

    @app.route("/health", methods=["GET"])
    def health(self, request: IRequest) -> bytes:
        """Answer with the counts since the start."""
        status = {
            "status": "ok",
            "requests": self._requests,
            "samples": self._samples,
            "series": len(self.memory),
            "dropped_series": self.memory.dropped_series,
            "rejected_requests": self._rejected_requests,
            "uptime_seconds": round(self._clock.seconds() - self._started, 3),
        }
        return respond(request, http.OK, msgspec.json.encode(status))

    @app.route("/api/v1/series", methods=["GET"])
    def series(self, request: IRequest) -> bytes:
        """Answer with the series in memory, least recently updated first."""
        names = request.args.get(b"name")
        name = names[0].decode("utf-8", "replace") if names else None
        return respond(request, http.OK, msgspec.json.encode(list(self.memory.series(name))))

    @app.route("/api/v1/import", methods=["POST"])
    async def import_lines(self, request: IRequest) -> bytes:
        """Receive VictoriaMetrics JSON lines; answer 204 without a body, as VictoriaMetrics."""
        await self._take(request, read_import)
        request.setResponseCode(http.NO_CONTENT)
        return b""

    @app.route("/api/metrics", methods=["POST"])
    async def import_metrics(self, request: IRequest) -> bytes:
        """Receive the older format. Its Go client expects ``success`` in the answer."""
        upload = await self._take(request, read_metrics)
        counts = {"accepted": upload.samples, "received": upload.samples, "success": True}
        return respond(request, http.OK, msgspec.json.encode(counts))

    @app.handle_errors(BadBodyError)
    def bad_body(self, request: IRequest, failure: Failure) -> bytes:
        """Answer with the fault of the body."""
        error = cast("BadBodyError", failure.value)
        if isinstance(error, BodyTooLargeError) and isinstance(request, BoundedRequest):
            request.close_afterwards()
        if isinstance(error, UnknownEncodingError):
            request.setHeader(b"Accept-Encoding", b"gzip")
        more = {} if error.line is None else {"line": error.line}
        return respond(request, error.status, error_body(error.reason, **more))

    @app.handle_errors(HTTPException)
    def no_route(self, request: IRequest, failure: Failure) -> bytes:
        """Answer that an address does not exist, or accepts other methods."""
        return no_route(request, failure)

    def _take(self, request: IRequest, read: BodyParser) -> Deferred[_Upload]:
        """Check a body and keep its samples.

        The work is completed also when the client disconnects: its samples have arrived.
        """
        self._requests += 1
        headers = request.requestHeaders
        body = cast("UploadRequest", request).take_body()
        upload = _Upload(
            read,
            self._requests,
            quote(b"".join(headers.getRawHeaders(b"X-Device-ID", [])).decode("utf-8", "replace")),
            body.getvalue(),
            b",".join(headers.getRawHeaders(b"Content-Encoding", [])).decode("utf-8", "replace"),
        )
        done = self._cooperator.cooperate(self._keep(upload, body)).whenDone()
        return done.addCallback(lambda _: upload)

    def _keep(self, upload: _Upload, body: Body) -> Iterator[None]:
        """Check the body, then parse it again and keep its samples.

        Two passes, because nothing of a bad body may be kept, and the samples of a good body may
        need many times the memory of its text.
        """
        with body:
            try:
                for _ in upload.steps():
                    yield
            except BadBodyError as error:
                self._reject(str(error), upload.device)
                raise
            for lines, unpacked_bytes in upload.steps():
                upload.unpacked_bytes += unpacked_bytes
                for line in lines:
                    upload.samples += len(line.values)
                    upload.series += self.memory.add(line, upload.number)
                    if self._verbose:
                        upload.note(line)
                yield
            yield from self._log_series(upload)
        self._samples += upload.samples
        RECEIVED.emit(
            self._log,
            samples=upload.samples,
            series=upload.series,
            device=upload.device,
            bytes=len(upload.body),
            raw_bytes=upload.unpacked_bytes,
        )

    def _log_series(self, upload: _Upload) -> Iterator[None]:
        for number, logged in enumerate(upload.logged.values(), 1):
            SERIES.emit(
                self._log,
                series=logged.series,
                samples=logged.samples,
                value=logged.last_value,
                timestamp=logged.last_timestamp_ms,
            )
            if number % _LOGGED_PER_STEP == 0:
                yield
        if len(upload.logged) == MAX_LOGGED_SERIES < upload.series:
            MORE_SERIES.emit(self._log, count=upload.series - MAX_LOGGED_SERIES)

    def _reject(self, reason: str, device: str) -> None:
        self._rejected_requests += 1
        REFUSED.emit(self._log, device=device, reason=reason)


def site(receiver: Receiver, reactor: IReactorTime) -> Site:
    """Make a site of a receiver, with its limits on clients."""
    budget = Budget(MAX_BODIES_BYTES)

    def request(channel: HTTPChannel, queued: object) -> UploadRequest:
        return UploadRequest(channel, budget, receiver.refused)

    return BoundedSite(receiver.app.resource(), LIMITS, reactor, request)
