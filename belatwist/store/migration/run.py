"""Runs a migration from one end to the other, and says how far it is."""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger

from belatwist.store.migration import steps
from belatwist.store.sql import schema

PROGRESS_EVERY = 3.0
"""Seconds between two lines about a long migration."""

_log = Logger()


async def migrate_fully(
    take: Callable[[Callable[[Any], bool]], Awaitable[bool]],
    say: Callable[[str], None],
    now_ms: int,
    seconds: Callable[[], float],
) -> None:
    """Bring an earlier version's database up to date, one short transaction after the other.

    :param take: takes a step, given the connection, in the database's thread.
    :param say: is told what the database is doing, in words.
    :param now_ms: Unix time in milliseconds.
    :param seconds: a monotonic clock.
    """
    migration = steps.Migration(now_ms)
    began, told = seconds(), -PROGRESS_EVERY
    say("is being migrated")
    while await take(migration.step):
        percent = 100 * migration.moved // max(migration.total, 1)
        say(f"is being migrated from version {migration.version}, {percent} %")
        passed = seconds() - began
        if passed - told >= PROGRESS_EVERY:
            told = passed
            _log.info(
                "migrating the database from version {version}: {moved:,} of {total:,} rows",
                version=migration.version,
                moved=migration.moved,
                total=migration.total,
            )
    result = migration.result
    _log.info(
        "migrated the database from version {version} to {to}: {total:,} rows,"
        " {duplicates:,} of them duplicates, in {seconds:.1f} s",
        version=migration.version,
        to=schema.VERSION,
        total=migration.total,
        duplicates=result.duplicates,
        seconds=seconds() - began,
    )
    if result.leftovers:
        _log.warn(
            "{count:,} rows cannot be samples and are kept in the table migration_leftovers:"
            " {reasons}",
            count=sum(result.leftovers.values()),
            reasons="; ".join(f"{n:,} because {why}" for why, n in result.leftovers.items()),
        )
    if result.unshrunk:
        _log.warn(
            "the database's file is not made smaller, its free pages are used again: {why}",
            why=result.unshrunk,
        )
