"""What a failed request says in a line."""

from OpenSSL import SSL
from twisted.python.failure import Failure

from belatwist.http.failures import describe


def test_describe_looks_into_wrappers() -> None:
    """Twisted's lists of failures are described by their members, each once."""
    inner = Failure(ConnectionRefusedError("connection\nrefused"))
    wrapper = Exception([inner, inner])
    assert describe(wrapper) == "ConnectionRefusedError: connection refused"
    assert describe(ValueError()) == "ValueError"


def test_describe_says_tls_failures_in_words() -> None:
    """Of OpenSSL's triples of library, function and reason, the reason is described."""
    failed = SSL.Error([("SSL routines", "", "certificate verify failed")])
    assert describe(failed).startswith("the server's certificate is not trusted: ")
    other = SSL.Error([("SSL routines", "", "wrong version number")])
    assert describe(Exception([Failure(other)])) == "TLS: wrong version number"
    assert describe(SSL.Error(-1, "Unexpected EOF")) == "TLS: the connection failed"
    assert describe(SSL.Error()) == "TLS: the connection failed"
