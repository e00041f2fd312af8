"""The HTTP client of the import endpoint: it posts a body, and returns a result."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from hyperlink import EncodedURL
from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from belatwist.errors import BelaError
from belatwist.http.failures import describe, root_causes, secrets_of
from belatwist.http.response import BoundedBody, header, media_type, redirect
from belatwist.upload.answers import HttpAnswer, classify, is_page
from belatwist.upload.http.endpoints import Endpoints
from belatwist.upload.policy import Retryable, SendResult

IDLE_TIMEOUT = 50
"""Seconds for which an idle connection is kept. The server closes it after 60."""

DATE_TIMEOUT = 5.0
"""Seconds after which a request for the server's time has failed."""

_UNSEEN = (b"content-encoding", b"set-cookie", b"set-cookie2")
"""Headers of an answer that treq would act upon."""


class HTTPImportClient:
    """Posts to ``/api/v1/import`` over persistent connections.

    :param url: the endpoint.
    :param headers: sent with every request.
    :param body_headers: sent with every body as well: its type and encoding.
    :param timeout: seconds for a whole attempt, from the look-up of the name to the answer's end.
    :param token: reads the bearer token, if the server wants one. It is called for every request,
        so that a new token needs no restart.
    :param ca_file: PEM certificates to trust instead of the system's.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        headers: Mapping[str, str],
        body_headers: Mapping[str, str],
        timeout: float,
        token: Callable[[], str] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._headers = headers
        self._body_headers = body_headers
        self._timeout = timeout
        self._token = token
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 1
        self._pool.cachedConnectionTimeout = IDLE_TIMEOUT
        self._endpoints = Endpoints(reactor, ca_file)
        agent = Agent.usingEndpointFactory(reactor, self._endpoints, self._pool)
        self._http = HTTPClient(PlainAgent(agent))

    @property
    def endpoint(self) -> str:
        """The URL without its query."""
        return self._url.partition("?")[0]

    def post(self, body: bytes) -> "Deferred[SendResult]":
        """Send one body; see :class:`belatwist.upload.ImportClient`."""
        attempt = Deferred.fromCoroutine(self._attempt(body))

        def timed_out(_result: object, seconds: float) -> SendResult:
            # The cancelled request fails with an error that depends on its stage.
            return Retryable(f"no answer within {seconds:g} s", error_type="TimeoutError")

        return attempt.addTimeout(self._timeout, self._reactor, timed_out)

    async def date_of(self, url: str) -> tuple[str | None, str]:
        """Fetch a URL.

        The token is sent only where samples go: another server has no business with it.

        :return: the answer's ``Date`` header, ``None`` if it has none, and the address (IP:port)
            that the connection has reached.
        :raises BelaError: when there is no answer; the text says why.
        """
        own = urlsplit(url)[:2] == urlsplit(self._url)[:2]
        token = ""

        async def attempt() -> tuple[str | None, str]:
            nonlocal token
            token = self._token() if own and self._token else ""
            response = await self._http.get(
                _PreEncodedURL.from_text(url),
                headers=self._request_headers(token, {}),
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            server = self._endpoints.peer_of(response.request.absoluteURI)
            answer = _told(response, await self._read(response), secrets_of(url, token), token)
            # A captive portal's clock may be as wrong as ours.
            if answer.status // 100 == 3:
                to = f" to {answer.location}" if answer.location else ""
                raise BelaError(f"HTTP {answer.status}: a redirect{to}, not the server's time")
            if answer.status == 200 and is_page(answer.kind, answer.excerpt):
                raise BelaError(f"HTTP {answer.status}: a web page, not the server's time")
            return header(response, b"date"), server

        def timed_out(_result: object, seconds: float) -> NoReturn:
            raise BelaError(f"no answer within {seconds:g} s")

        asked = Deferred.fromCoroutine(attempt())
        try:
            return await asked.addTimeout(DATE_TIMEOUT, self._reactor, timed_out)
        except Exception as error:
            key = "remote.url" if own else "monitoring.clock_skew_url"
            raise BelaError(describe(error, secrets_of(url, token), url=key)) from error

    def probe(self) -> "Deferred[None]":
        """Connect to the server and drop the connection at once; fails when it cannot."""
        return Deferred.fromCoroutine(self._endpoints.probe(self._url))

    def watch(self, attempted: Callable[[bool], None]) -> None:
        """Call a function with each attempt to connect to the server: whether it succeeded."""
        self._endpoints.watch(self._url, attempted)

    def close(self) -> "Deferred[None]":
        """Close the idle connections."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _attempt(self, body: bytes) -> SendResult:
        token = ""
        try:
            token = "" if self._token is None else self._token()
            response = await self._http.post(
                _PreEncodedURL.from_text(self._url),
                data=body,
                headers=self._request_headers(token, self._body_headers),
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            answer = await self._read(response)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever goes wrong on the way, the samples wait
            kind = root_causes(error)[0]
            return Retryable(
                describe(error, secrets_of(self._url, token)),
                error_type="TLSError" if isinstance(kind, SSL.Error) else type(kind).__name__,
            )
        return classify(_told(response, answer, secrets_of(self._url, token), token), time.time())

    @staticmethod
    async def _read(response: IResponse) -> BoundedBody:
        answer = BoundedBody()
        response.deliverBody(answer)
        await answer.finished
        return answer

    def _request_headers(self, token: str, more: Mapping[str, str]) -> Headers:
        headers = Headers({k: [v] for k, v in {**self._headers, **more}.items()})
        if token:
            headers.setRawHeaders("Authorization", [f"Bearer {token}"])
        return headers


def _told(response: IResponse, body: BoundedBody, secrets: list[str], token: str) -> HttpAnswer:
    """Read what matters of an answer, without secrets."""
    challenges = response.headers.getRawHeaders(b"www-authenticate", ())
    return HttpAnswer(
        response.code,
        received_bytes=body.size,
        excerpt=body.excerpt(secrets),
        kind=media_type(response, secrets),
        location=redirect(response, secrets),
        retry_after=header(response, b"retry-after"),
        challenges=", ".join(one.decode("latin-1") for one in challenges),
        token_sent=bool(token),
    )


class _PreEncodedURL(EncodedURL):
    """A URL of the configuration: all ASCII, with nothing left to encode.

    Encoding would fail on a host that is an IPv6 address.
    """

    def to_uri(self) -> "_PreEncodedURL":
        """Return it as it is."""
        return self


@implementer(IAgent)
class PlainAgent:
    """An agent for treq that neither asks for compressed answers nor unpacks them, nor has cookies.

    treq unpacks without a bound: two megabytes could become two thousand. It keeps every cookie
    for as long as it lives, and sends all of them back.

    :param agent: makes the requests.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> "Deferred[IResponse]":
        """Make a request."""
        if headers is not None:
            headers.removeHeader(b"accept-encoding")

        def plain(response: IResponse) -> IResponse:
            for name in _UNSEEN:
                response.headers.removeHeader(name)
            return response

        requested: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return requested.addCallback(plain)
