"""The types of values that a configuration writes as text. One function reads and checks each.

A reader takes the value from the YAML file and returns the program's value. It raises
:exc:`ValueError`, whose text names the allowed values.
"""

import ipaddress
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from belatwist.config.endpoints import right_url
from belatwist.config.refusals import NOT_SHOWN, show
from belatwist.text import shorten

_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5, micro sign
    "μs": 10**3,  # U+03BC, Greek mu
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_MAX_NS = 2**63 - 1  # Go holds a duration in an int64
_MAX_DURATION_TEXT = 64
_MAX_PATTERN = 200
_MAX_DEVICE_ID = 128
_URL_TEXT = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")  # RFC 3986, section 2
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")
_MAX_HOST_NAME = 253
_HEALTH_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True)
class ValueType:
    """Reads a value that is written as text; part of the value's ``Annotated`` type.

    :ivar allowed: the allowed values in words, for messages and for the documentation.
    :ivar read: turns the file's value into the program's; raises :exc:`ValueError` with the allowed
        values.
    :ivar show: spells a refused value for the message.
    """

    allowed: str
    read: Callable[[object], object]
    show: Callable[[object], str] = show


def duration(text: str) -> float:
    """Read a duration in the syntax of Go's ``time.ParseDuration``, to the nanosecond.

    :param text: such as ``500ms``, ``1.5h`` or ``1h30m``; units ns, us, µs, ms, s, m, h.
    :return: seconds, more than 0.
    :raises ValueError: when the text has another syntax, or the duration is not positive or is
        longer than Go can hold.
    """
    rest = text.removeprefix("+")
    total = 0
    at = 0
    while at < len(rest) and len(rest) <= _MAX_DURATION_TEXT:
        part = _PART.match(rest, at)
        if part is None or not (part[1] or part[2]):
            break
        unit = _NS[part[3]]
        fraction = part[2] or ""
        total += int(part[1] or "0") * unit + int(fraction or "0") * unit // 10 ** len(fraction)
        at = part.end()
    if not rest or at < len(rest) or not 0 < total <= _MAX_NS:
        raise ValueError(f"not a positive duration: {text[:_MAX_DURATION_TEXT]!r}")
    return total / 10**9


def format_duration(seconds: float) -> str:
    """Write a duration as :func:`duration` reads it, in whole units, the largest first.

    :param seconds: more than 0; rounded to the nanosecond.
    """
    ns = round(seconds * 10**9)
    parts = []
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, ns = divmod(ns, _NS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def _read_duration(raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raise ValueError(f"a duration needs a unit, write {raw}s")
    text = _text(raw, _DURATION)
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError(f"a duration needs a unit, write {text}s")
    try:
        return duration(text)
    except ValueError:
        raise ValueError(_DURATION) from None


def _text(raw: object, allowed: str) -> str:
    if not isinstance(raw, str):
        raise ValueError(allowed)
    return raw


def _printable(raw: object, allowed: str) -> str:
    text = _text(raw, allowed)
    if not text or not text.isprintable() or text != text.strip():
        raise ValueError(allowed)
    return text


def _read_device_id(raw: object) -> str:
    text = _printable(raw, _DEVICE_ID)
    if len(text.encode()) > _MAX_DEVICE_ID:
        raise ValueError(_DEVICE_ID)
    return text


def _read_url(raw: object) -> str:
    text = _text(raw, _URL)
    if not _URL_TEXT.fullmatch(text):
        raise ValueError(_URL)
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
        known = ipaddress.IPv6Address(host) if "[" in parts.netloc else _HOST_NAME.fullmatch(host)
    except ValueError:
        raise ValueError(_URL) from None
    if "@" in parts.netloc:
        raise ValueError(_NO_LOGIN)
    if "#" in text:
        raise ValueError("a URL without a fragment (#)")
    if parts.scheme not in ("http", "https") or not known or port == 0:
        raise ValueError(_URL)
    return text


def _read_import_url(raw: object) -> str:
    try:
        text = _read_url(raw)
    except ValueError as error:
        if str(error) == _NO_LOGIN:
            raise ValueError(f"{_NO_LOGIN}; use remote.auth_token_file") from None
        raise
    if (right := right_url(text)) is not None:
        raise ValueError(f"this path of VictoriaMetrics takes no JSON lines; use {right}")
    return text


def _show_url(raw: object) -> str:
    """Show a URL without its query, which may be secret; nothing of it where it has a password."""
    if not isinstance(raw, str):
        return show(raw)
    if "@" in raw:
        return NOT_SHOWN
    head, mark, _ = raw.partition("?")
    return show(f"{head}?…" if mark else raw)


def _read_pattern(raw: object) -> str:
    """Check a regular expression that must match a whole name.

    A limit on its length bounds messages and compilation. Backtracking needs none: the kernel's
    names have at most 15 (interface) or 31 (disk) characters.
    """
    text = _text(raw, _PATTERN)
    if len(text) > _MAX_PATTERN:
        raise ValueError(_PATTERN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "possible nested set": its meaning may change
            re.compile(text)
    except (re.error, Warning) as error:
        reason = error.msg if isinstance(error, re.error) else str(error)
        raise ValueError(f"{_PATTERN} ({shorten(reason, 60)})") from None
    except (RecursionError, OverflowError):
        raise ValueError(f"{_PATTERN} (too complex)") from None
    return text


def _read_name_pattern(raw: object) -> str:
    text = _read_pattern(raw)
    if not text:
        raise ValueError(f"{_PATTERN}, and not empty, because no name is")
    return text


def _read_path(raw: object) -> str:
    text = _printable(raw, _PATH)
    try:
        return str(Path(text).absolute())
    except OSError:
        raise ValueError("an absolute path: the current directory is gone") from None


def _read_output(raw: object) -> str:
    text = _printable(raw, _OUTPUT)
    return text if text in ("stdout", "stderr") else _read_path(text)


def _read_host(raw: object) -> str:
    text = _text(raw, _HOST)
    if text != "localhost":
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(_HOST) from None
    return text


def _read_host_name(raw: object) -> str:
    """Read a host name in lower case and without a final dot, which make no difference."""
    text = _text(raw, _NAME).removesuffix(".").lower()
    if not _HOST_NAME.fullmatch(text) or "" in text.split(".") or len(text) > _MAX_HOST_NAME:
        raise ValueError(_NAME)
    return text


def _read_health_path(raw: object) -> str:
    text = _text(raw, _HEALTH)
    if not _HEALTH_PATH.fullmatch(text) or text == "/metrics":
        raise ValueError(_HEALTH)
    return text


_DURATION = "a duration such as 500ms, 30s or 1h30m"
_DEVICE_ID = (
    f"printable text of 1 to {_MAX_DEVICE_ID} bytes, without spaces at its ends; quote a number"
)
_URL = "a URL such as http://host:8428/path or https://host/path, port 1 to 65535"
_NO_LOGIN = "a URL without user and password"
_PATTERN = f"a regular expression for the whole name, at most {_MAX_PATTERN} characters"
_PATH = "a file path"
_OUTPUT = "stdout, stderr or a file path"
_HOST = "an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost"
_NAME = "a host name such as box.example.org, without a port"
_HEALTH = "a path such as /health, without a slash at its end, other than /metrics"

DURATION = ValueType(_DURATION, _read_duration)

Backoff = Annotated[float, DURATION, Meta(ge=0.001, le=3600)]
Seconds = Annotated[float, DURATION, Meta(ge=0.1, le=86400)]
LongSeconds = Annotated[float, DURATION, Meta(ge=1, le=87600 * 3600)]
DeviceId = Annotated[str, ValueType(_DEVICE_ID, _read_device_id)]
Url = Annotated[str, ValueType(_URL, _read_url, _show_url), Meta(max_length=2048)]
ImportUrl = Annotated[str, ValueType(_URL, _read_import_url, _show_url), Meta(max_length=2048)]
Pattern = Annotated[str, ValueType(_PATTERN, _read_pattern)]
NamePattern = Annotated[str, ValueType(_PATTERN, _read_name_pattern)]
FilePath = Annotated[str, ValueType(_PATH, _read_path), Meta(max_length=4096)]
SecretPath = Annotated[
    str, ValueType(_PATH, _read_path, lambda _: NOT_SHOWN), Meta(max_length=4096)
]
Output = Annotated[str, ValueType(_OUTPUT, _read_output), Meta(max_length=4096)]
Host = Annotated[str, ValueType(_HOST, _read_host)]
HostName = Annotated[str, ValueType(_NAME, _read_host_name)]
HealthPath = Annotated[str, ValueType(_HEALTH, _read_health_path), Meta(max_length=200)]
