"""The HTTP client of the import endpoint: one body in, one outcome out."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL.crypto import X509
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.http_headers import Headers

from belatwist.upload.policy import Outcome, Retry, classify

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection, its TLS handshake included, must stand."""

IDLE_TIMEOUT = 50
"""Seconds that an unused connection is kept: the server closes its side after 60."""

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
        timeout: float,
        token: Callable[[], str] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._reactor = reactor
        self._url = url
        self._headers = Headers({name: [value] for name, value in headers.items()})
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

    def close(self) -> "Deferred[None]":
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _attempt(self, body: bytes) -> Outcome:
        try:
            headers = self._headers.copy()
            if self._token is not None:
                headers.setRawHeaders("Authorization", [f"Bearer {self._token()}"])
            response = await self._http.post(
                self._url,
                data=body,
                headers=headers,
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
