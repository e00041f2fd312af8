"""Keys that have a new name. A file may still use the old one, with a warning."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from belatwist.config.refusals import refuse

RENAMED_KEYS: Mapping[str, str] = {"remote.lookout_interval": "remote.reconnect_interval"}
"""The path of each old key, and that of its new one. Neither may lie in a list."""

RENAMED_TEXT = "Configuration key {old} in {file} is now named {new}; the old name still works"
"""The warning, as a format of :class:`RenamedKey`'s fields."""


class RenamedKey(NamedTuple):
    """A configuration file uses the old name of a key."""

    file: str
    old: str
    new: str

    def __str__(self) -> str:
        """Return the warning as a line."""
        return RENAMED_TEXT.format(**self._asdict())


Warn = Callable[[RenamedKey], object]
"""Takes a warning about a configuration that is used all the same."""


def ignore(_: RenamedKey) -> None:
    """Drop a warning."""


def rename(raw: dict[str, Any], renamed: Mapping[str, str]) -> dict[str, str]:
    """Move the values under old keys to their new keys, within a file's mapping.

    :param raw: the mapping, which is changed.
    :param renamed: the path of each old key, and that of its new one.
    :return: the new path of each key that was found, and its old one.
    :raises RefusalError: when the file has both names of a key.
    """
    written = {}
    for old, new in renamed.items():
        *sections, key = old.split(".")
        source = _section(raw, sections)
        if source is None or key not in source:
            continue
        value = _pop(raw, old.split("."))
        *sections, key = new.split(".")
        target = _section(raw, sections, make=True)
        if target is None:
            continue  # What stands there instead of a section is refused later.
        if key in target:
            refuse(old, "the file has its new name too", f"remove it and keep {new}")
        target[key] = value
        written[new] = old
    return written


def _section(raw: dict[str, Any], path: list[str], *, make: bool = False) -> dict[str, Any] | None:
    """Return the mapping at a path, if there is one.

    :param make: whether to make what is missing.
    """
    for name in path:
        if make and raw.get(name) is None:
            raw[name] = {}
        inner = raw.get(name)
        if not isinstance(inner, dict):
            return None
        raw = inner
    return raw


def _pop(raw: dict[str, Any], path: list[str]) -> object:
    """Remove the value at a path, and each section that is empty without it."""
    name, *rest = path
    if not rest:
        return raw.pop(name)
    value = _pop(raw[name], rest)
    if not raw[name]:
        del raw[name]
    return value
