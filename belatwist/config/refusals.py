"""What is wrong with a configuration, as one line for an operator."""

import json
from collections.abc import Mapping
from typing import NoReturn

from belatwist.text import escape, shorten

MAX_SHOWN = 80
"""The most characters of a value that a refusal repeats."""

NOT_SHOWN = "<not shown>"
"""Stands for a value that may be, or may hold, a secret."""


class RefusalError(Exception):
    """One key that cannot be used. Its text is ``<key.path>: <value>: <what is allowed>``.

    It never leaves the package: the caller gets a ``ConfigError`` that names the file too.

    :param path: the key's path; empty where the text names no key.
    """

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self._path = path

    def as_written(self, written: Mapping[str, str]) -> str:
        """Return the text with the key's name as the file has it.

        :param written: the path of a key, and the path under which the file has it.
        """
        for path, old in written.items():
            if self._path == path or self._path.startswith((f"{path}.", f"{path}[")):
                return escape(old) + str(self).removeprefix(escape(path))
        return str(self)


def refuse(path: str, shown: str, allowed: str) -> NoReturn:
    """Refuse a key.

    :param path: where it is, as in ``metrics[2].config.max_interfaces``.
    :param shown: its value as :func:`show` spells it, or what is the matter (``missing``).
    :param allowed: what it could be instead.
    :raises RefusalError: always.
    """
    raise RefusalError(escape(f"{path}: {shown}: {allowed}"), path)


def show(value: object) -> str:
    """Spell a value of the file for a message: short, and a text in quotes.

    A collection is only named, because it may be long, nested, or hold a secret.
    """
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return shorten(json.dumps(value, ensure_ascii=False), MAX_SHOWN)


def show_key(key: str) -> str:
    """Spell a key for a path; one that could be mistaken for something else is quoted."""
    if key and all(c.isalnum() or c in "_-" for c in key):
        return shorten(key, MAX_SHOWN)
    return show(key)
