"""The configuration as commands need it: where things are. The files that it names are not read."""

import socket
from collections.abc import Callable
from pathlib import Path

from belatwist import config
from belatwist.cli.output import reason
from belatwist.errors import ConfigError

_MAX_BYTES = 1024 * 1024


def read(path: str | None, say: Callable[[str], None]) -> config.Config:
    """Read a configuration.

    Unlike the agent's start this does not need the token, which its owner alone can read.

    :param path: the file; ``None`` for the default one, in place of which there are defaults where
        it does not exist.
    :param say: takes a line about defaults that were taken, or about a key with a new name.
    :raises ConfigError: when the file cannot be used.
    """
    name = path or config.DEFAULT_PATH
    try:
        with Path(name).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigError(f"{name}: larger than {_MAX_BYTES} bytes")
        return config.parse(data.decode(), name, lambda warning: say(str(warning)))
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f"{name}: no such file; --config FILE names another") from None
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {reason(error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: not UTF-8") from None
    say(f"{name}: no such file, so the defaults hold (--config FILE names another)")
    return config.Config(device=config.Device(id=socket.gethostname() or "localhost"))
