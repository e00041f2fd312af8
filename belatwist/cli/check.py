"""``bela check``: would the agent start with this configuration? Nothing is written or created."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from belatwist import config
from belatwist.cli.output import CommandError, notify, table
from belatwist.config import format_duration
from belatwist.errors import ConfigError
from belatwist.text import one_line


def check(path: str) -> list[str]:
    """Judge a configuration as the agent does when it starts; its warnings go to stderr.

    :return: a summary in lines.
    :raises CommandError: with the line that the agent would end with.
    """
    try:
        loaded = config.load(path, lambda warning: notify(str(warning)))
    except ConfigError as error:
        raise CommandError(str(error)) from None
    logging, remote = loaded.logging, loaded.remote
    try:
        _check_log(logging.output)
        if remote.tls_ca_file is not None:
            _check_certificates(remote.tls_ca_file)
    except ConfigError as error:
        raise CommandError(f"{path}: {error}") from None
    except OSError as error:
        raise CommandError(f"{path}: logging.output: {logging.output}: {error.strerror}") from None
    return [f"{path}: ok", *table([(f"  {what}", how) for what, how in _summary(loaded)])]


def _check_log(output: str) -> None:
    """Find out whether a log file could be appended to, without opening it.

    :raises OSError: as opening it would.
    """
    if output in {"stdout", "stderr"}:
        return
    path = Path(output)
    number = 0
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, which a log is not written through")
    if path.is_dir():
        number = errno.EISDIR
    elif path.exists():
        number = _denied(path, os.W_OK)
    elif not path.parent.exists():
        number = errno.ENOENT
    elif not path.parent.is_dir():
        number = errno.ENOTDIR
    else:
        number = _denied(path.parent, os.W_OK | os.X_OK)
    if number:
        raise OSError(number, os.strerror(number))


def _denied(path: Path, mode: int) -> int:
    if os.access(path, mode, effective_ids=True):
        return 0
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    return errno.EROFS if read_only else errno.EACCES


def _check_certificates(path: str) -> None:
    """Read certificates with the library that the agent reads them with."""
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - 40 ms, seldom needed

    try:
        load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        reason = one_line(str(error), 300)
        raise ConfigError(f"remote.tls_ca_file: {path}: cannot be read: {reason}") from None


def _summary(loaded: config.Config) -> Iterator[tuple[str, str]]:
    yield "device", loaded.device.id
    remote = loaded.remote
    url = remote.url.partition("?")[0]
    if not remote.enabled:
        yield "uploads", "off: samples are kept, and not sent (remote.enabled)"
    else:
        token = ", with a token" if remote.auth_token_file else ""
        yield "uploads", f"to {url} every {format_duration(remote.upload_interval)}{token}"
        if remote.auth_token_file and urlsplit(url).scheme == "http":
            yield "", "the token is sent unencrypted: use https"
    running = [
        f"{metric.name} {format_duration(metric.interval)}"
        for metric in loaded.metrics
        if metric.enabled
    ]
    yield "collectors", ", ".join(running) or "none"
    health = loaded.health
    host = f"[{health.host}]" if ":" in health.host else health.host
    yield "health", f"http://{host}:{health.port}{health.path}" if health.enabled else "off"
    there = "" if Path(loaded.storage.path).exists() else " (not there yet: it will be made)"
    yield "database", f"{loaded.storage.path}{there}"
    yield "log", f"{loaded.logging.output}, {loaded.logging.format}, {loaded.logging.level}"
