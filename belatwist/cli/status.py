"""``bela status``: asks the running service how it is, as a check of Nagios would."""

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
"""A longer answer is no health document: one is about 3 kB."""


class UnreachableError(BelaError):
    """Nothing answers there, or something else than our service."""


def address(host: str, port: int, path: str) -> str:
    """Return where a service answers that listens as configured.

    :param host: the address it listens on; for one that means all of them, this machine's.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not to listen on
    return f"http://[{host}]:{port}{path}" if ":" in host else f"http://{host}:{port}{path}"


def checked_url(url: str) -> str:
    """Check a URL from the command line; without a path it gets the usual one.

    :raises ValueError: when it cannot be used; the text says why.
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
    """Fetch a health document, in bounded time and room.

    :param timeout: seconds for all of it, the name's look-up included.
    :param login: ``user:password``, if one is asked for.
    :return: the answer as it came, and as an object whose ``status`` is one of :data:`STATUS`.
    :raises UnreachableError: when there is none.
    """
    # A look-up cannot be interrupted, and a trickle of bytes renews the time of a socket.
    (answer,) = run_all([partial(_get, url, timeout, login)], timeout)
    if isinstance(answer, TimeoutError):
        raise UnreachableError(
            f"{url}: no answer within {timeout:g} s: the service hangs, or is not reached"
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
            f"{url}: what answers there does not speak HTTP ({type(answer).__name__}):"
            " is it another program's port?"
        )
    if isinstance(answer, Exception):
        raise answer
    code, body = answer
    document = decode(body)
    if document is None and code == http.client.UNAUTHORIZED:
        raise UnreachableError(
            f"{url}: a password is asked for: name the configuration (--config), whose"
            " health.basic_auth_file must be readable by you"
        )
    if document is None:
        raise UnreachableError(
            f"{url}: the answer (HTTP {code}) is no health document: is it another program's port,"
            " or another health.path?"
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
    """Decode a health document; ``None`` when it is not one.

    Many programs say ``{"status": "ok"}`` of themselves; ours always gives its reasons besides.
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
