"""Access control: no foreign web page, and with a password file only users with a password."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from twisted.logger import Logger, LogLevel
from twisted.web import http
from twisted.web.http import HTTPChannel

from belatwist.errors import ConfigError
from belatwist.log.events import Event
from belatwist.log.throttle import FailureLog
from belatwist.web.site import BoundedRequest

LOGINS_UNUSABLE = Event(
    "web.logins_unusable",
    LogLevel.error,
    "Logins cannot be read, requests are refused: {error}",
    cure="Correct the file of health.basic_auth_file; no restart is needed.",
)
LOGINS_RECOVERED = Event("web.logins_recovered", LogLevel.info, "Logins can be read again")

# Host, in brackets if it is of IPv6, and port: RFC 9110, section 7.2.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]{0,5})?")


class Refusal(NamedTuple):
    """The reason for refusing a request.

    :ivar status: the HTTP status.
    :ivar challenge: whether a password would help.
    """

    status: int
    reason: str
    challenge: bool = False


class Access:
    """Decides which requests are answered.

    :param names: the address that the site listens on, and further names of the device, in lower
        case.
    :param open_path: the path that needs no password.
    :param logins: reads the logins, ``user:password`` each; ``None`` when no request needs one.
    :param seconds: a monotonic clock.
    :param hostname: returns this machine's name.
    """

    _log = Logger()

    def __init__(
        self,
        names: Collection[str],
        open_path: bytes,
        logins: Callable[[], Sequence[str]] | None,
        *,
        seconds: Callable[[], float],
        hostname: Callable[[], str] = socket.gethostname,
    ) -> None:
        self._names = names
        self._open_path = open_path
        self._logins = logins
        self._hostname = hostname
        self._failures = FailureLog(self._log, seconds)

    def refusal(self, path: bytes, host: str | None, authorization: str | None) -> Refusal | None:
        """Return the reason for refusing a request; ``None`` if it may be answered.

        :param path: as the client sent it.
        :param host: the header ``Host``; every browser sends it.
        :param authorization: the header of that name (RFC 7617).
        """
        if host is not None and not self._is_ours(host):
            reason = (
                "this host name is not known to be this machine's: use its address or its own name,"
                " or add it to health.allowed_hosts"
            )
            return Refusal(http.FORBIDDEN, reason)
        if self._logins is None or path == self._open_path:
            return None
        try:
            logins = self._logins()
        except ConfigError as error:
            self._failures.failed(LOGINS_UNUSABLE, str(error), error=str(error))
            return Refusal(http.SERVICE_UNAVAILABLE, "no password can be checked; see the log")
        self._failures.recovered(LOGINS_RECOVERED)
        if _is_among(logins, authorization or ""):
            return None
        return Refusal(http.UNAUTHORIZED, "user and password are needed", challenge=True)

    def _is_ours(self, host: str) -> bool:
        """Return whether a name can only mean this machine.

        A foreign page may let a name of its own point to this machine, and a browser would then
        take both for one origin ("DNS rebinding"). A page cannot do that with an address, nor with
        a name of the local network.
        """
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        if found[1] is not None:
            return _is_address(found[1])
        name = found[2].lower().removesuffix(".")
        if name == "localhost" or name in self._names or _is_address(name):
            return True
        own = self._hostname().lower()
        # A host name may be a whole domain name; mDNS announces its first part.
        short = own.partition(".")[0]
        return name in (own, f"{own}.local", short, f"{short}.local")


class GuardedRequest(BoundedRequest):
    """A request that the access rules may refuse."""

    def __init__(self, access: Access, channel: HTTPChannel, queued: object = None) -> None:
        super().__init__(channel, queued)
        self._access = access

    def process(self) -> None:
        """Refuse the request, or answer it."""
        refusal = self._access.refusal(self.path, self._text(b"host"), self._text(b"authorization"))
        if refusal is None:
            super().process()
            return
        if refusal.challenge:
            self.setHeader(b"WWW-Authenticate", b'Basic realm="belatwist", charset="UTF-8"')
        self.finish_with(refusal.status, refusal.reason)

    def _text(self, name: bytes) -> str | None:
        """Decode a header, which may hold any bytes."""
        value = self.getHeader(name)
        return None if value is None else value.decode("utf-8", "replace")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_among(logins: Sequence[str], authorization: str) -> bool:
    """Compare with every login, in a time that does not depend on them."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        given = b""
    # Digests have the same length.
    digest = hashlib.sha256(given).digest()
    matches = [
        hmac.compare_digest(digest, hashlib.sha256(login.encode()).digest()) for login in logins
    ]
    return scheme.lower() == "basic" and any(matches)
