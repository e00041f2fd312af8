"""Kinds of option values, and the options that commands share."""
# ruff: noqa: PLC0415 - a command does not wait for the import of what it does not use

import math
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from belatwist.cli import output

if TYPE_CHECKING:
    from belatwist.cli.database import DatabaseReader

F = TypeVar("F", bound=Callable[..., object])

DEFAULT_PATH = "/etc/belabox-metrics/config.yaml"
"""The agent's default, repeated here because importing the configuration takes a while."""


class Url(click.ParamType[str]):
    """The address of a service."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the URL."""
        from belatwist.cli.status import checked_url

        try:
            return checked_url(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Moment(click.ParamType[int]):
    """A time as Unix milliseconds, written as a duration before now or as RFC 3339."""

    name = "when"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read a time. One that is a number was read already."""
        if isinstance(value, int):
            return value
        from belatwist.config import duration

        try:
            return round((time.time() - duration(value)) * 1000)
        except ValueError:
            pass
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            self.fail(
                f"{value!r} is neither a duration such as 90s, 2h or 168h, nor a time with its zone"
                " such as 2026-01-31T12:00:00Z or 2026-01-31T12:00:00+02:00",
                param,
                ctx,
            )
        return round(at.timestamp() * 1000)


class Seconds(click.FloatRange):
    """A number of seconds within bounds. ``FloatRange`` accepts "nan", which exceeds no bound."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a number of seconds."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


config = click.option(
    "--config", "-c", metavar="FILE", help=f"Configuration file.  [default: {DEFAULT_PATH}]"
)
metric = click.option(
    "--metric", "-m", metavar="PATTERN", help="Pattern of stored names, such as 'network.*'."
)


def database(command: F) -> F:
    """Add the options that name a database."""
    option = click.option(
        "--database", "-d", metavar="FILE", help="Database file, instead of the configured one."
    )
    return config(option(command))


def find(path: str | None, database_path: str | None) -> "DatabaseReader":
    """Return the database that the options name.

    :param path: the option ``--config``.
    :param database_path: the option ``--database``.
    :raises ConfigError: when the configuration cannot be used.
    """
    from belatwist.cli.database import DatabaseReader

    if path is not None and database_path is not None:
        raise click.UsageError("--config and --database exclude each other")
    if database_path is not None:
        return DatabaseReader(Path(database_path))
    from belatwist.cli import load_config

    return DatabaseReader(Path(load_config.read(path, output.notify).storage.path))
