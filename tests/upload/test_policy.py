"""The meaning of an answer, and the length of a wait."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from belatwist.upload.policy import (
    MAX_RETRY_AFTER,
    Misconfigured,
    NotAccepted,
    OnHold,
    Rejected,
    Retryable,
    advice,
    parse_retry_after,
)

MOMENT = 784111777.0
"""1994-11-06 08:49:37 UTC, the example of RFC 9110, section 5.6.7."""


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Misconfigured(401, ""), "remote.auth_token_file"),
        (Misconfigured(403, ""), "remote.auth_token_file"),
        (Misconfigured(404, ""), "remote.url: the server does not take samples there"),
        (Misconfigured(415, ""), "remote.url: the server does not take samples there"),
        (Misconfigured(301, ""), "remote.url: the server redirects"),
        (Misconfigured(401, "", "remote.url: another"), "remote.url: another"),
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
