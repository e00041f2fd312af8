"""Says in a line why a request has failed, without the secrets that were sent with it."""

from collections.abc import Iterable
from urllib.parse import unquote_plus, urlsplit

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.python.failure import Failure

from belatwist.errors import BelaError
from belatwist.text import one_line

_LONGEST = 300
_SHORTEST_SECRET = 4  # A shorter text may be part of any word.


def secrets_of(url: str, *sent: str) -> list[str]:
    """List the texts that a server may repeat and a log must not have, the longest first.

    :param sent: secrets that are sent beside the URL's query.
    """
    query = urlsplit(url).query
    values = [pair.partition("=")[2] for pair in query.split("&")]
    found = {*sent, query, *values, *map(unquote_plus, values)}
    return sorted((one for one in found if len(one) >= _SHORTEST_SECRET), key=len, reverse=True)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return a text with an ellipsis for each secret in it.

    :param secrets: not empty; a secret that contains another one comes before it.
    """
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


def describe(error: BaseException, secrets: Iterable[str] = (), *, url: str = "remote.url") -> str:
    """Describe an error in one line, including those that Twisted has wrapped in it.

    :param secrets: texts that must not be in the description.
    :param url: names the URL whose host the certificate should be for.
    """
    found = root_causes(error)
    # An error of the package says why the others have followed from it.
    found = [cause for cause in found if isinstance(cause, BelaError)] or found
    causes = (_describe_one(cause, secrets, url) for cause in found)
    return "; ".join(dict.fromkeys(causes))


def root_causes(error: BaseException) -> list[BaseException]:
    """List the errors that Twisted has wrapped in one; at least the error itself."""
    # ResponseFailed has the failures as an attribute, other wrappers as their only argument.
    reasons = getattr(error, "reasons", None) or next(iter(error.args), None)
    if not isinstance(reasons, list):
        return [error]
    values = [reason.value for reason in reasons if isinstance(reason, Failure)]
    causes = [cause for value in values if value is not None for cause in root_causes(value)]
    return causes or [error]


def _describe_one(error: BaseException, secrets: Iterable[str], url: str) -> str:
    if isinstance(error, VerificationError):
        return f"the server's certificate is for another host than that of {url}"
    if isinstance(error, SSL.Error):
        return _describe_tls(error)
    text = redact(one_line(str(error)), secrets)[:_LONGEST]
    if isinstance(error, BelaError):
        return text
    text = text.rstrip(".")  # Sentences of Twisted's; a line of the log continues behind them.
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _describe_tls(error: SSL.Error) -> str:
    # The only argument lists (library, function, reason).
    details = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(detail[-1]) for detail in details]
    if "certificate verify failed" in reasons:
        # OpenSSL does not say which of these it is.
        return (
            "the server's certificate is not trusted: it has expired, or is not valid yet by this"
            " device's clock, or is signed by an unknown authority (remote.tls_ca_file)"
        )
    return f"TLS: {'; '.join(reasons) or 'the connection failed'}"
