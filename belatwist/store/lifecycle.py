"""Opens and closes the database, and replaces it when it is damaged.

Opening creates the database, migrates it, checks it after a crash, or replaces it. Damage that
shows while the database is open has it replaced under the running session.
"""

import json
import os
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from belatwist.errors import BelaError, StartError
from belatwist.log.events import Event
from belatwist.model import Series
from belatwist.store import pool
from belatwist.store.database import Database
from belatwist.store.migration.run import migrate_fully
from belatwist.store.salvage import damage, replacement
from belatwist.store.salvage.replacement import Salvaged, Session
from belatwist.store.sql import queries, schema
from belatwist.store.sql.interrupt import StepInterruptedError

REPLACE_EVERY = 600.0
"""Seconds that must lie between two replacements of a damaged database in a run."""

START_INTERRUPTED = Event(
    "database.start_interrupted",
    LogLevel.info,
    "Startup interrupted while the database {opening}; it resumes at the next start",
)
CHECKED = Event(
    "database.checked", LogLevel.info, "Database integrity check passed in {seconds:.1f} s"
)
SESSION_CRASHED = Event(
    "session.crashed",
    LogLevel.warn,
    "Session {session_id} did not end and is marked as failed",
    cure="The process was killed, or the device lost power. If this repeats, look at the power"
    " supply and at the journal before that time.",
)
SESSION_NOT_ENDED = Event(
    "session.not_ended",
    LogLevel.error,
    "The session could not be ended: {error}",
    cure="Nothing is lost: the next start checks the database. If this repeats, look at the disk.",
)
DAMAGED = Event(
    "database.damaged",
    LogLevel.error,
    "Database {path} is damaged: {error}; a new one replaces it",
    cure="Check the card or disk: replace it if this happens again.",
)
REPLACED = Event(
    "database.replaced",
    LogLevel.warn,
    "A new database is in use; {recovered} of {indexed} pending samples were recovered;"
    " the damaged one is kept as {backup_path}",
    cure="Delete the damaged file when nobody needs it for inspection.",
)
RECOVERY_INCOMPLETE = Event(
    "database.recovery_incomplete",
    LogLevel.error,
    "The damaged database could not be read completely: {error}",
    cure="Nothing is to be done for the service. The damaged file stays, for sqlite3 .recover.",
)
REPLACEMENT_INTERRUPTED = Event(
    "database.replacement_interrupted",
    LogLevel.info,
    "Replacement of the damaged database interrupted; it resumes at the next start",
)
REPLACEMENT_FAILED = Event(
    "database.replacement_failed",
    LogLevel.error,
    "The damaged database could not be replaced: {error}",
    cure="Make room on the disk, or repair it. The agent tries again every ten minutes.",
)


class Contents(Protocol):
    """The owner of the tables, which the lifecycle informs."""

    def load(self, cursor: queries.Cursor) -> None:
        """Read the state of the tables into memory; called in the thread, as the session begins."""
        ...

    def known_series(self) -> Mapping[int, Series]:
        """Return the remembered series by their ids; called in the thread."""
        ...

    def forget(self) -> None:
        """Clear the memory of a database that was replaced; called in the thread."""
        ...

    def replaced(self, done: Salvaged, *, running: bool) -> None:
        """Take note of how many samples the new database holds; called on the reactor.

        :param running: whether a session was running.
        """
        ...


class Lifecycle:
    """Takes the database from its file to a running session, and back.

    :param contents: the owner of the tables.
    :ivar session: the running session; ``None`` when there is none.
    :ivar salvaged: the last replacement of a damaged database in this run; ``None`` for none.
    :ivar salvaged_at: when it was replaced, in seconds on the reactor's clock.
    """

    log = Logger()

    def __init__(self, database: Database, contents: Contents) -> None:
        self.session: Session | None = None
        self.salvaged: Salvaged | None = None
        self.salvaged_at: float | None = None
        self._database = database
        self._contents = contents
        self._damaged = False
        self._replacing = False
        self._tried_at: float | None = None
        database.watch_failures(self._note_failure)

    async def open(self, session_id: str, now_ms: int) -> None:
        """Open the database, make or migrate its schema, and begin the session.

        :param session_id: a UUID.
        :param now_ms: Unix time in milliseconds.
        :raises StartError: when this file cannot serve; the text says why and names it.
        """
        database = self._database
        path = database.path
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            replacement.finish_replacement(path)
            if path.exists():
                database.measure()
            try:
                crashed = await self._open(session_id, now_ms)
            except (sqlite3.Error, BelaError) as error:
                if not damage.is_damage(error):
                    raise
                await self._replace(error)
                crashed = await self._open(session_id, now_ms)
        except StepInterruptedError:
            START_INTERRUPTED.emit(self.log, opening=database.opening)
            return
        except (OSError, sqlite3.Error, BelaError) as error:
            raise StartError(f"database {path}: {error}") from error
        database.opening = None
        for one in crashed:
            SESSION_CRASHED.emit(self.log, session_id=one)

    async def close(self, now_ms: int) -> bool:
        """End the session and close the database, after everything that was begun.

        The session of a damaged database does not end, so that the next start checks the database.

        :return: whether a session was ended.
        """
        ended = False
        try:
            if self.session is not None and not self._damaged:
                await self._database.transact(queries.end_session, self.session.number, now_ms)
                ended = True
        except sqlite3.Error as error:
            SESSION_NOT_ENDED.emit(self.log, error=str(error))
        finally:
            self._database.close()
        return ended

    async def _open(self, session_id: str, now_ms: int) -> list[str]:
        database = self._database
        if await database.run(pool.make_schema) < schema.VERSION:
            await migrate_fully(database.run_step, self._say, now_ms, database.seconds)
        self._say("is being checked")
        seconds = await database.run_step(damage.check)
        if seconds is not None:
            level = LogLevel.info if seconds > 1 else LogLevel.debug
            CHECKED.emit(self.log, level=level, seconds=round(seconds, 3))
        number, crashed = await database.transact(self._begin, session_id, now_ms)
        self.session = Session(number, session_id, now_ms)
        return crashed

    def _say(self, opening: str) -> None:
        self._database.opening = opening

    def _begin(self, cursor: queries.Cursor, session_id: str, now_ms: int) -> tuple[int, list[str]]:
        metadata = json.dumps({"pid": os.getpid()})
        begun = queries.begin_session(cursor, session_id, now_ms, metadata)
        self._contents.load(cursor)
        return begun

    def _note_failure(self, error: BaseException) -> None:
        """Begin to replace the database when an error shows damage, but not too often."""
        if self.session is None or not damage.is_damage(error):
            return
        self._damaged = True
        now = self._database.seconds()
        recent = self._tried_at is not None and now - self._tried_at < REPLACE_EVERY
        if not (self._replacing or self._database.monitor.stopping or recent):
            self._tried_at = now
            self._replacing = True
            Deferred.fromCoroutine(self._replace_running(error))

    async def _replace_running(self, error: BaseException) -> None:
        """Replace the database of the running session. Calls meanwhile fail, or wait."""
        try:
            await self._replace(error)
            await self._database.transact(lambda _: None)  # So that its size is known.
        except StepInterruptedError:
            REPLACEMENT_INTERRUPTED.emit(self.log)
        except Exception as failed:  # noqa: BLE001 - the agent continues, and tries again later
            REPLACEMENT_FAILED.emit(self.log, error=str(failed))
        finally:
            self._replacing = False
            self._database.opening = None

    async def _replace(self, error: BaseException) -> None:
        self._say("is being replaced, it was damaged")
        DAMAGED.emit(self.log, path=str(self._database.path), error=str(error))
        done = await self._database.run_disconnected(self._replace_file)
        self.salvaged = done
        self.salvaged_at = self._database.seconds()
        self._damaged = False
        self._contents.replaced(done, running=self.session is not None)
        REPLACED.emit(
            self.log,
            recovered=done.recovered,
            indexed="an unknown number of" if done.indexed is None else done.indexed,
            backup_path=str(done.backup_path),
        )
        if done.stopped is not None:
            RECOVERY_INCOMPLETE.emit(self.log, error=done.stopped)

    def _replace_file(self) -> Salvaged:
        """Put a new database in the damaged one's place; called in the thread.

        The new one keeps the numbers of series and session that are in memory here.
        """
        done = replacement.replace(
            self._database.path,
            datetime.now(UTC),
            self._contents.known_series(),
            self.session,
            self._database.monitor.interrupted,
        )
        self._contents.forget()
        return done
