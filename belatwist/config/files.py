"""The files of a configuration: the configuration itself, the token, the certificates."""

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from belatwist.config.collectors import KnownSources
from belatwist.config.convert import parse
from belatwist.config.refusals import NOT_SHOWN, show
from belatwist.config.renamed import Warn, ignore
from belatwist.config.schema import Config
from belatwist.errors import ConfigError
from belatwist.text import escape

_MAX_CONFIG = 1024 * 1024
_MAX_SECRET = 4096
_MAX_CERTIFICATES = 4 * 1024 * 1024
_TOKEN = re.compile(rb"[!-~]+")
_LOGIN = re.compile(r"[^:]+:.+")


class _File(NamedTuple):
    data: bytes
    mode: int


def load(path: str | Path, known: KnownSources, warn: Warn = ignore) -> Config:
    """Read the configuration file, and check the files that it names.

    :param known: the sources that the file may name.
    :param warn: takes a warning for each key that has a new name.
    :raises ConfigError: one line with the file, the key's path, the value and the allowed values.
    """
    source = str(path)
    try:
        data = _read(source, _MAX_CONFIG).data
    except FileNotFoundError:
        what = "no such file; copy configs/config.yaml there, or name another file with --config"
        raise ConfigError(escape(f"{source}: {what}")) from None
    except (OSError, ValueError) as error:
        raise ConfigError(escape(f"{source}: {_reason(error)}")) from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(escape(f"{source}:{line}: not UTF-8")) from None
    config = parse(text, source, known, warn)
    try:
        _check_database(config.storage.path)
        if config.remote.auth_token_file is not None:
            read_token(config.remote.auth_token_file)
        if config.health.basic_auth_file is not None:
            read_logins(config.health.basic_auth_file)
        if config.remote.tls_ca_file is not None:
            _check_certificates(config.remote.tls_ca_file)
    except ConfigError as error:
        raise ConfigError(f"{escape(source)}: {error}") from None
    return config


def read_token(path: str) -> str:
    """Read the bearer token of ``remote.auth_token_file``.

    :param path: a file with one line of printable ASCII, readable only by its owner.
    :return: the token.
    :raises ConfigError: when the file cannot be used. The text starts with the key. It never holds
        the token, nor a path that could be a token in the wrong place.
    """
    lines = _read_secret("remote.auth_token_file", path)
    if not _TOKEN.fullmatch(lines):
        what = "the file must hold one line of printable ASCII without spaces"
        raise _secret_error("remote.auth_token_file", path, what)
    return lines.decode("ascii")


def read_logins(path: str) -> tuple[str, ...]:
    """Read the logins of ``health.basic_auth_file``.

    :param path: a file in UTF-8 with one ``user:password`` per line, readable only by its owner.
    :return: the lines.
    :raises ConfigError: when the file cannot be used. The text starts with the key, and holds no
        login.
    """
    data = _read_secret("health.basic_auth_file", path)
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        lines = []
    if not lines or not all(_LOGIN.fullmatch(line) and line.isprintable() for line in lines):
        what = "each line of the file must be user:password, of printable characters"
        raise _secret_error("health.basic_auth_file", path, what)
    return tuple(lines)


def _read_secret(key: str, path: str) -> bytes:
    """Read a file that only its owner may access, without the end of its last line."""
    try:
        found = _read(path, _MAX_SECRET)
    except (OSError, ValueError) as error:
        raise _secret_error(key, path, _reason(error)) from None
    # The folder of a systemd credential keeps other users out. An access list lets the service's
    # user read the file, and the mode's group bits are the mask of that list.
    credential = str(Path(path).parent) == os.environ.get("CREDENTIALS_DIRECTORY")
    if found.mode & (0o007 if credential else 0o077):
        what = f"mode {found.mode:04o}: only its owner may have access: chmod 600"
        raise _secret_error(key, path, what)
    data = found.data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise _secret_error(key, path, "the file is empty")
    return data


def _secret_error(key: str, path: str, what: str) -> ConfigError:
    # The path may be a secret that was pasted in its place. It then leads to the current folder, or
    # to a folder that does not exist.
    folder = Path(path).parent
    shown = show(path) if folder != Path.cwd() and folder.is_dir() else NOT_SHOWN
    return ConfigError(escape(f"{key}: {shown}: {what}"))


def _check_database(path: str) -> None:
    found = Path(path)
    try:
        if found.is_file() or not found.exists():
            return
        what = "not a regular file; the agent creates the database where there is no file"
    except OSError as error:
        what = _reason(error)
    raise ConfigError(escape(f"storage.path: {show(path)}: {what}"))


def _check_certificates(path: str) -> None:
    try:
        if b"-----BEGIN CERTIFICATE-----" in _read(path, _MAX_CERTIFICATES).data:
            return
        what = "the file contains no PEM certificate"
    except (OSError, ValueError) as error:
        what = _reason(error)
    raise ConfigError(escape(f"remote.tls_ca_file: {show(path)}: {what}"))


def _read(path: str, limit: int) -> _File:
    """Read a regular file of at most ``limit`` bytes, without waiting for a pipe's other end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # It holds NUL, or half a surrogate pair.
        raise ValueError("not a possible file name") from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit} bytes")
    return _File(data, stat.S_IMODE(mode))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error)
