"""``twistd bela``: from options to a service.

Only the two ``tap`` modules and ``cli/reactor.py`` import the reactor.
"""

import errno
import os
import sys
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted.application.service import IService
from twisted.logger import Logger, LogLevel

from belatwist import config
from belatwist.collectors.registry import SOURCES
from belatwist.errors import ConfigError
from belatwist.log.events import Event
from belatwist.log.output import LogOutput
from belatwist.runtime.process import (
    ServiceOptions,
    ServiceRoot,
    configure_process,
    exit_with,
    fail,
)

if TYPE_CHECKING:
    from belatwist.runtime.listener import Listener

_log = Logger("belatwist")

KEY_RENAMED = Event(
    "config.key_renamed",
    LogLevel.warn,
    config.RENAMED_TEXT,
    cure="Rename the key in the configuration file.",
)


class Options(ServiceOptions):
    """The options of ``twistd bela``."""

    longdesc = (
        "Collects this machine's metrics, stores every sample in SQLite and uploads them to"
        " VictoriaMetrics. The configuration file has all settings."
    )
    optParameters = (("config", "c", config.DEFAULT_PATH, "The configuration file (YAML)."),)
    optFlags = (
        (
            "with-receiver",
            None,
            "Also run the small receiver at the address of remote.url: no server is needed.",
        ),
    )


def makeService(options: Options) -> IService:
    """Read the configuration and build the agent.

    :raises SystemExit: after one line on stderr, when the configuration is invalid.
    """
    path = options["config"]
    try:
        # twistd keeps events until the log is open.
        loaded = config.load(path, SOURCES, lambda key: KEY_RENAMED.emit(_log, **key._asdict()))
        where = _receiver_address(loaded.remote.url) if options["with-receiver"] else None
        logging = loaded.logging
        output = LogOutput(
            logging.level,
            logging.format,
            logging.output,
            max_bytes=logging.max_size_mb << 20,
        )
    except ConfigError as error:
        exit_with(f"bela: {error}")
    except OSError as error:
        passes = error.errno in {errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE}
        exit_with(
            f"bela: {path}: logging.output: {logging.output}: {error.strerror}",
            permanent=not passes,
        )
    from twisted.internet import reactor

    configure_process(reactor, on_hangup=output.reopen)
    from belatwist import app
    from belatwist.clock.sources import Clocks
    from belatwist.runtime.sd_notify import Notifier

    def failed(reason: str) -> None:
        fail(reactor, reason)
        if output.lost and sys.__stderr__ is not None:
            # twistd has replaced sys.stderr by the log.
            with suppress(OSError):
                sys.__stderr__.write(f"bela: {reason}\n")

    try:
        agent = app.build(
            loaded,
            reactor=reactor,
            clocks=Clocks(),
            notifier=Notifier.from_environment(os.environ, seconds=reactor.seconds),
            failed=failed,
            listeners=[] if where is None else [_receiver(reactor, *where)],
        )
    except ConfigError as error:
        exit_with(f"bela: {path}: {error}")
    return ServiceRoot(output, agent)


def _receiver_address(url: str) -> tuple[str, int]:
    """Return the host and port of ``remote.url``, if a receiver can listen there.

    :raises ConfigError: when the URL is not plain HTTP on this machine.
    """
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or parts.scheme != "http":
        shown = url.partition("?")[0]
        raise ConfigError(
            f"remote.url: {shown}: --with-receiver listens where this points, so it must be http://"
            " on 127.0.0.1 (as in configs/config.dev.yaml)"
        )
    return host, parts.port or 80


def _receiver(reactor: Any, host: str, port: int) -> "Listener":
    from belatwist.receiver.app import Receiver, site
    from belatwist.runtime.listener import Listener

    return Listener(reactor, host, port, site(Receiver(reactor), reactor), "receiver")
