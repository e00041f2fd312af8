"""``bela status``: asks the running service for its health, as a check for Nagios does."""

import base64
import http.client
import json
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from belatwist.cli import output
from belatwist.errors import BelaError
from belatwist.runtime.threads import run_all

OK, DEGRADED, ERROR, UNKNOWN = range(4)
"""Exit statuses: those of the Nagios plugin guidelines."""

STATUS = {"ok": OK, "degraded": DEGRADED, "error": ERROR}

MAX_BYTES = 1024 * 1024
"""Maximum size of an answer. A health document has about 3 kB."""


class UnreachableError(BelaError):
    """The service does not answer, or another program does."""


def address(host: str, port: int, path: str) -> str:
    """Return the URL of a service that listens as configured.

    :param host: the address on which it listens. For one that stands for all addresses, the URL has
        this machine's loopback address.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not to listen on
    return f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"


def checked_url(url: str) -> str:
    """Check a URL from the command line, and add the default path if it has none.

    :raises ValueError: when the URL cannot be used; the text gives the reason.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isprintable():
        raise ValueError("a URL such as http://127.0.0.1:9100/health")
    if parts.username is not None:
        raise ValueError("a URL without user and password")
    _ = parts.port  # Raises ValueError by itself when it is out of range.
    if parts.path in {"", "/"}:
        parts = parts._replace(path="/health")
    return parts.geturl()


def fetch(url: str, timeout: float, login: str | None = None) -> tuple[bytes, dict[str, Any]]:
    """Fetch a health document, in bounded time and memory.

    :param timeout: seconds for everything, including the name's look-up.
    :param login: ``user:password``, if the service requires a login.
    :return: the answer as received, and decoded. The decoded ``status`` is one of :data:`STATUS`.
    :raises UnreachableError: when there is no such document.
    """
    # A look-up cannot be interrupted, and each byte that trickles in restarts a socket's timeout.
    (answer,) = run_all([partial(_get, url, timeout, login)], timeout)
    if isinstance(answer, TimeoutError):
        raise UnreachableError(
            f"{url}: no answer within {timeout:g} s: the service hangs or is unreachable"
        )
    if isinstance(answer, ConnectionRefusedError):
        raise UnreachableError(
            f"{url}: nothing listens there: is the service running"
            " (systemctl status metrics-collector)?"
        )
    if isinstance(answer, OSError):
        raise UnreachableError(f"{url}: cannot be reached: {output.reason(answer)}")
    if isinstance(answer, http.client.HTTPException | ValueError):
        raise UnreachableError(
            f"{url}: the answer is not HTTP ({type(answer).__name__}):"
            " does the port belong to another program?"
        )
    if isinstance(answer, Exception):
        raise answer
    code, body = answer
    document = decode(body)
    if document is None and code == http.client.UNAUTHORIZED:
        raise UnreachableError(
            f"{url}: the service requires a login: name its configuration with --config, and run as"
            " a user who may read its health.basic_auth_file"
        )
    if document is None:
        raise UnreachableError(
            f"{url}: the answer (HTTP {code}) is not a health document: does the port belong to"
            " another program, or does the service have another health.path?"
        )
    return body, document


def _get(url: str, timeout: float, login: str | None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](str(parts.hostname), parts.port, timeout=timeout)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        headers = {"Accept": "application/json"}
        if login is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BYTES + 1)
    finally:
        connection.close()


def decode(body: bytes) -> dict[str, Any] | None:
    """Decode a health document; ``None`` if it is not one.

    Many programs answer ``{"status": "ok"}``. Ours always adds its reasons.
    """
    if len(body) > MAX_BYTES:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("reasons"), list):
        return None
    word = found.get("status")
    return found if isinstance(word, str) and word in STATUS else None
