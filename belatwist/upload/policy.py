"""What an answer means and how long to wait: pure functions, no HTTP library, no clock."""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import ClassVar

MAX_RETRY_AFTER = 3600.0
"""Seconds. No server makes the agent wait longer than this."""

HTTP_STATUS = "HTTPStatus"
"""The type of an error that a server has told, with a status."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has taken the whole body (2xx)."""

    status: int
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """The body is bad (400, 422) or too large (413): sending it again as it is will not help."""

    error_type: ClassVar[str] = HTTP_STATUS

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """It may work later: connection errors, time-outs, 408, 429, 5xx, an answer cut short.

    :ivar status: the HTTP status, ``None`` when there was none.
    :ivar after: seconds that the server asks to wait at the least (``Retry-After``), else 0.
    :ivar error_type: the name of the error's class, where no status was the error.
    """

    reason: str
    status: int | None = None
    after: float = 0.0
    error_type: str = HTTP_STATUS


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The configuration is wrong (401, 403, 404, a redirect): no sample is at fault."""

    error_type: ClassVar[str] = HTTP_STATUS

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class OnHold:
    """Nothing was sent, because something here speaks against it."""

    error_type: ClassVar[str] = "OnHold"
    status: ClassVar[None] = None

    reason: str


SendResult = Accepted | Rejected | Retry | Misconfigured
"""What a request has come to."""

NotAccepted = Rejected | Retry | Misconfigured | OnHold
"""What can keep samples here."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to try, and how long to wait between two tries.

    :ivar attempts: tries of one body, the first included.
    :ivar initial: seconds after the first try.
    :ivar maximum: seconds; the longest wait, before the jitter.
    :ivar multiplier: each wait is this many times the one before.
    :ivar jitter: the part of a wait by which it varies, up and down; 0.2 is ±20 %.
    """

    attempts: int
    initial: float
    maximum: float
    multiplier: float
    jitter: float

    def wait(self, attempt: int, *, asked: float, random: float) -> float:
        """Return how long to wait after a try that failed.

        :param attempt: which one it was, from 1.
        :param asked: seconds that the server asks for at the least.
        :param random: from 0 to 1, uniformly; many devices that lost the same server must not come
            back at the same moment.
        :return: seconds.
        """
        # The exponent is bounded: a float has no room for the power of a large one.
        growth = self.multiplier ** min(attempt - 1, 50)
        wait = min(self.initial * growth, self.maximum)
        return max(wait * (1 + self.jitter * (2 * random - 1)), asked)


def classify(
    status: int,
    *,
    retry_after: str | None,
    excerpt: str,
    received_bytes: int,
    now: float,
    web_page: bool = False,
) -> SendResult:
    """Say what an HTTP answer means.

    :param status: its status code.
    :param retry_after: its ``Retry-After`` header.
    :param excerpt: the beginning of its body, for the log.
    :param received_bytes: its body's length.
    :param now: Unix time in seconds, to read a ``Retry-After`` that is a date.
    :param web_page: whether the answer is one. An import endpoint has none, but the captive portal
        of a modem or a hotel, which answers 200 to everything.
    """
    reason = f"HTTP {status}" + (f": {excerpt}" if excerpt else "")
    if 200 <= status < 300 and web_page:
        return Retry(f"a web page was the answer, of a captive portal perhaps: {reason}", status)
    if 200 <= status < 300:
        return Accepted(status, received_bytes)
    if status in {400, 413, 422}:
        return Rejected(status, reason)
    if status in {408, 429} or status >= 500:
        return Retry(reason, status, parse_retry_after(retry_after, now))
    return Misconfigured(status, reason)


def advice(failure: NotAccepted) -> str | None:
    """Say what to check in the configuration when a server does not take samples.

    :param failure: a refusal is taken for one of everything that is sent.
    :return: ``None`` where the configuration is not to blame.
    """
    if isinstance(failure, Retry | OnHold):
        return None
    if failure.status in {401, 403}:
        return "remote.auth_token_file: the server wants another token"
    if failure.status < 400:
        return "remote.url: the server redirects to another one, which is not followed"
    if isinstance(failure, Rejected):
        # Debian's vmauth answers a wrong token with 400.
        return "remote.url and remote.auth_token_file: the server refuses whatever is sent there"
    return "remote.url: the server does not take samples there"


def parse_retry_after(header: str | None, now: float) -> float:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3): seconds or an HTTP date.

    :param now: Unix time in seconds.
    :return: seconds from now, 0 to :data:`MAX_RETRY_AFTER`; 0 when absent, past or unreadable.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        # float() takes any number of digits, where int() refuses very many.
        return min(float(text), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(moment.timestamp() - now, 0.0), MAX_RETRY_AFTER)
