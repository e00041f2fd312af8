"""The meaning of an answer, and the length of a wait."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from belatwist.upload.policy import (
    MAX_RETRY_AFTER,
    Accepted,
    Misconfigured,
    NotAccepted,
    OnHold,
    Rejected,
    Retryable,
    SendResult,
    advice,
    classify,
    parse_retry_after,
)

MOMENT = 784111777.0
"""1994-11-06 08:49:37 UTC, the example of RFC 9110, section 5.6.7."""


def classified(status: int, retry_after: str | None = None, excerpt: str = "") -> SendResult:
    """Classify an answer of 7 bytes."""
    return classify(status, retry_after=retry_after, excerpt=excerpt, received_bytes=7, now=MOMENT)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
def test_accepted(status: int) -> None:
    """Every 2xx says that the server has the body."""
    assert classified(status, "9", "text") == Accepted(status, 7)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_rejected(status: int) -> None:
    """400 and 422 say that the body is bad, 413 that it is too large."""
    assert classified(status, "9") == Rejected(status, f"HTTP {status}")


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 507, 599])
def test_retry(status: int) -> None:
    """A server that is slow, busy or broken may take it later, when it says so at the earliest."""
    assert classified(status) == Retryable(f"HTTP {status}", status, 0.0)
    assert classified(status, "9") == Retryable(f"HTTP {status}", status, 9.0)


@pytest.mark.parametrize(
    "status",
    [*range(300, 309), *range(401, 408), 409, 410, 411, 415, 417, 421, 426, 431, 451, 499],
)
def test_misconfigured(status: int) -> None:
    """A redirect or another 4xx says that the configuration is wrong, never a sample."""
    assert classified(status, "9") == Misconfigured(status, f"HTTP {status}")


def test_the_reason_quotes_the_answer() -> None:
    """The server's words are part of the reason."""
    assert classified(422, excerpt="bad line") == Rejected(422, "HTTP 422: bad line")
    assert classified(404, excerpt="nothing here") == Misconfigured(404, "HTTP 404: nothing here")
    assert classified(503, excerpt="read-only") == Retryable("HTTP 503: read-only", 503, 0.0)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Misconfigured(401, ""), "remote.auth_token_file"),
        (Misconfigured(403, ""), "remote.auth_token_file"),
        (Misconfigured(404, ""), "remote.url: the server does not take samples there"),
        (Misconfigured(415, ""), "remote.url: the server does not take samples there"),
        (Misconfigured(301, ""), "remote.url: the server redirects"),
        (Rejected(400, ""), "remote.url and remote.auth_token_file: the server refuses"),
    ],
)
def test_advice(failure: NotAccepted, words: str) -> None:
    """Where the configuration is to blame, it is said which key."""
    assert str(advice(failure)).startswith(words)


@pytest.mark.parametrize(
    "failure", [Retryable("reset"), Retryable("HTTP 503", 503), OnHold("the clock")]
)
def test_no_advice(failure: NotAccepted) -> None:
    """The configuration is not the cause of a failure that passes."""
    assert advice(failure) is None


@given(st.integers(100, 999), st.none() | st.text(max_size=20), st.text(max_size=20))
def test_every_status_has_an_outcome(status: int, retry_after: str | None, excerpt: str) -> None:
    """Any answer has one of four meanings, and keeps its status."""
    outcome = classified(status, retry_after, excerpt)
    assert outcome.status == status
    assert isinstance(outcome, Accepted) == (200 <= status < 300)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("   ", 0.0),
        ("0", 0.0),
        ("1", 1.0),
        ("120", 120.0),
        (" 120\t", 120.0),
        ("0" * 5000 + "12", 12.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("999999999", 3600.0),
        ("9999999999", 3600.0),
        ("9" * 5000, 3600.0),
        ("-1", 0.0),
        ("+5", 0.0),
        ("1.5", 0.0),
        ("1e3", 0.0),
        ("0x10", 0.0),
        ("5 s", 0.0),
        ("soon", 0.0),
        ("\u0661\u0662", 0.0),
        ("\uff11\uff12", 0.0),
        ("²", 0.0),
        ("\0", 0.0),
        # The three formats of RFC 9110, section 5.6.7, a minute ahead.
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60.0),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60.0),
        ("Sun Nov  6 08:50:37 1994", 60.0),
        # A day and an hour ahead; now; past.
        ("Mon, 07 Nov 1994 08:49:37 GMT", 3600.0),
        ("Sun, 06 Nov 1994 09:49:37 GMT", 3600.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        # Not RFC 9110's, but unmistakable.
        ("Sun, 06 Nov 1994 10:50:37 +0200", 60.0),
        ("Sun, 06 Nov 1994 08:50:37 -0000", 60.0),
        # Not dates.
        ("Sun, 32 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994 25:49:37 GMT", 0.0),
        ("Sun, 06 Nov 99999 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 1994", 0.0),
        ("Sun, 06 Nov 1994 08:50:37 +9999", 0.0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    """Seconds and HTTP dates are read, never more than an hour; anything else is no wish."""
    assert parse_retry_after(header, MOMENT) == seconds


def test_dates_are_utc_wherever_the_device_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The format that names no zone means UTC (RFC 9110, section 5.6.7), not the local time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC-5:30")
        time.tzset()
        assert parse_retry_after("Sun Nov  6 08:50:37 1994", MOMENT) == 60.0
        assert parse_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", MOMENT) == 60.0
    time.tzset()


_words = st.sampled_from(
    [
        *(
            "Sun",
            "Sunday,",
            "Sun,",
            "06",
            "6",
            "Nov",
            "06-Nov-94",
            "31 Feb",
            "1994",
            "94",
            "9" * 30,
        ),
        *("08:49:37", "8.49", "00:00", "GMT", "+0000", "-9999", "+99999999999", "::", ",", "-"),
        "\u0663",
    ]
)


@given(
    st.text(max_size=60) | st.lists(_words, max_size=8).map(" ".join),
    st.floats(-1e12, 1e12),
)
@example("1 Jan 0001 00:00:00 +2359", 0.0)
@example("31 Dec 9999 23:59:59 -2359", 0.0)
def test_retry_after_never_raises(header: str, now: float) -> None:
    """For any header, the wait is between nothing and an hour."""
    assert 0.0 <= parse_retry_after(header, now) <= MAX_RETRY_AFTER
