"""Refusals of a configuration: one line each, for an operator."""

import json
from collections.abc import Mapping
from typing import NoReturn

from belatwist.text import escape, shorten

MAX_SHOWN = 80
"""Maximum number of a value's characters that a refusal repeats."""

NOT_SHOWN = "<not shown>"
"""Replaces a value that may be a secret, or may contain one."""


class RefusalError(Exception):
    """Refuses one key. The text is ``<key.path>: <value>: <allowed values>``.

    It never leaves the package: callers get a ``ConfigError``, which also names the file.

    :param path: the key's path; empty where the text names no key.
    """

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self._path = path

    def as_written(self, written: Mapping[str, str]) -> str:
        """Return the text with the key's name in the file.

        :param written: by the path of a key, its path in the file.
        """
        for path, old in written.items():
            if self._path == path or self._path.startswith((f"{path}.", f"{path}[")):
                return escape(old) + str(self).removeprefix(escape(path))
        return str(self)


def refuse(path: str, shown: str, allowed: str) -> NoReturn:
    """Refuse a key.

    :param path: the key's path, such as ``metrics[2].config.max_interfaces``.
    :param shown: the value as :func:`show` spells it, or the problem (``missing``).
    :param allowed: the allowed values.
    :raises RefusalError: always.
    """
    raise RefusalError(escape(f"{path}: {shown}: {allowed}"), path)


def show(value: object) -> str:
    """Spell a value of the file for a message: short, with text in quotes.

    The message only names the type of a collection, which may be long or contain a secret.
    """
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return shorten(json.dumps(value, ensure_ascii=False), MAX_SHOWN)


def show_key(key: str) -> str:
    """Spell a key for a path, in quotes unless it is a plain word."""
    if key and all(c.isalnum() or c in "_-" for c in key):
        return shorten(key, MAX_SHOWN)
    return show(key)
