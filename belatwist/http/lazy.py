"""Makes the getter when the first source asks for it: most configurations have no such source."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from belatwist.http.get import HttpGetter


def lazy_getter(load_reactor: Callable[[], Any], ca_file: str | None) -> "Callable[[], HttpGetter]":
    """Return a function that makes the getter at its first call, and then returns the same one.

    :param load_reactor: returns the reactor.
    :param ca_file: PEM certificates to trust instead of the system's.
    """

    @cache
    def load() -> "HttpGetter":
        from belatwist.http.get import HttpGetter

        return HttpGetter(load_reactor(), Path(ca_file) if ca_file else None)

    return load
