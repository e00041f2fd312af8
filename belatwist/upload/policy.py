"""The results of a request, and how long to wait: pure functions, without HTTP or a clock."""

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import ClassVar

MAX_RETRY_AFTER = 3600.0
"""Seconds. The agent waits no longer, whatever a server asks for."""

HTTP_STATUS = "HTTPStatus"
"""The error type of an answer whose status says that something is wrong."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has accepted the whole body (204)."""

    status: int
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """The body is bad (400, 422) or too large (413). It would be refused again."""

    error_type: ClassVar[str] = HTTP_STATUS

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Retryable:
    """A later attempt may succeed: connection errors, timeouts, 408, 429, 5xx, a 2xx but 204.

    :ivar status: the HTTP status; ``None`` when there was no answer.
    :ivar after: seconds that the server asks for (``Retry-After``), else 0.
    :ivar error_type: the name of the error's class when there was no answer.
    """

    reason: str
    status: int | None = None
    after: float = 0.0
    error_type: str = HTTP_STATUS


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The configuration is wrong (401, 403, 404, a redirect). No sample is at fault.

    :ivar check: what to check, where the answer says more than its status.
    """

    error_type: ClassVar[str] = HTTP_STATUS

    status: int
    reason: str
    check: str | None = None


@dataclass(frozen=True, slots=True)
class OnHold:
    """Nothing was sent, for a reason on this device."""

    error_type: ClassVar[str] = "OnHold"
    status: ClassVar[None] = None

    reason: str


SendResult = Accepted | Rejected | Retryable | Misconfigured
"""The result of a request."""

NotAccepted = Rejected | Retryable | Misconfigured | OnHold
"""Everything that keeps samples pending."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often to send a body, and how long to wait between two attempts.

    :ivar attempts: for one body, including the first.
    :ivar initial: seconds after the first attempt.
    :ivar maximum: seconds; the longest wait, before the jitter.
    :ivar multiplier: each wait is this many times the wait before.
    :ivar jitter: the part of a wait by which it varies, up and down; 0.2 is ±20 %.
    """

    attempts: int
    initial: float
    maximum: float
    multiplier: float
    jitter: float

    def wait(self, attempt: int, *, asked: float, random: float) -> float:
        """Return how long to wait after an attempt that failed.

        :param attempt: its number, from 1.
        :param asked: seconds that the server asks for. The wait is at least as long.
        :param random: from 0 to 1, uniformly. Many devices that lost the same server must not come
            back at the same moment.
        :return: seconds.
        """
        # A float overflows for the power of a large exponent.
        growth = self.multiplier ** min(attempt - 1, 50)
        wait = min(self.initial * growth, self.maximum)
        return max(wait * (1 + self.jitter * (2 * random - 1)), asked)


def advice(failure: NotAccepted) -> str | None:
    """Return what to check in the configuration when a server does not accept samples.

    :param failure: a :class:`Rejected` means that the server refuses everything.
    :return: ``None`` when the configuration is not the cause.
    """
    if isinstance(failure, Retryable | OnHold):
        return None
    if isinstance(failure, Misconfigured) and failure.check is not None:
        return failure.check
    if failure.status in {401, 403}:
        return "remote.auth_token_file: the server wants another token"
    if failure.status < 400:
        return "remote.url: the server redirects to another one, which is not followed"
    if isinstance(failure, Rejected):
        # Debian's vmauth answers 400 to a wrong token.
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
