"""The tables of ``docs/configuration.md``, from the types of the configuration's sections."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Meta

from belatwist.collectors.contract import Source
from belatwist.config.collectors import CollectorEntry, NoOptions
from belatwist.config.convert import allowed, unwrap
from belatwist.config.renamed import RENAMED_KEYS
from belatwist.config.schema import Config
from belatwist.config.section import Section
from belatwist.config.values import DURATION, format_duration

EARLIER = {
    new: [old for old, found in RENAMED_KEYS.items() if found == new]
    for new in RENAMED_KEYS.values()
}
"""The old names of a key, by its path."""


def render(known: Mapping[str, Source]) -> str:
    """Return the tables: every key of the file, the collectors, and the options of each."""
    parts = [_keys(Config, ""), _collectors(known)]
    for name, source in known.items():
        if source.options is not NoOptions:
            parts.append(
                f"Options of `{name}` (below its `config`):\n\n{_keys(source.options, '')}"
            )
    return "\n\n".join(parts)


def _keys(cls: type[Section], path: str) -> str:
    rows = ["| key | what is allowed | default | meaning |", "| --- | --- | --- | --- |"]
    rows.extend(_rows(cls, path, None))
    return "\n".join(rows)


def _rows(cls: type[Section], path: str, base: object) -> Iterator[str]:
    for field in msgspec.structs.fields(cls):
        name = f"{path}{field.name}"
        kind, marks = unwrap(field.type)
        default = getattr(base, field.name, field.default)
        if isinstance(kind, type) and issubclass(kind, Section) and kind is not Section:
            yield from _rows(kind, f"{name}.", default)
            continue
        meaning = "".join(m.description for m in marks if isinstance(m, Meta) and m.description)
        meaning += "".join(f" Earlier name: `{old}`." for old in EARLIER.get(name, ()))
        what = (
            "the collector's options"
            if cls is CollectorEntry and name.endswith(".config")
            else None
        )
        if cls is CollectorEntry and field.name == "name":
            what = "the name of a collector"
        shown = "" if cls is CollectorEntry and what else _default(default, marks)
        if name == "metrics":
            shown = "all"
        what = (what or allowed(field.type)).replace("|", "\\|")
        yield f"| `{name}` | {what} | {shown} | {meaning} |"
        if get_origin(kind) is tuple and get_args(kind)[0] is CollectorEntry:
            yield from _rows(CollectorEntry, f"{name}[].", None)


def _default(value: Any, marks: tuple[object, ...]) -> str:
    if value is msgspec.NODEFAULT:
        return "by collector" if DURATION in marks else "required"
    if DURATION in marks:
        return f"`{format_duration(value)}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return (
        f"`{msgspec.json.encode(value).decode()}`" if not isinstance(value, str) else _text(value)
    )


def _text(value: str) -> str:
    return f"`{value}`" if value else '`""`'


def _collectors(known: Mapping[str, Source]) -> str:
    rows = ["| collector | default interval | runs without `metrics` |", "| --- | --- | --- |"]
    for name, source in known.items():
        runs = "yes" if source.default else f"no: {source.why_off}"
        rows.append(f"| `{name}` | `{format_duration(source.every)}` | {runs} |")
    return "\n".join(rows)
