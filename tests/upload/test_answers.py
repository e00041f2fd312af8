"""The meaning of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from belatwist.upload.answers import HttpAnswer, classify
from belatwist.upload.policy import Accepted, Misconfigured, Rejected, Retryable, SendResult, advice

MOMENT = 784111777.0
"""1994-11-06 08:49:37 UTC, the example of RFC 9110, section 5.6.7."""

EMPTY = "HTTP {} with an empty body is not VictoriaMetrics' answer, which is 204"
PORTAL = "a web page answered, perhaps of a captive portal: HTTP {}"

BASIC = 'Basic realm="Restricted"'


def classified(status: int, retry_after: str | None = None, excerpt: str = "") -> SendResult:
    """Classify an answer of 7 bytes."""
    answer = HttpAnswer(status, received_bytes=7, excerpt=excerpt, retry_after=retry_after)
    return classify(answer, MOMENT)


@pytest.mark.parametrize("kind", ["", "text/html", "application/json"])
def test_accepted(kind: str) -> None:
    """204 says that the server has the samples, whatever a framework calls the body's type."""
    assert classify(HttpAnswer(204, kind=kind, retry_after="9"), MOMENT) == Accepted(204)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 205, 206, 299])
@pytest.mark.parametrize(
    ("kind", "excerpt", "words"),
    [
        ("", "", "HTTP {} with an empty body is not VictoriaMetrics' answer, which is 204"),
        (
            "text/plain",
            "",
            "HTTP {} with an empty body is not VictoriaMetrics' answer, which is 204",
        ),
        (
            "text/plain",
            "ok",
            "HTTP {} with a body of text/plain is not VictoriaMetrics' answer, which is 204: ok",
        ),
        (
            "application/json",
            '{"error":1}',
            "HTTP {} with a body of application/json is not VictoriaMetrics' answer, which is 204:"
            ' {{"error":1}}',
        ),
        (
            "",
            "hi",
            "HTTP {} with a body without a type is not VictoriaMetrics' answer, which is 204: hi",
        ),
        ("text/html", "", PORTAL),
        (
            "application/xhtml+xml",
            "<p>",
            PORTAL + ": <p>",
        ),
        (
            "",
            "<!DOCTYPE  HTML>login",
            PORTAL + ": <!DOCTYPE  HTML>login",
        ),
        (
            "text/plain",
            '<?xml version="1.0"?> <html>',
            PORTAL + ': <?xml version="1.0"?> <html>',
        ),
    ],
)
def test_no_other_2xx_is_an_acceptance(status: int, kind: str, excerpt: str, words: str) -> None:
    """VictoriaMetrics answers 204 alone; whatever says something else has perhaps kept nothing."""
    answer = HttpAnswer(status, received_bytes=len(excerpt), excerpt=excerpt, kind=kind)
    assert classify(answer, MOMENT) == Retryable(words.format(status), status)


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


def test_a_redirect_is_told_with_its_target() -> None:
    """It says where a proxy or a portal wants the agent to go, instead of the page's words."""
    answer = HttpAnswer(302, excerpt="moved", location="http://portal/login")
    assert classify(answer, MOMENT) == Misconfigured(
        302, "HTTP 302: a redirect to http://portal/login"
    )
    assert classified(302, excerpt="moved") == Misconfigured(302, "HTTP 302: moved")


@pytest.mark.parametrize("challenges", [BASIC, f"Digest x, {BASIC}", "basic"])
def test_a_server_that_wants_a_password(challenges: str) -> None:
    """A bearer token is not what it wants; VictoriaMetrics behind a token never says so."""
    answer = HttpAnswer(401, challenges=challenges)
    assert advice(_failed(answer)) == (
        "remote.url: the server wants a user name and a password, not a bearer token; it is"
        " probably another server, or a proxy in between"
    )


@pytest.mark.parametrize(
    "challenges", ["", 'Bearer realm="x"', f'{BASIC}, Bearer realm="x"', "Digest basic=1", "Basics"]
)
def test_a_server_that_wants_a_token(challenges: str) -> None:
    """Whether another one or any at all depends on whether one was sent."""
    key = "remote.auth_token_file: the server wants"
    answer = HttpAnswer(401, challenges=challenges)
    assert advice(_failed(answer)) == f"{key} another token"
    answer = HttpAnswer(401, challenges=challenges, token_sent=False)
    assert advice(_failed(answer)) == f"{key} a token"


def test_a_server_that_wants_either() -> None:
    """Without a token vmauth asks for a password, as a server does that knows no tokens."""
    answer = HttpAnswer(401, challenges=BASIC, token_sent=False)
    check = advice(_failed(answer))
    assert check is not None
    assert check.startswith("remote.auth_token_file and remote.url: the server wants a token")


def _failed(answer: HttpAnswer) -> Misconfigured:
    result = classify(answer, MOMENT)
    assert isinstance(result, Misconfigured)
    return result


def test_the_reason_quotes_the_answer() -> None:
    """The server's words are part of the reason."""
    assert classified(422, excerpt="bad line") == Rejected(422, "HTTP 422: bad line")
    assert classified(404, excerpt="nothing here") == Misconfigured(404, "HTTP 404: nothing here")
    assert classified(503, excerpt="read-only") == Retryable("HTTP 503: read-only", 503, 0.0)


@given(st.integers(100, 999), st.none() | st.text(max_size=20), st.text(max_size=20))
def test_every_status_has_an_outcome(status: int, retry_after: str | None, excerpt: str) -> None:
    """Any answer has one of four meanings, and keeps its status."""
    outcome = classified(status, retry_after, excerpt)
    assert outcome.status == status
    assert isinstance(outcome, Accepted) == (status == 204)
