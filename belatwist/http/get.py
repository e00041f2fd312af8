"""A GET request within bounds, for sources: time, size, one connection, nothing followed or kept.

The request may go to a modem, a camera, or whatever else is at the address. There are no cookies,
no redirects and no packed answers.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error as errors
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from belatwist.errors import AbsentError, BelaError, HiddenError, HttpError
from belatwist.http.bound import is_name
from belatwist.http.connection import SingleConnection
from belatwist.http.failures import describe, redact, root_causes, secrets_of
from belatwist.http.response import BoundedBody, header
from belatwist.http.trust import trust_root
from belatwist.text import escape, one_line, shorten

TIMEOUT = 4.0
"""Seconds for a whole request: less than a collector has, so that the error names the server."""

MAX_BYTES = 64 * 1024
"""Bytes that a body may have."""

CURE = (
    "Run Linux 5.7 or later, or give the unit CAP_NET_RAW: AmbientCapabilities=CAP_NET_RAW,"
    " CapabilityBoundingSet=CAP_NET_RAW and PrivateUsers=no."
)
"""What helps where the kernel does not let the agent choose the interface."""

_REDIRECTS = {301, 302, 303, 307, 308}
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


class Answer(NamedTuple):
    """A whole answer.

    :ivar status: its HTTP status, 200 to 299.
    :ivar body: as it was sent.
    """

    status: int
    body: bytes


class HttpGetter:
    """Makes GET requests, each over a connection of its own.

    :param reactor: its time must be monotonic.
    :param ca_file: PEM certificates to trust instead of the system's.
    :raises ConfigError: when no certificate can be read from it.
    """

    def __init__(self, reactor: Any, ca_file: Path | None = None) -> None:
        self._reactor = reactor
        self._tls = BrowserLikePolicyForHTTPS(trust_root(ca_file))

    async def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        limit: int = MAX_BYTES,
        interface: str | None = None,
        source: str | None = None,
    ) -> Answer:
        """Ask for a URL. Cancelling the request closes its connection.

        :param url: ``http`` or ``https``, ASCII, without a login. Errors do not show its query.
        :param headers: sent with the request. Errors do not show their values.
        :param timeout: seconds for all of it, from the look-up of the name to the last byte.
        :param limit: bytes that the body may have. A longer body is an error, because its beginning
            alone could mean something else.
        :param interface: the network interface by which the request leaves.
        :param source: the IP address from which it comes.
        :raises HttpError: when there is no answer, or none of status 200 to 299.
        :raises AbsentError: when there is no such interface.
        :raises HiddenError: when the kernel does not let the agent choose the interface.
        """
        asked = _Question(url, dict(headers or {}), limit)
        if interface is not None and not is_name(interface):
            raise AbsentError(f"there is no interface {one_line(interface, 40)}")
        connection = SingleConnection(
            self._reactor, self._tls, timeout, interface, source, body_bytes=limit
        )

        def timed_out(_result: object, seconds: float) -> NoReturn:
            raise asked.error(f"no answer within {seconds:g} s", "timeout")

        answer = Deferred.fromCoroutine(_ask(self._reactor, connection, asked))
        try:
            found = await answer.addTimeout(timeout, self._reactor, timed_out)
        except BaseException as error:
            connection.abort()
            if isinstance(error, BelaError | CancelledError) or not isinstance(error, Exception):
                raise
            raise _explained(error, asked, interface) from error
        connection.close()
        return found


@dataclass(frozen=True, slots=True)
class _Question:
    """A request, checked, and how its errors name it.

    :raises HttpError: when the URL is none that can be asked.
    """

    url: str
    headers: Mapping[str, str]
    limit: int

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            # ``port`` raises for what is no number.
            good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        plain = self.url.isascii() and self.url.isprintable() and " " not in self.url
        if not good or not plain or "@" in parts.netloc:
            raise HttpError("a URL must be http or https, in ASCII and without a login", "URL")

    @property
    def secrets(self) -> list[str]:
        """The texts that no error may have."""
        values = self.headers.values()
        return secrets_of(self.url, *values, *(word for one in values for word in one.split()))

    def error(self, text: str, code: str, status: int | None = None) -> HttpError:
        """Make an error of a text, which may have come from the server."""
        line = one_line(f"{urlsplit(self.url).netloc}: {text}")
        return HttpError(shorten(redact(line, self.secrets), 300), code, status)


async def _ask(reactor: Any, connection: SingleConnection, asked: _Question) -> Answer:
    agent = Agent.usingEndpointFactory(reactor, connection)
    headers = {"Accept-Encoding": "identity", **asked.headers}
    response = await agent.request(
        b"GET", asked.url.encode("ascii"), Headers({name: [headers[name]] for name in headers})
    )
    _check(response, asked)
    body = BoundedBody(asked.limit, kept=asked.limit)
    response.deliverBody(body)
    await body.finished
    if body.too_long:
        raise asked.error(f"the answer has more than {asked.limit:,} bytes", "too long")
    # Where the end of the connection is that of the body, it says whether the body is complete.
    if response.length is UNKNOWN_LENGTH and connection.broken is not None:
        connection.broken.raiseException()
    return Answer(response.code, body.start)


def _check(response: IResponse, asked: _Question) -> None:
    """Refuse an answer by its status or encoding.

    :raises HttpError: unless its body can be read.
    """
    code = response.code
    if code in _REDIRECTS:
        to = _redirected(header(response, b"location") or "")
        raise asked.error(f"HTTP {code}: a redirect{to}", "redirect", code)
    if not 200 <= code < 300:
        raise asked.error(f"HTTP {code}", f"HTTP {code}", code)
    encoding = header(response, b"content-encoding") or "identity"
    if encoding.strip().lower() != "identity":
        raise asked.error(f"the answer is packed ({encoding[:40]}), unasked", "packed", code)


def _redirected(location: str) -> str:
    """Say where a redirect points: its host, never its path or query."""
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return f" to {host[:100]}" if host else ""


_KINDS: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    ((errors.ConnectionRefusedError,), "the connection was refused", "refused"),
    ((errors.NoRouteError,), "there is no route", "unreachable"),
    ((errors.TimeoutError, errors.TCPTimedOutError), "nothing answers", "timeout"),
    ((errors.DNSLookupError, errors.UnknownHostError), "the name cannot be resolved", "name"),
    ((SSL.Error, VerificationError), "", "TLS"),
)
"""Errors of Twisted and OpenSSL, with a text, empty where they say more, and the code."""


def _explained(error: Exception, asked: _Question, interface: str | None) -> BelaError:
    """Turn what Twisted has raised into one of our errors."""
    cause = root_causes(error)[0]
    number = getattr(cause, "osError", None) or 0
    if isinstance(cause, errors.ConnectBindError) and interface is not None:
        name = escape(interface)
        if number == errno.ENODEV:
            return AbsentError(f"there is no interface {name}")
        if number == errno.EPERM:
            return HiddenError(f"the kernel does not let the agent choose interface {name}", CURE)
    text, code = describe(error, asked.secrets, url="the request"), type(cause).__name__
    if isinstance(cause, HttpError):
        code = cause.code
    elif number in _UNREACHABLE:
        text, code = "there is no route", "unreachable"
    elif number in errno.errorcode:
        text, code = os.strerror(number), errno.errorcode[number]
    for kinds, words, kind in _KINDS:
        if isinstance(cause, kinds):
            text, code = words or text, kind
    return asked.error(text, code)
