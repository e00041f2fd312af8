"""What a service of ours does with the process it is in: clock, signals, exit status, log."""

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
    """Options of a twistd service: one line for a mistake, and our version instead of Twisted's."""

    def opt_version(self) -> None:
        """Print belatwist's version and exit."""
        sys.stdout.write(f"belatwist {__version__}\n")
        raise SystemExit(0)

    def parseArgs(self, *arguments: str) -> None:
        """Refuse arguments: everything is an option."""
        if arguments:
            raise usage.UsageError(f"no arguments are taken, {arguments[0]!r} is one")

    def parseOptions(self, options: Any = None) -> None:
        """Parse the command line; a mistake in it is one line on stderr, and exit status 1."""
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            raise SystemExit(f"{error} (--help explains the options)") from error


class ServiceRoot(MultiService):
    """The root of a service tree, which brings the log observer along.

    :param observer: twistd logs through it, from its first line on.
    """

    def __init__(self, observer: ILogObserver, *services: Service) -> None:
        super().__init__()
        self._observer = observer
        for service in services:
            service.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """Attach to the application, and set its log observer; the standard library's log too."""
        parent.setComponent(ILogObserver, self._observer)
        logging.basicConfig(handlers=[StdlibHandler()])
        super().setServiceParent(parent)


def exit_with(reason: str, *, permanent: bool = True) -> NoReturn:
    """End before anything has begun: one line on stderr.

    :param permanent: whether trying again would come to the same. Then the exit status is 78
        (``EX_CONFIG`` of sysexits.h), which tells a supervisor so; otherwise 1.
    """
    sys.stderr.write(f"{reason}\n")
    raise SystemExit(os.EX_CONFIG if permanent else 1)


def configure_process(reactor: Any, *, on_hangup: Callable[[], None]) -> None:
    """Make the reactor's timers monotonic, and signals do what they should.

    SIGINT and SIGTERM end the process in order, with exit status 0.

    Twisted schedules on the wall clock: when it is set back by two hours, every timer stops for
    two hours. Must come before anything is scheduled.

    :param on_hangup: called on SIGHUP, whose default would end the process.
    """
    reactor.seconds = time.monotonic
    _dump_stacks_on_abort()
    # What the service writes is for its user and group: the database, its lock, the log.
    os.umask(0o027)

    def hangup(_number: int, _frame: object) -> None:
        reactor.callFromThread(_hangup, on_hangup)

    # At once: logrotate does not wait for a start to be over.
    signal.signal(signal.SIGHUP, hangup)
    # After Twisted's own handlers, which would have the process die of the signal.
    reactor.callWhenRunning(_handle_signals, reactor)
    reactor.callWhenRunning(_freeze_gc)


def _dump_stacks_on_abort() -> None:
    """Have SIGABRT, with which systemd's watchdog ends a process that hangs, tell where it hung.

    The main thread's stack comes from the signal's handler itself, whatever that thread is in;
    those of all threads follow as soon as the interpreter gives the main thread its turn. To walk
    through them at once, as faulthandler does by itself, crashes when another thread happens to
    run.
    """
    if (stream := sys.__stderr__) is None:
        return

    def abort(_number: int, _frame: object) -> None:
        faulthandler.dump_traceback(stream)
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGABRT)

    # What PYTHONFAULTHANDLER has set up would be left in place otherwise.
    faulthandler.disable()
    signal.signal(signal.SIGABRT, abort)
    faulthandler.enable(stream, all_threads=False)


def _freeze_gc() -> None:
    """Take what is there by now, which stays, out of the garbage collector's rounds.

    A full round over it holds the whole process up for about 16 ms on a fast machine, and comes
    every few ticks. The second one, over nothing, has the garbage collector forget how much there
    was: CPython 3.11 puts the next full round off until a quarter of that has come anew, so that
    garbage would gather until then.
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
