"""Events of the log: each has a name that never changes, a level, a text, fields and a cure."""

import re
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from constantly import NamedConstant

COMMON_FIELDS = frozenset({"event", "failures", "flips", "seconds", "stack"})
"""Fields that any event may have: :class:`~belatwist.log.throttle.FailureLog` adds them."""


# A field and the noun that it counts, as in "{count:,} pending samples".
_COUNTED = re.compile(r"\{(\w+)(?::,)?\} (?:pending |more )?[a-z]{3,}(?<!serie)s\b")


class Event:
    """One kind of line of the log. A module declares its events and emits them.

    ``docs/events.md`` lists all events, from these declarations.

    :param name: ``part.event``, such as ``upload.failed``; programs that read the log rely on it.
    :param level: one of :class:`twisted.logger.LogLevel`. A caller may emit the event at another.
    :param text: the text for people, in Twisted's format. On the console the fields follow a text
        that contains none of them.
    :param fields: names of the fields that are not in the text.
    :param cure: sentences that tell an operator what to do; empty if nothing is to be done.
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
        :param suffix: follows the text; in Twisted's format, too.
        """
        shown = singular(self.text + suffix, fields)
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

        :param failure: the failure; ``None`` for the exception that is being handled.
        """
        log.failure(
            singular(self.text + suffix, fields),
            failure=Failure() if failure is None else failure,
            level=self.level if level is None else level,
            event=self.name,
            **fields,
        )


def singular(text: str, fields: Mapping[str, Any]) -> str:
    """Remove the plural's "s" from each noun of which there is one: "1 sample"."""
    if 1 not in fields.values():
        return text

    def noun(match: re.Match[str]) -> str:
        return match[0][:-1] if fields.get(match[1]) == 1 else match[0]

    return _COUNTED.sub(noun, text)
