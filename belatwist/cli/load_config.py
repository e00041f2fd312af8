"""The configuration for commands, which do not read the files that it names."""

import socket
from collections.abc import Callable
from pathlib import Path

from belatwist import config
from belatwist.cli.output import reason
from belatwist.collectors.registry import SOURCES
from belatwist.errors import ConfigError

_MAX_BYTES = 1024 * 1024


def read(path: str | None, say: Callable[[str], None]) -> config.Config:
    """Read a configuration.

    Unlike the agent at its start, a command does not need the token, which only its owner can read.

    :param path: the file. ``None`` stands for the default file, or the defaults without one.
    :param say: prints a line: the defaults are used, or a key has a new name.
    :raises ConfigError: when the file cannot be used.
    """
    name = path or config.DEFAULT_PATH
    try:
        with Path(name).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError(f"{name}: larger than {_MAX_BYTES} bytes")
        return config.parse(data.decode(), name, SOURCES, lambda warning: say(str(warning)))
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f"{name}: no such file; --config FILE names another") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {reason(error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8") from None
    say(f"{name}: no such file; using the defaults (--config FILE names another file)")
    return config.Config(
        device=config.Device(id=socket.gethostname() or "localhost"),
        metrics=config.default_entries(SOURCES),
    )
