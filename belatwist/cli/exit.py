"""Ends every command with one line and an exit status, whatever goes wrong."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from belatwist.cli import output
from belatwist.cli.output import CommandError
from belatwist.errors import BelaError
from belatwist.text import escape

_UNKNOWN = 3


class BelaGroup(click.Group):
    """Ends its commands with one line, whatever goes wrong with files."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        :raises CommandError: for errors of the package and of the operating system.
        """
        try:
            return super().invoke(ctx)
        except BelaError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            _abandon_output()
            if error.errno == errno.EPIPE:
                raise
            raise CommandError(_describe(error)) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a command line.

        :raises CommandError: when stdout or stderr is closed.
        """
        name, command, rest = super().resolve_command(ctx, args)
        # The next file that is opened would get the number of the closed stream. Completion, which
        # parses resiliently, opens none.
        if (sys.stdout is None or sys.stderr is None) and not ctx.resilient_parsing:
            kind = _UnknownError if isinstance(command, NagiosCheck) else CommandError
            raise kind("stdout and stderr must be open; /dev/null will do")
        return name, command, rest


class NagiosCheck(click.Command):
    """A command that serves as a check for Nagios. Without a verdict its status is 3, UNKNOWN."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line."""
        with _unknown():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _unknown():
            return super().invoke(ctx)


class _MisuseError(click.UsageError):
    exit_code = _UNKNOWN

    def show(self, file: Any = None) -> None:
        """Print the reason, or nothing where that fails: the exit status matters more."""
        with suppress(OSError):
            super().show(file)


class _UnknownError(CommandError):
    """A check has no verdict: one line on stdout, which Nagios reads, and status 3."""

    exit_code = _UNKNOWN

    def show(self, file: object = None) -> None:
        """Print the reason on stdout; on stderr if that fails and stdout is not a closed pipe."""
        written = sys.stdout is not None
        try:
            click.echo(f"UNKNOWN - {escape(self.message)}")
        except (OSError, ValueError) as error:
            _abandon_output()
            written = isinstance(error, BrokenPipeError)
        if not written:
            with suppress(OSError):
                super().show(file)


@contextmanager
def _unknown() -> Iterator[None]:
    """Turn every exception into status 3, because 1 would mean DEGRADED."""
    try:
        yield
    except click.exceptions.Exit:
        raise
    except click.UsageError as error:
        raise _MisuseError(error.format_message(), error.ctx) from error
    except click.ClickException as error:
        raise _UnknownError(error.message) from error
    except BelaError as error:
        raise _UnknownError(str(error)) from error
    except OSError as error:
        raise _UnknownError(_describe(error)) from error
    except (click.Abort, EOFError, KeyboardInterrupt) as error:
        raise _UnknownError("interrupted") from error
    except Exception as error:
        # It is a fault of the program, and its report needs the traceback.
        sys.excepthook(type(error), error, error.__traceback__)
        raise _UnknownError(f"unexpected: {type(error).__name__}: {error}") from error


def _describe(error: OSError) -> str:
    where = error.filename or "the output cannot be written"
    return f"{where}: {output.reason(error)}"


def _abandon_output() -> None:
    """Discard what is left in stdout's buffer, because flushing it at exit would fail again."""
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path to handle
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        return  # There is no such descriptor.
