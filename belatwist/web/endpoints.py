"""The agent's HTTP endpoints: health, metrics and the status page. All of them are read-only.

Importing this module imports Klein, which installs the reactor: import it late.
"""

from collections.abc import Callable
from functools import partial

from klein import Klein
from twisted.internet.interfaces import IReactorTime
from twisted.web import http
from twisted.web.iweb import IRequest
from twisted.web.server import Site
from werkzeug.exceptions import HTTPException

from belatwist import __version__, config
from belatwist.health.document import document, readiness
from belatwist.health.snapshot import Snapshot
from belatwist.health.status import Status, judge
from belatwist.metrics.exposition import CONTENT_TYPE
from belatwist.web.access import Access, GuardedRequest
from belatwist.web.gzip import gzip_body
from belatwist.web.page.resource import Page
from belatwist.web.respond import no_route, respond
from belatwist.web.site import BoundedSite, Limits

LIMITS = Limits(connections=16, idle=10, request=15)


class Endpoint:
    """Answers requests from memory; only the page's charts read the database.

    :param snapshot: takes a snapshot of the agent.
    :param health: the thresholds, and the path of the health document.
    :param metrics: returns the Prometheus text.
    :param page: the status page and its data; ``None`` for no page.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        health: config.Health,
        metrics: Callable[[], bytes],
        page: Page | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._health = health
        self._metrics = metrics
        # Each instance has its own application, because a path is configured.
        self.app = Klein()
        for path, view in (
            (health.path, self.status),
            (f"{health.path}/live", self.live),
            (f"{health.path}/ready", self.ready),
            ("/metrics", self.metrics),
        ):
            self.app.route(path, methods=["GET"])(view)
        if page is not None:
            self._add_page(page)
        self.app.handle_errors(HTTPException)(no_route)

    def status(self, request: IRequest) -> bytes:
        """Answer with the health document: 200, or 503 for error."""
        snapshot = self._snapshot()
        verdict = judge(snapshot, self._health)
        failed = verdict.status is Status.ERROR
        code = http.SERVICE_UNAVAILABLE if failed else http.OK
        return respond(request, code, gzip_body(request, document(snapshot, verdict)))

    def live(self, request: IRequest) -> bytes:
        """Answer that the process runs: always 200."""
        return respond(request, http.OK, b'{"live":true}')

    def ready(self, request: IRequest) -> bytes:
        """Answer whether all is well: 200 for ok, otherwise 503."""
        verdict = judge(self._snapshot(), self._health)
        ready = verdict.status is Status.OK
        code = http.OK if ready else http.SERVICE_UNAVAILABLE
        return respond(request, code, readiness(verdict))

    def metrics(self, request: IRequest) -> bytes:
        """Answer with the latest value of every metric, as Prometheus text."""
        return respond(request, http.OK, self._metrics(), CONTENT_TYPE.encode())

    def access(self, seconds: Callable[[], float]) -> Access:
        """Return the rules by which requests are answered.

        :param seconds: a monotonic clock.
        """
        health, logins = self._health, None
        if health.basic_auth_file is not None:
            logins = partial(config.read_logins, health.basic_auth_file)
        names = health.host, *health.allowed_hosts
        return Access(names, f"{health.path}/live".encode(), logins, seconds=seconds)

    def _add_page(self, page: Page) -> None:
        """Add the routes of the page."""

        def index(request: IRequest) -> bytes:
            snapshot = self._snapshot()
            verdict = judge(snapshot, self._health)
            return page.index(
                request,
                device_id=snapshot.device_id,
                version=__version__,
                health_path=self._health.path,
                status=verdict.status.word,
                reasons=verdict.reasons,
                now=page.now(document(snapshot, verdict)),
            )

        def now(request: IRequest) -> bytes:
            # Always 200: other statuses are for checks, and a browser would log them as errors.
            snapshot = self._snapshot()
            body = page.now(document(snapshot, judge(snapshot, self._health)))
            return respond(request, http.OK, gzip_body(request, body))

        for path, view in (("/", index), ("/api/v1/now", now), *page.routes()):
            self.app.route(path, methods=["GET"])(view)


def site(endpoint: Endpoint, reactor: IReactorTime) -> Site:
    """Make a site of an endpoint, with its access rules and its limits on clients."""
    request = partial(GuardedRequest, endpoint.access(reactor.seconds))
    return BoundedSite(endpoint.app.resource(), LIMITS, reactor, request)
