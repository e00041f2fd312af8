"""Deletes samples, texts, and sessions and series without any, in small pieces.

The database's one thread serves its queue in order: a tick that is collected meanwhile waits for
one piece at most.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel

from belatwist.log.events import Event
from belatwist.metrics.telemetry import Telemetry
from belatwist.store import MIN_KEY, Key
from belatwist.store.sql import retention
from belatwist.store.sql.retention import Deleted
from belatwist.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

PAUSE = 0.05
"""Seconds between two pieces of a long work: others need the card as well."""

SETTLED, TEXTS, PENDING = "settled samples", "texts", "pending samples"

DELETED = Event(
    "retention.deleted",
    LogLevel.info,
    "Retention deleted {count:,} {kind}, stamped {first_ms} to {last_ms}: {why}",
)
PENDING_DELETED = Event(
    "retention.pending_deleted",
    LogLevel.warn,
    "Retention deleted {count:,} pending samples, stamped {first_ms} to {last_ms}: {why}",
    fields=("kind",),
    cure="The device was offline too long for storage.retention.max_size_mb. Raise this limit if"
    " the card has room.",
)
ORPHANS_DELETED = Event(
    "retention.orphans_deleted",
    LogLevel.info,
    "Retention deleted {count:,} {kind} without samples",
)

Needed = Callable[[], Awaitable[bool]]
"""Returns, before each piece, whether more is to be deleted."""


class Deleter:
    """Deletes piece by piece, and counts and logs the deleted rows.

    :param reactor: times the pauses between two pieces.
    :param delivering: whether samples are to be uploaded: deleting pending ones is then a loss.
    :param telemetry: counts the deleted rows.
    :param running: returns whether to continue.
    :ivar lost_at: when pending samples were last deleted, in seconds on the reactor's clock;
        ``None`` when none were in this run.
    """

    log = Logger()

    def __init__(
        self,
        store: SQLiteStore,
        *,
        reactor: "IReactorTime",
        delivering: bool,
        telemetry: Telemetry,
        running: Callable[[], bool],
    ) -> None:
        self.lost_at: float | None = None
        self._store = store
        self._database = store.database
        self._reactor = reactor
        self._delivering = delivering
        self._telemetry = telemetry
        self._running = running

    def pause(self) -> "Deferred[None]":
        """Wait between two pieces of a long work."""
        return deferLater(self._reactor, PAUSE)

    async def delete_settled(self, settlement: int, why: str, needed: Needed) -> bool:
        """Delete samples settled up to a settlement, and settlements that have none left.

        :return: whether all of them are deleted.
        """
        first, last_ms = await self._database.transact(retention.span, settlement)
        after = await self._delete(
            SETTLED,
            why,
            first,
            needed,
            lambda behind: self._database.transact(
                retention.delete_settled, behind, last_ms, settlement
            ),
        )
        if after is not None:
            if after != first:
                await self._database.transact(retention.note_deleted, after[0])
            return False
        while True:
            deleted = await self._database.transact(retention.delete_settlements, settlement)
            if deleted != retention.ROWS:
                return True
            await self.pause()

    async def delete_texts(self, before_ms: int, why: str, needed: Needed) -> None:
        """Delete texts stamped before a time, the oldest first."""
        await self._delete(
            TEXTS,
            why,
            MIN_KEY,
            needed,
            lambda _: self._database.transact(retention.delete_texts, before_ms),
        )

    async def delete_pending(self, why: str, needed: Needed) -> None:
        """Delete pending samples, the oldest of the lowest priority first."""
        await self._delete(PENDING, why, MIN_KEY, needed, lambda _: self._store.delete_pending())

    async def delete_orphans(self, before_ms: int) -> None:
        """Delete sessions and series without samples, when there are many.

        :param before_ms: only sessions that ended before this.
        """
        if not await self._database.transact(retention.needs_cleanup):
            return
        since = self._database.seconds()
        sessions: set[int] = set()
        series: set[int] = set()
        for table in ("samples", "texts"):
            after: Key | None = MIN_KEY
            while after is not None:
                after = await self._database.transact(
                    retention.collect_used, table, after, sessions, series
                )
                await self.pause()
                if not self._running():
                    return
        await self._delete_unused(
            "sessions",
            lambda: self._database.transact(retention.delete_sessions, sessions, before_ms),
        )
        await self._delete_unused("series", lambda: self._store.delete_series(series, since))

    async def _delete_unused(self, kind: str, step: "Callable[[], Deferred[int]]") -> None:
        count = deleted = await step()
        while deleted == retention.ROWS and self._running():
            await self.pause()
            deleted = await step()
            count += deleted
        if count:
            ORPHANS_DELETED.emit(self.log, count=count, kind=kind)

    async def _delete(
        self,
        kind: str,
        why: str,
        after: Key | None,
        needed: Needed,
        step: "Callable[[Key], Deferred[Deleted]]",
    ) -> Key | None:
        """Delete piece by piece while it is needed and there is more.

        :param after: where to begin.
        :return: where it would go on; ``None`` when nothing is left.
        """
        count, first_ms, last_ms = 0, retention.MAX_TIMESTAMP, MIN_KEY[0]
        try:
            while after is not None and self._running() and await needed():
                found = await step(after)
                after = found.after
                if found.count:
                    count += found.count
                    self._count(kind, found.count)
                    first_ms = min(first_ms, found.first_ms)
                    last_ms = max(last_ms, found.last_ms)
                await self.pause()
        finally:
            if count:
                event = PENDING_DELETED if self._is_loss(kind) else DELETED
                event.emit(
                    self.log, count=count, kind=kind, first_ms=first_ms, last_ms=last_ms, why=why
                )
        return after

    def _is_loss(self, kind: str) -> bool:
        return kind == PENDING and self._delivering

    def _count(self, kind: str, count: int) -> None:
        self._telemetry.metrics_pruned.inc(count)
        if self._is_loss(kind):
            self._telemetry.metrics_dropped.inc(count)
            self.lost_at = self._reactor.seconds()
