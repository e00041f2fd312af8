"""The HTTP client of the import endpoint: one body in, one outcome out."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.http_headers import Headers

from belatwist.errors import BelaError
from belatwist.upload.policy import Outcome, Retry, classify

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection, its TLS handshake included, must stand."""

IDLE_TIMEOUT = 50
"""Seconds that an unused connection is kept: the server closes its side after 60."""

DATE_TIMEOUT = 5.0
"""Seconds until a request for the server's time is given up."""

_EXCERPT_BYTES = 300


class ImportClient(Protocol):
    """Sends bodies to a server."""

    @property
    def endpoint(self) -> str:
        """Where they go, fit for a log: without the query, which may hold a secret."""
        ...

    def post(self, body: bytes) -> "Deferred[Outcome]":
        """Send one body. Never fails but by being cancelled: every mishap is an outcome."""
        ...

    def close(self) -> "Deferred[None]":
        """Close the connections that are kept."""
        ...


class HTTPImportClient:
    """Posts to ``/api/v1/import`` over connections that persist.

    :param url: the endpoint.
    :param headers: sent with every request.
    :param body_headers: sent with every body besides: its type and encoding.
    :param timeout: seconds for a whole attempt, from the name look-up to the answer's last byte.
    :param token: reads the bearer token, if the server wants one; called for every request, so
        that a new one is used without a restart.
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
        self._http = HTTPClient(
            Agent(
                reactor,
                contextFactory=BrowserLikePolicyForHTTPS(_trust_root(ca_file)),
                connectTimeout=CONNECT_TIMEOUT,
                pool=self._pool,
            )
        )

    @property
    def endpoint(self) -> str:
        """The URL without its query."""
        return self._url.partition("?")[0]

    def post(self, body: bytes) -> "Deferred[Outcome]":
        """Send one body; see :class:`ImportClient`."""
        attempt = Deferred.fromCoroutine(self._attempt(body))

        def timed_out(_result: object, seconds: float) -> Outcome:
            # The cancelled request fails in its own way, whichever stage it was in.
            return Retry(f"no answer within {seconds:g} s")

        return attempt.addTimeout(self._timeout, self._reactor, timed_out)

    async def date_of(self, url: str) -> str | None:
        """Fetch a URL and return the answer's ``Date`` header, ``None`` if it has none.

        The token is sent only where samples go: another server has no business with it.

        :raises BelaError: when there is no answer; the text says why.
        """
        own = urlsplit(url)[:2] == urlsplit(self._url)[:2]

        async def attempt() -> str | None:
            response = await self._http.get(
                url,
                headers=self._request_headers({}) if own else None,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            await response.collect(lambda _: None)
            found: list[str | None] = response.headers.getRawHeaders("date", [None])
            return found[0]

        try:
            return await Deferred.fromCoroutine(attempt()).addTimeout(DATE_TIMEOUT, self._reactor)
        except Exception as error:
            raise BelaError(describe(error)) from error

    def close(self) -> "Deferred[None]":
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _attempt(self, body: bytes) -> Outcome:
        try:
            response = await self._http.post(
                self._url,
                data=body,
                headers=self._request_headers(self._body_headers),
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            answer = _Answer()
            await response.collect(answer.received)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong on the way, the samples wait
            return Retry(describe(error))
        retry_after = response.headers.getRawHeaders("retry-after", [None])[0]
        return classify(
            response.code,
            retry_after=retry_after,
            excerpt=answer.excerpt(),
            received_bytes=answer.size,
            now=time.time(),
        )

    def _request_headers(self, more: Mapping[str, str]) -> Headers:
        headers = Headers({k: [v] for k, v in {**self._headers, **more}.items()})
        if self._token is not None:
            headers.setRawHeaders("Authorization", [f"Bearer {self._token()}"])
        return headers


class _Answer:
    """The beginning of an answer's body, and its length: what a server says is not kept whole."""

    def __init__(self) -> None:
        self.size = 0
        self._start = b""

    def received(self, data: bytes) -> None:
        self.size += len(data)
        self._start += data[: _EXCERPT_BYTES - len(self._start)]

    def excerpt(self) -> str:
        text = self._start.decode("utf-8", "replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def describe(error: BaseException | None) -> str:
    """Say in one line what went wrong, looking into Twisted's wrappers of several failures."""
    # ResponseFailed has them as an attribute, others as their only argument.
    reasons = getattr(error, "reasons", None) or next(iter(getattr(error, "args", ())), None)
    if isinstance(reasons, list):
        inner = [describe(r.value) for r in reasons if isinstance(r, Failure)]
        if inner:
            return "; ".join(dict.fromkeys(inner))
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trust_root(ca_file: Path | None) -> Any:
    """Return what to trust: the certificates of a file, or (``None``) the system's."""
    if ca_file is None:
        return None
    found = load_pem_x509_certificates(ca_file.read_bytes())
    return trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in found])
