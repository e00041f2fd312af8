"""The HTTP client of the import endpoint: one body in, one outcome out."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from belatwist.errors import BelaError, ConfigError
from belatwist.upload.answer import Answer, PlainAgent, header, printable
from belatwist.upload.policy import Outcome, Retry, classify

CONNECT_TIMEOUT = 10.0
"""Seconds until a connection, its TLS handshake included, must stand."""

IDLE_TIMEOUT = 50
"""Seconds that an unused connection is kept: the server closes its side after 60."""

DATE_TIMEOUT = 5.0
"""Seconds until a request for the server's time is given up."""

_LONGEST = 300


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
        agent = Agent(
            reactor,
            contextFactory=BrowserLikePolicyForHTTPS(_trust_root(ca_file)),
            connectTimeout=CONNECT_TIMEOUT,
            pool=self._pool,
        )
        self._http = HTTPClient(PlainAgent(agent))

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
                headers=self._request_headers(self._token() if own and self._token else "", {}),
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            await self._read(response)
            return header(response, b"date")

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
            token = "" if self._token is None else self._token()
            response = await self._http.post(
                self._url,
                data=body,
                headers=self._request_headers(token, self._body_headers),
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            answer = await self._read(response)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong on the way, the samples wait
            return Retry(describe(error))
        return classify(
            response.code,
            retry_after=header(response, b"retry-after"),
            web_page=answer.too_long
            or (header(response, b"content-type") or "").lower().startswith("text/html"),
            excerpt=answer.excerpt(token),
            received_bytes=answer.size,
            now=time.time(),
        )

    @staticmethod
    async def _read(response: IResponse) -> Answer:
        answer = Answer()
        response.deliverBody(answer)
        await answer.finished
        return answer

    def _request_headers(self, token: str, more: Mapping[str, str]) -> Headers:
        headers = Headers({k: [v] for k, v in {**self._headers, **more}.items()})
        if token:
            headers.setRawHeaders("Authorization", [f"Bearer {token}"])
        return headers


def describe(error: BaseException | None) -> str:
    """Say in one line what went wrong, looking into Twisted's wrappers of several failures."""
    if isinstance(error, VerificationError):
        return "the server's certificate is for another host than that of remote.url"
    if isinstance(error, SSL.Error):
        return _describe_tls(error)
    # ResponseFailed has them as an attribute, others as their only argument.
    reasons = getattr(error, "reasons", None) or next(iter(getattr(error, "args", ())), None)
    if isinstance(reasons, list):
        inner = [describe(r.value) for r in reasons if isinstance(r, Failure)]
        if inner:
            return "; ".join(dict.fromkeys(inner))
    text = printable(str(error))[:_LONGEST]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _describe_tls(error: SSL.Error) -> str:
    # Its only argument lists (library, function, reason); the last of these is what one wants.
    details = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(detail[-1]) for detail in details]
    if "certificate verify failed" in reasons:
        # Which of these it is OpenSSL knows, and does not hand on.
        return (
            "the server's certificate is not trusted: it has expired, or is not valid yet by this"
            " device's clock, or was signed by nobody known here (remote.tls_ca_file)"
        )
    return f"TLS: {'; '.join(reasons) or 'the connection failed'}"


def _trust_root(ca_file: Path | None) -> Any:
    """Return what to trust: the certificates of a file, or (``None``) the system's.

    :raises ConfigError: when there are none that can be read.
    """
    if ca_file is None:
        return None
    try:
        found = load_pem_x509_certificates(ca_file.read_bytes())
    except (OSError, ValueError) as error:
        reason = printable(str(error))[:_LONGEST]
        raise ConfigError(f"remote.tls_ca_file: {ca_file}: cannot be read: {reason}") from error
    return trustRootFromCertificates([Certificate(X509.from_cryptography(one)) for one in found])
