"""Events of the log: each has a name that never changes, a level, a text, fields and a cure."""

from collections.abc import Iterable
from string import Formatter
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from constantly import NamedConstant

COMMON_FIELDS = frozenset({"event", "failures", "flips", "seconds", "stack"})
"""Fields that any event may have: :class:`~belatwist.log.throttle.FailureLog` adds them."""


class Event:
    """One kind of line of the log. A module declares its events and emits them.

    ``docs/events.md`` lists all of them; it is made from these declarations.

    :param name: ``part.what_happened``; programs that read the log rely on it.
    :param level: of :class:`twisted.logger.LogLevel`. A caller may emit the event more quietly.
    :param text: Twisted's format, for people. One without a value in it is followed by the fields.
    :param fields: names of the fields that are not in the text.
    :param cure: what the operator can do, as a sentence; empty where there is nothing to do.
    """

    __slots__ = ("cure", "fields", "level", "name", "text")

    def __init__(
        self,
        name: str,
        level: "NamedConstant",
        text: str,
        *,
        fields: Iterable[str] = (),
        cure: str = "",
    ) -> None:
        self.name = name
        self.level = level
        self.text = text
        shown = (field for _, field, _, _ in Formatter().parse(text) if field)
        self.fields = tuple(dict.fromkeys((*shown, *fields)))
        self.cure = cure

    def emit(
        self,
        log: Logger,
        *,
        level: "NamedConstant | None" = None,
        suffix: str = "",
        **fields: Any,
    ) -> None:
        """Log the event.

        :param log: the part's log.
        :param level: instead of the event's own.
        :param suffix: Twisted's format again, behind the text.
        """
        shown = self.text + suffix
        log.emit(self.level if level is None else level, shown, event=self.name, **fields)

    def failure(
        self,
        log: Logger,
        failure: Failure | None = None,
        *,
        level: "NamedConstant | None" = None,
        suffix: str = "",
        **fields: Any,
    ) -> None:
        """Log the event with a traceback.

        :param failure: what went wrong; ``None`` for the exception that is being handled.
        """
        log.failure(
            self.text + suffix,
            failure=Failure() if failure is None else failure,
            level=self.level if level is None else level,
            event=self.name,
            **fields,
        )
