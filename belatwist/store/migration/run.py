"""Runs a migration from one end to the other, and reports its progress."""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event
from belatwist.store.migration import steps
from belatwist.store.sql import schema

PROGRESS_EVERY = 3.0
"""Seconds between two lines about a long migration."""

PROGRESS = Event(
    "migration.progress",
    LogLevel.info,
    "Migrating the database from version {version}: {moved:,} of {total:,} rows",
)
COMPLETED = Event(
    "migration.completed",
    LogLevel.info,
    "Migrated the database from version {version} to {to}: {total:,} rows,"
    " {duplicates:,} of them duplicates, in {seconds:.1f} s",
)
ROWS_KEPT = Event(
    "migration.rows_kept",
    LogLevel.warn,
    "{count:,} rows cannot be samples; the table migration_leftovers keeps them: {reasons}",
    cure="Drop this table when nobody needs its rows.",
)
NOT_SHRUNK = Event(
    "migration.not_shrunk",
    LogLevel.warn,
    "Database file could not be made smaller, its free pages are used again: {reason}",
    cure="Nothing is to be done: the file grows no further before its free pages are used.",
)

_log = Logger()


async def migrate_fully(
    run_step: Callable[[Callable[[Any], bool]], Awaitable[bool]],
    report: Callable[[str], None],
    now_ms: int,
    seconds: Callable[[], float],
) -> None:
    """Bring an earlier version's database up to date, one short transaction after the other.

    :param run_step: runs a step, given the connection, in the database's thread.
    :param report: called with what the database is doing, in words.
    :param now_ms: Unix time in milliseconds.
    :param seconds: a monotonic clock.
    """
    migration = steps.Migration(now_ms)
    began, logged = seconds(), -PROGRESS_EVERY
    report("is being migrated")
    while await run_step(migration.step):
        percent = 100 * migration.moved // max(migration.total, 1)
        report(f"is being migrated from version {migration.version}, {percent} %")
        passed = seconds() - began
        if passed - logged >= PROGRESS_EVERY:
            logged = passed
            PROGRESS.emit(
                _log, version=migration.version, moved=migration.moved, total=migration.total
            )
    result = migration.result
    COMPLETED.emit(
        _log,
        version=migration.version,
        to=schema.VERSION,
        total=migration.total,
        duplicates=result.duplicates,
        seconds=round(seconds() - began, 3),
    )
    if result.leftovers:
        ROWS_KEPT.emit(
            _log,
            count=sum(result.leftovers.values()),
            reasons="; ".join(f"{n:,} because {why}" for why, n in result.leftovers.items()),
        )
    if result.unshrunk:
        NOT_SHRUNK.emit(_log, reason=result.unshrunk)
