"""How commands end: in one line and an exit status, whatever goes wrong."""

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
    """A group whose commands end in one line, whatever goes wrong with files."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command.

        :raises CommandError: for what a command raises on purpose, and for errors of the system.
        """
        try:
            return super().invoke(ctx)
        except BelaError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            _abandon_output()
            if error.errno == errno.EPIPE:
                raise
            raise CommandError(_told(error)) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant.

        :raises CommandError: when a stream is missing that it needs.
        """
        name, command, rest = super().resolve_command(ctx, args)
        # Closed from the beginning; its number would go to the next file that is opened.
        # (Completion, which is what resilient parsing is for, opens none.)
        if (sys.stdout is None or sys.stderr is None) and not ctx.resilient_parsing:
            kind = _UnknownError if isinstance(command, NagiosCheck) else CommandError
            raise kind("stdout and stderr must be open (>/dev/null is)")
        return name, command, rest


class NagiosCheck(click.Command):
    """A command that is a check of Nagios: without a verdict its status is 3, UNKNOWN."""

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
        """Say why; the status matters more than whether that can be written."""
        with suppress(OSError):
            super().show(file)


class _UnknownError(CommandError):
    """A check has come to no verdict: one line on stdout, where Nagios looks, and status 3."""

    exit_code = _UNKNOWN

    def show(self, file: object = None) -> None:
        """Say why: on stderr where stdout does not take it, and not at all where nobody reads."""
        said = sys.stdout is not None
        try:
            click.echo(f"UNKNOWN - {escape(self.message)}")
        except (OSError, ValueError) as error:
            _abandon_output()
            said = isinstance(error, BrokenPipeError)
        if not said:
            with suppress(OSError):
                super().show(file)


@contextmanager
def _unknown() -> Iterator[None]:
    """Let nothing but a verdict end a check otherwise than as unknown: 1 would mean degraded."""
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
        raise _UnknownError(_told(error)) from error
    except (click.Abort, EOFError, KeyboardInterrupt) as error:
        raise _UnknownError("interrupted") from error
    except Exception as error:  # Whatever it is, it is no verdict.
        # A fault of ours: who reports it needs to know where it is.
        sys.excepthook(type(error), error, error.__traceback__)
        raise _UnknownError(f"unexpected: {type(error).__name__}: {error}") from error


def _told(error: OSError) -> str:
    where = error.filename or "the output cannot be written"
    return f"{where}: {output.reason(error)}"


def _abandon_output() -> None:
    """Let what is left in stdout's buffer go nowhere: its flush at exit would fail again."""
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path to handle
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):
        return  # There is no such descriptor.
