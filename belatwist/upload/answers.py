"""Decides what an HTTP answer of the import endpoint means, and says in words what came."""

import re
from dataclasses import dataclass

from belatwist.upload.policy import (
    Accepted,
    Misconfigured,
    Rejected,
    Retryable,
    SendResult,
    parse_retry_after,
)

_STORED = 204
"""The status with which VictoriaMetrics accepts samples. It comes without a body."""

_PAGE = re.compile(r"<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_BASIC = re.compile(r"(?:^|,)\s*basic\b", re.IGNORECASE)
_BEARER = re.compile(r"(?:^|,)\s*bearer\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, of which each text is safe to show.

    :ivar received_bytes: the length of its body.
    :ivar excerpt: the beginning of its body, on one line.
    :ivar kind: its media type, without parameters; empty when it has none.
    :ivar location: where it redirects; empty for nowhere.
    :ivar retry_after: its ``Retry-After``.
    :ivar challenges: what it wants to be sent (``WWW-Authenticate``).
    :ivar token_sent: whether the request had a bearer token.
    """

    status: int
    received_bytes: int = 0
    excerpt: str = ""
    kind: str = ""
    location: str = ""
    retry_after: str | None = None
    challenges: str = ""
    token_sent: bool = True


def classify(answer: HttpAnswer, now: float) -> SendResult:
    """Classify an answer.

    :param now: Unix time in seconds, to read a ``Retry-After`` that is a date.
    """
    status = answer.status
    reason = f"HTTP {status}" + (f": {answer.excerpt}" if answer.excerpt else "")
    if status == _STORED:
        return Accepted(status, answer.received_bytes)
    if 200 <= status < 300:
        return Retryable(_not_stored(answer, reason), status)
    if status in {400, 413, 422}:
        return Rejected(status, reason)
    if status in {408, 429} or status >= 500:
        return Retryable(reason, status, parse_retry_after(answer.retry_after, now))
    if 300 <= status < 400 and answer.location:
        reason = f"HTTP {status}: a redirect to {answer.location}"
    return Misconfigured(status, reason, _check_login(answer) if status == 401 else None)


def is_page(kind: str, start: str) -> bool:
    """Return whether an answer is a web page, by its media type or by its beginning.

    The captive portal of a modem or a hotel answers with one to everything.
    """
    return kind in {"text/html", "application/xhtml+xml"} or bool(_PAGE.search(start))


def _not_stored(answer: HttpAnswer, reason: str) -> str:
    """Say what answered 2xx, and did not say that it has the samples."""
    if is_page(answer.kind, answer.excerpt):
        return f"a web page answered, perhaps of a captive portal: {reason}"
    what = "a body without a type"
    if not answer.received_bytes:
        what = "an empty body"
    elif answer.kind:
        what = f"a body of {answer.kind}"
    came = f"HTTP {answer.status} with {what} is not VictoriaMetrics' answer, which is 204"
    return came + (f": {answer.excerpt}" if answer.excerpt else "")


def _check_login(answer: HttpAnswer) -> str | None:
    """Return what to check when a server wants another login than a bearer token."""
    basic, bearer = _BASIC.search(answer.challenges), _BEARER.search(answer.challenges)
    if not basic or bearer:
        return None if answer.token_sent else "remote.auth_token_file: the server wants a token"
    if answer.token_sent:
        return (
            "remote.url: the server wants a user name and a password, not a bearer token; it is"
            " probably another server, or a proxy in between"
        )
    return (
        "remote.auth_token_file and remote.url: the server wants a token, as vmauth does, or a user"
        " name and a password, as another server or a proxy in between may"
    )
