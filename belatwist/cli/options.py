"""Kinds of option values, and the options that commands share."""
# ruff: noqa: PLC0415 - what a command does not use, it does not wait for

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
"""The agent's; spelled out, because importing the configuration takes a while."""


class Url(click.ParamType[str]):
    """Where a service answers."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        from belatwist.cli.status import checked_url

        try:
            return checked_url(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


class Moment(click.ParamType[int]):
    """A time as Unix milliseconds: so long ago, or RFC 3339."""

    name = "when"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read it; what was read already stays as it is."""
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
    """A length of time within bounds, which "nan" is not: no comparison shows that."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


config = click.option(
    "--config", "-c", metavar="FILE", help=f"The configuration.  [default: {DEFAULT_PATH}]"
)
metric = click.option(
    "--metric", "-m", metavar="PATTERN", help="Only metrics so named, such as 'network.*'."
)


def database(command: F) -> F:
    """Add the options that name a database."""
    option = click.option(
        "--database", "-d", metavar="FILE", help="A database, instead of a configuration's."
    )
    return config(option(command))


def find(path: str | None, database_path: str | None) -> "DatabaseReader":
    """Return the database that is meant.

    :param path: of the configuration, as given.
    :param database_path: of the database, as given.
    :raises ConfigError: when the configuration cannot be used.
    """
    from belatwist.cli.database import DatabaseReader

    if path is not None and database_path is not None:
        raise click.UsageError("--config and --database exclude each other")
    if database_path is not None:
        return DatabaseReader(Path(database_path))
    from belatwist.cli import load_config

    return DatabaseReader(Path(load_config.read(path, output.notify).storage.path))
