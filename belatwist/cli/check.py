"""``bela check``: would the agent start with this configuration? The command writes nothing."""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from belatwist import config
from belatwist.cli import drop_ins
from belatwist.cli.output import CommandError, notify, table
from belatwist.collectors.contract import Source
from belatwist.collectors.registry import SOURCES
from belatwist.config import format_duration
from belatwist.errors import ConfigError
from belatwist.text import one_line


def check(path: str, sources: Mapping[str, Source] = SOURCES, root: Path = Path("/")) -> list[str]:
    """Check a configuration as the agent does when it starts; print warnings on stderr.

    :param sources: those that the configuration may name.
    :param root: the folder below which systemd's files are.
    :return: the lines of a summary.
    :raises CommandError: with the agent's own line when the agent would not start.
    """
    try:
        loaded = config.load(path, sources, lambda warning: notify(str(warning)))
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
    rows = [*_summary(loaded), *_drop_ins(loaded, sources, root)]
    return [f"{path}: ok", *table([(f"  {what}", how) for what, how in rows])]


def _check_log(output: str) -> None:
    """Check without opening a log file whether the agent could append to it.

    :raises OSError: the error that opening the file would raise.
    """
    if output in {"stdout", "stderr"}:
        return
    path = Path(output)
    number = 0
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link, through which the log is never written")
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
    """Read certificates with the agent's own library."""
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
        yield "uploads", "off (remote.enabled): samples are stored, not sent"
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
    there = (
        "" if Path(loaded.storage.path).exists() else " (does not exist yet; the agent creates it)"
    )
    yield "database", f"{loaded.storage.path}{there}"
    yield "log", f"{loaded.logging.output}, {loaded.logging.format}, {loaded.logging.level}"


def _drop_ins(
    loaded: config.Config, sources: Mapping[str, Source], root: Path
) -> Iterator[tuple[str, str]]:
    """Say which drop-ins of the unit the enabled collectors want; warn of those that are missing.

    A missing one stops nothing: the collector then reports that its source is hidden.
    """
    for entry in loaded.metrics:
        name = sources[entry.name].drop_in
        if not entry.enabled or name is None:
            continue
        found, example = drop_ins.find(name, root)
        yield "drop-in", f"{found or f'{name}: missing'} (for {entry.name})"
        if found is None:
            notify(
                f"collector {entry.name} wants the drop-in {name}, which {drop_ins.UNIT} does not"
                f" have: copy {example or f'systemd/{drop_ins.UNIT}.d/{name} of the sources'} to"
                f" {drop_ins.LOCAL}/, then run systemctl daemon-reload and restart the service"
            )
