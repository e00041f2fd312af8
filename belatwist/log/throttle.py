"""Decides which failures are logged: a new one at once, one that goes on rarely."""

import errno
import sqlite3
from collections.abc import Callable, Container
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from belatwist.errors import HttpError, ReadError
from belatwist.log.events import Event

REPEAT_AFTER = 600.0
"""Seconds between two lines about one kind of failure. After as long without a failure, the next
one is new."""

MAX_KINDS = 32
"""Maximum number of kinds that are distinguished. All others count as one kind."""

MAX_ITEMS = 64
"""Maximum number of items with a log of their own. All others share a log."""

_OTHER = "any other kind"
_FLIPPED = "; it failed and recovered {flips} times meanwhile"


class FailureLog:
    """Logs the failures of one thing, and its recovery.

    - A failure of a new kind is logged at once, however recently another kind was.
    - A failure that goes on is logged again every :data:`REPEAT_AFTER` seconds, with the number of
      failures.
    - A thing that keeps failing and recovering is logged once in that time, with the number of
      recoveries. Its last recovery is logged once it has lasted as long.

    All other failures and recoveries are logged at debug.

    :param log: the part's log.
    :param seconds: a monotonic clock.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float]) -> None:
        self._log = log
        self._seconds = seconds
        self._failing = False
        # Of the present failure, or of the last one:
        self._began = self._ended = 0.0
        self._failures = 0
        self._logged = self._is_new = False
        # Since the thing last worked for REPEAT_AFTER seconds:
        self._known: dict[str, float] = {}
        self._flips = 0

    @property
    def failing(self) -> bool:
        """Whether the last call recorded a failure."""
        return self._failing

    @property
    def settled(self) -> bool:
        """Whether everything is logged, and the next failure would be a new one."""
        return not self._failing and not self._known

    def failed(
        self,
        event: Event,
        kind: str = "",
        *,
        failure: Failure | None = None,
        **fields: Any,
    ) -> bool:
        """Record a failure.

        :param kind: distinguishes failures. There are few kinds, so it has no counters or times.
        :param failure: its traceback is logged, unless the failure is logged at debug.
        :return: whether the failure was logged at its level.
        """
        now = self._seconds()
        if not self._failing:
            self._begin(now)
        self._failures += 1
        if kind not in self._known and len(self._known) >= MAX_KINDS:
            kind = _OTHER
        logged_at = self._known.get(kind)
        if logged_at is not None and now - logged_at < REPEAT_AFTER:
            event.emit(self._log, level=LogLevel.debug, **fields)
            return False
        if logged_at is None or now - self._began >= REPEAT_AFTER:
            self._is_new = True
        self._known[kind] = now
        self._logged = True
        suffix = ""
        if self._flips:
            fields.update(flips=self._flips)
            suffix = _FLIPPED
        elif self._failures > 1:
            fields.update(failures=self._failures, seconds=round(now - self._began, 1))
            suffix = "; {failures} failures in {seconds:.0f} s"
        self._flips = 0
        # The specification's texts, which have no values, stay as they are.
        suffix = suffix if "{" in event.text else ""
        if failure is None:
            event.emit(self._log, suffix=suffix, **fields)
        else:
            event.failure(self._log, failure, suffix=suffix, **fields)
        return True

    def recovered(self, event: Event, **fields: Any) -> bool:
        """Record a success. Call this at each success: it costs next to nothing.

        :return: whether a recovery was logged at its level.
        """
        if self._failing:
            return self._end(event, fields)
        if not self._known or self._seconds() - self._ended < REPEAT_AFTER:
            return False
        unlogged = not (self._logged and self._is_new)
        if unlogged:
            self._log_recovery(event, fields)
        self._settle()
        return unlogged

    def _begin(self, now: float) -> None:
        if self._known and now - self._ended >= REPEAT_AFTER:
            self._settle()
        self._failing, self._began = True, now
        self._failures, self._logged, self._is_new = 0, False, False

    def _end(self, event: Event, fields: dict[str, Any]) -> bool:
        self._failing, self._ended = False, self._seconds()
        if self._logged and self._is_new:
            self._log_recovery(event, fields)
            return True
        if not self._logged:
            self._flips += 1
        event.emit(self._log, level=LogLevel.debug, **fields)
        return False

    def _log_recovery(self, event: Event, fields: dict[str, Any]) -> None:
        fields.update(failures=self._failures, seconds=round(self._ended - self._began, 1))
        suffix = ", after {seconds:.0f} s and {failures} failures"
        if self._flips:
            fields.update(flips=self._flips)
            suffix = _FLIPPED
        self._flips = 0
        event.emit(self._log, suffix=suffix if "{" in event.text else "", **fields)

    def _settle(self) -> None:
        self._known.clear()
        self._flips = 0


class ItemFailureLog:
    """Logs the failures of the items of a group (zones, interfaces, disks).

    Each item has a :class:`FailureLog` of its own, from its first failure until it has worked or
    been away for :data:`REPEAT_AFTER` seconds.

    :param log: the part's log.
    :param seconds: a monotonic clock.
    :param field: the field of the events that holds an item's name.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float], field: str) -> None:
        self._log = log
        self._seconds = seconds
        self._field = field
        self._items: dict[str, FailureLog] = {}
        self._others = FailureLog(log, seconds)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be logged of any item."""
        return not self._items

    def failed(self, item: str, event: Event, kind: str = "", **fields: Any) -> bool:
        """Record an item's failure.

        :param kind: as for :meth:`FailureLog.failed`.
        :return: whether it was logged at its level.
        """
        known = self._items.get(item)
        if known is None and len(self._items) < MAX_ITEMS:
            known = self._items[item] = FailureLog(self._log, self._seconds)
        if known is None:
            known = self._others
        fields[self._field] = item
        return known.failed(event, kind, **fields)

    def recovered(self, item: str, event: Event, **fields: Any) -> bool:
        """Record that an item works. Call this at each success: it costs next to nothing.

        :return: whether a recovery was logged at its level.
        """
        known = self._items.get(item)
        if known is None:
            return False
        fields[self._field] = item
        logged = known.recovered(event, **fields)
        if known.settled:
            del self._items[item]
            if not self._items:
                self._others = FailureLog(self._log, self._seconds)
        return logged

    def removed(self, present: Container[str], event: Event) -> None:
        """Record which items there are. Call this after each listing.

        :param present: the names of those that are there.
        :param event: logged for each failing item that is no longer there.
        """
        for item in [item for item in self._items if item not in present]:
            self.recovered(item, event)


def kind_of(error: BaseException) -> str:
    """Return the kind of a failure: the error's type and its code, such as ``EIO``."""
    code = ""
    if isinstance(error, ReadError | HttpError):
        code = error.code
    elif isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorname", "")
    elif isinstance(error, OSError):
        code = errno.errorcode.get(error.errno or 0, "")
    return f"{type(error).__name__} {code}".rstrip()
