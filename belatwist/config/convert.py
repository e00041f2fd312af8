"""Plain objects to :class:`~belatwist.config.schema.Config`, guided by the types of the sections.

Each value is converted alone, at a known path. So a refusal can name the key's path, the value, and
from the type the allowed values.
"""

import difflib
import math
import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from belatwist.config.collectors import CollectorEntry, KnownSources, default_entries
from belatwist.config.refusals import RefusalError, refuse, show
from belatwist.config.renamed import RENAMED_KEYS, RenamedKey, Warn, ignore, rename
from belatwist.config.schema import Config
from belatwist.config.section import Section
from belatwist.config.values import DURATION, ValueType, format_duration
from belatwist.config.yamltext import join, read_yaml
from belatwist.errors import ConfigError
from belatwist.text import escape

S = TypeVar("S", bound=Section)

_DEFAULT = object()
_WORD = re.compile(r"[a-z0-9]+")
_ALIKE = 0.65


def parse(text: str, source: str, known: KnownSources, warn: Warn = ignore) -> Config:
    """Read a configuration, but not the files that it names; :func:`load` reads those as well.

    :param text: the YAML text.
    :param source: the file's name, for messages.
    :param known: the sources that the file may name. Without ``metrics`` the default ones run.
    :param warn: takes a warning for each key that has a new name.
    :raises ConfigError: one line with the file, the key's path, the value and the allowed values.
    """
    written: dict[str, str] = {}
    try:
        raw = read_yaml(text, source)
        if raw is None:
            raise RefusalError("the file is empty; it needs at least device.id")
        if not isinstance(raw, dict):
            refuse("top level", show(raw), "a mapping with the keys " + _names(Config))
        written = rename(raw, RENAMED_KEYS)
        entries = raw.pop("metrics", _DEFAULT)
        config = _with_upload_age(_with_skew_url(_section(Config, raw, ""), raw), raw)
        config = msgspec.structs.replace(config, metrics=_entries(entries, known))
        for path, value, allowed in _conflicts(config):
            refuse(path, show(value), allowed)
    except RefusalError as refusal:
        raise ConfigError(f"{escape(source)}: {refusal.as_written(written)}") from None
    for new, old in written.items():
        warn(RenamedKey(source, old, new))
    return config


def _section(cls: type[S], raw: object, path: str, base: S | None = None, unknown: str = "") -> S:
    """Convert one mapping.

    :param raw: the mapping, or ``None`` for a key with everything below it commented out.
    :param base: has the values of missing keys.
    :param unknown: the refusal of an unknown key, instead of a list of the known ones.
    """
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        refuse(path, show(raw), "a mapping with the keys " + _names(cls))
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    for key in raw:
        if key not in fields:
            refuse(join(path, key), "unknown key", unknown or suggestion(key, list(fields)))
    values = {}
    for name, field in fields.items():
        inner = join(path, name)
        if name in raw:
            values[name] = _value(field.type, raw[name], inner, getattr(base, name, field.default))
        elif base is not None:
            values[name] = getattr(base, name)
        elif field.required and _is_section(field.type):
            values[name] = _section(field.type, None, inner)
        elif field.required:
            refuse(inner, "missing", allowed(field.type))
    return cls(**values)


def suggestion(name: str, known: list[str]) -> str:
    """Suggest the known name that is most like a name, or list all of them.

    A name is like a known one that has each of its words, whole, misspelt or cut short. A further
    word changes the meaning: ``proxy_url`` is no ``url``.
    """
    name = name[:64].lower()
    words = _WORD.findall(name)
    like = [
        one
        for one in known
        if words
        and all(any(_is_like(word, other) for other in _WORD.findall(one)) for word in words)
    ]
    close = difflib.get_close_matches(name, like, n=1, cutoff=0.0)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)


def _is_like(word: str, other: str) -> bool:
    ratio = difflib.SequenceMatcher(None, other, word).ratio()
    return other.startswith(word) or ratio >= _ALIKE


def _names(cls: type[Section]) -> str:
    return ", ".join(cls.__struct_fields__)


def _is_section(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Section)


def _value(hint: Any, raw: object, path: str, default: object = None) -> object:
    base, marks = unwrap(hint)
    if _is_section(base):
        return _section(base, raw, path, default if isinstance(default, base) else None)
    if get_origin(base) in (Union, UnionType):
        inner = get_args(base)[0]  # "T | None" is the only union
        return None if raw is None else _value(Annotated[inner, *marks], raw, path)
    if get_origin(base) is tuple:
        return _tuple(hint, raw, path)
    kind = next((mark for mark in marks if isinstance(mark, ValueType)), None)
    if kind is None:
        return _leaf(hint, raw, path, show(raw))
    try:
        value = kind.read(raw)
    except ValueError as error:
        refuse(path, kind.show(raw), str(error))
    return _leaf(hint, value, path, kind.show(raw))


def _leaf(hint: Any, value: object, path: str, shown: str) -> object:
    try:
        return msgspec.convert(value, hint, strict=True)
    except msgspec.ValidationError:
        refuse(path, shown, allowed(hint))


def _tuple(hint: Any, raw: object, path: str) -> tuple[object, ...]:
    item = get_args(unwrap(hint)[0])[0]
    return tuple(_value(item, one, f"{path}[{i}]") for i, one in enumerate(_list(hint, raw, path)))


def _list(hint: Any, raw: object, path: str) -> list[object]:
    _, marks = unwrap(hint)
    most = next(mark.max_length for mark in marks if isinstance(mark, Meta) and mark.max_length)
    if not isinstance(raw, list) or len(raw) > most:
        refuse(path, show(raw), allowed(hint))
    return raw


def _entries(raw: object, known: KnownSources) -> tuple[CollectorEntry, ...]:
    """Convert ``metrics``; without it every source that is on by default runs."""
    if raw is _DEFAULT:
        return default_entries(known)
    field = next(f for f in msgspec.structs.fields(Config) if f.name == "metrics")
    return tuple(
        _entry(entry, f"metrics[{i}]", known)
        for i, entry in enumerate(_list(field.type, raw, "metrics"))
    )


def _entry(raw: object, path: str, known: KnownSources) -> CollectorEntry:
    """Convert an entry of ``metrics``, whose ``config`` depends on its ``name``."""
    if not isinstance(raw, dict):
        refuse(path, show(raw), "a mapping with the keys " + _names(CollectorEntry))
    name = raw.get("name", "")
    source = known.get(name) if isinstance(name, str) else None
    if source is None:
        shown = show(name) if "name" in raw else "missing"
        refuse(f"{path}.name", shown, suggestion(str(name), list(known)))
    unknown = "" if source.options.__struct_fields__ else f"{name} has no options"
    options = _section(source.options, raw.get("config"), f"{path}.config", None, unknown)
    plain = {key: value for key, value in raw.items() if key != "config"}
    plain.setdefault("interval", format_duration(source.every))
    return msgspec.structs.replace(_section(CollectorEntry, plain, path), config=options)


def _conflicts(config: Config) -> Iterator[tuple[str, object, str]]:
    """Yield path, value and allowed values where a value contradicts another."""
    remote, retry, health = config.remote, config.remote.retry, config.health
    if remote.chunk_size > remote.batch_size:
        limit = f"at most remote.batch_size ({remote.batch_size})"
        yield "remote.chunk_size", remote.chunk_size, limit
    if retry.initial_backoff > retry.max_backoff:
        limit = f"at most remote.retry.max_backoff ({format_duration(retry.max_backoff)})"
        yield "remote.retry.initial_backoff", format_duration(retry.initial_backoff), limit
    for name in ("pending_metrics", "upload_age_seconds"):
        degraded = getattr(health.degraded_threshold, name)
        error = getattr(health.error_threshold, name)
        if degraded > error:
            limit = f"at most health.error_threshold.{name} ({error})"
            yield f"health.degraded_threshold.{name}", degraded, limit
    names = [metric.name for metric in config.metrics]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield (
                f"metrics[{i}].name",
                name,
                f"metrics[{names.index(name)}] has this collector already",
            )


def _with_skew_url(config: Config, raw: dict[str, Any]) -> Config:
    """Set the address of the clock check to the upload server, unless the file has another."""
    if "clock_skew_url" in (raw.get("monitoring") or ()):
        return config
    url = urlsplit(config.remote.url)._replace(path="/health", query="").geturl()
    monitoring = msgspec.structs.replace(config.monitoring, clock_skew_url=url)
    return msgspec.structs.replace(config, monitoring=monitoring)


def _with_upload_age(config: Config, raw: dict[str, Any]) -> Config:
    """Raise the limits of the upload age to some upload intervals, unless the file sets them."""
    health, interval = config.health, config.remote.upload_interval
    given = raw.get("health") or {}
    limit = math.inf
    for name, intervals in (("error_threshold", 20), ("degraded_threshold", 2)):
        threshold = getattr(health, name)
        age = threshold.upload_age_seconds
        if "upload_age_seconds" not in (given.get(name) or {}):
            # The limit for DEGRADED never exceeds the one for ERROR.
            age = int(min(max(age, math.ceil(intervals * interval)), limit))
        limit = age
        threshold = msgspec.structs.replace(threshold, upload_age_seconds=age)
        health = msgspec.structs.replace(health, **{name: threshold})
    return msgspec.structs.replace(config, health=health)


def unwrap(hint: Any) -> tuple[Any, tuple[object, ...]]:
    """Split ``Annotated[T, *marks]`` into ``T`` and its marks."""
    if get_origin(hint) is Annotated:
        base, *marks = get_args(hint)
        return base, tuple(marks)
    return hint, ()


def allowed(hint: Any) -> str:
    """Describe the values that a type allows, for messages and for the documentation."""
    base, marks = unwrap(hint)
    if get_origin(base) in (Union, UnionType):
        return f"{allowed(Annotated[get_args(base)[0], *marks])}, or null"
    kind = next((mark for mark in marks if isinstance(mark, ValueType)), None)
    metas = [mark for mark in marks if isinstance(mark, Meta)]
    low = next((mark.ge for mark in metas if mark.ge is not None), 0)
    high = next((mark.le for mark in metas if mark.le is not None), 0)
    longest = next((mark.max_length for mark in metas if mark.max_length is not None), None)
    if kind is DURATION:
        return f"a duration from {format_duration(low)} to {format_duration(high)}, such as 30s"
    if kind is not None:
        return kind.allowed if longest is None else f"{kind.allowed}, at most {longest} characters"
    if get_origin(base) is tuple:
        return f"a list of at most {longest} entries"
    return _allowed_plain(base, low, high)


def _allowed_plain(base: Any, low: float, high: float) -> str:
    if get_origin(base) is Literal:
        *most, last = get_args(base)
        return f"{', '.join(most)} or {last}"
    if base is int:
        return f"a whole number from {low} to {high}"
    if base is float:
        return f"a number from {low:g} to {high:g}"
    return {bool: "true or false", str: "a text"}.get(base, "a mapping")
