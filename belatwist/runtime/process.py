"""Sets up the process of a service: clock, signals, exit status, log."""

import atexit
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import MultiService, Service
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python import usage

from belatwist import __version__
from belatwist.log.events import Event
from belatwist.log.output import StdlibHandler

_log = Logger("belatwist")

START_FAILED = Event(
    "process.start_failed",
    LogLevel.critical,
    "Start failed: {reason}",
    cure="The reason names what is wrong; docs/troubleshooting.md has an entry for each.",
)
STOPPING = Event("process.stopping", LogLevel.info, "Process stops: {reason}")
ALREADY_STOPPING = Event("process.already_stopping", LogLevel.info, "Process already stops")
LOG_REOPENED = Event("process.log_reopened", LogLevel.info, "SIGHUP received, log file reopened")
LOG_NOT_REOPENED = Event(
    "process.log_not_reopened",
    LogLevel.error,
    "SIGHUP received, log file cannot be reopened: {error}",
    cure="Give the service's user access to the folder of logging.output.",
)


class ServiceOptions(usage.Options):
    """Options of a twistd service, with one line for an error, and with our version."""

    def opt_version(self) -> None:
        """Print belatwist's version and exit."""
        sys.stdout.write(f"belatwist {__version__}\n")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        """Refuse arguments: a service has only options."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def parseOptions(self, options: Any = None) -> None:
        """Parse the command line; an error is one line on stderr, and exit status 1."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"{error} (--help explains the options)") from error


class ServiceRoot(MultiService):
    """The root of a service tree, which also sets the log observer.

    :param observer: writes the log, from twistd's first line on.
    """

    def __init__(self, observer: ILogObserver, *services: Service) -> None:
        super().__init__()
        self._observer = observer
        for service in services:
            service.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """Attach to the application, and set the log observer, also for the standard library."""
        parent.setComponent(ILogObserver, self._observer)
        logging.basicConfig(handlers=[StdlibHandler()])
        super().setServiceParent(parent)


def exit_with(reason: str, *, permanent: bool = True) -> NoReturn:
    """End the process before the service is built, with one line on stderr.

    :param permanent: whether another attempt would also fail. The exit status is then 78
        (``EX_CONFIG`` of sysexits.h), at which a supervisor gives up; otherwise 1.
    """
    sys.stderr.write(f"{reason}\n")
    raise SystemExit(os.EX_CONFIG if permanent else 1)


def configure_process(reactor: Any, *, on_hangup: Callable[[], None]) -> None:
    """Make the reactor's timers monotonic, and handle signals.

    Call this before anything is scheduled. Twisted schedules on the wall clock: when that is set
    back by two hours, every timer stops for two hours.

    SIGINT and SIGTERM end the process in order, with exit status 0.

    :param on_hangup: called on SIGHUP, whose default would end the process.
    """
    reactor.seconds = time.monotonic
    _dump_stacks_on_abort()
    # The database, its lock and the log are for the service's user and group.
    os.umask(0o027)

    def hangup(_number: int, _frame: object) -> None:
        reactor.callFromThread(_hangup, on_hangup)

    # At once: logrotate does not wait for a start to be over.
    signal.signal(signal.SIGHUP, hangup)
    # Later than Twisted's own handlers: with those the process would die of the signal.
    reactor.callWhenRunning(_handle_signals, reactor)
    reactor.callWhenRunning(_freeze_gc)


def _dump_stacks_on_abort() -> None:
    """Print the stacks on SIGABRT, with which systemd's watchdog ends a process that hangs.

    The C handler prints the main thread's stack at once, also when that thread hangs in C code. The
    stacks of all threads follow when the interpreter runs the Python handler. faulthandler alone
    would print them at once, and crashes if another thread runs meanwhile.
    """
    if (stream := sys.__stderr__) is None:
        return

    def abort(_number: int, _frame: object) -> None:
        faulthandler.dump_traceback(stream)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGABRT)

    # Otherwise the handler that PYTHONFAULTHANDLER has set up would stay.
    faulthandler.disable()
    signal.signal(signal.SIGABRT, abort)
    faulthandler.enable(stream, all_threads=False)


def _freeze_gc() -> None:
    """Exclude the imported modules, which stay, from garbage collection.

    A full collection over them stops the whole process for about 16 ms on a fast machine, every few
    ticks. The second collection, over nothing, resets a count: CPython 3.11 delays the next full
    one until the new objects are a quarter of those that survived the last.
    """
    gc.collect()
    gc.freeze()
    gc.collect()


def _handle_signals(reactor: Any) -> None:
    def stop(number: int, _frame: object) -> None:
        reactor.callFromThread(_stop, reactor, signal.Signals(number).name)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _hangup(on_hangup: Callable[[], None]) -> None:
    try:
        on_hangup()
    except OSError as error:
        LOG_NOT_REOPENED.emit(_log, error=str(error))
    else:
        LOG_REOPENED.emit(_log)


def _stop(reactor: Any, reason: str) -> None:
    STOPPING.emit(_log, reason=reason)
    try:
        reactor.stop()
    except ReactorNotRunning:
        ALREADY_STOPPING.emit(_log)


def fail(reactor: Any, reason: str) -> None:
    """End a start that failed: one line in the log, an orderly shutdown, exit status 1."""
    START_FAILED.emit(_log, reason=reason)
    # twistd ends with status 0 however its reactor came to stop, and takes no other.
    atexit.register(_exit_failed)
    reactor.callWhenRunning(_stop, reactor, "the start failed")


def _exit_failed() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
