"""The tables of ``docs/events.md``, from the events that the package's modules declare."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import belatwist
from belatwist.log.events import Event

PACKAGE = Path(belatwist.__file__).parent

NAME = re.compile(r"[a-z_]+(\.[a-z_]+)+")
"""What the name of an event looks like: the part of the program, and what happened."""


def declared() -> list[Event]:
    """Return the events of all modules, in the order of their names."""
    found = {}
    for module in pkgutil.walk_packages(belatwist.__path__, "belatwist."):
        if not module.name.endswith("__main__"):  # To import such a module is to run it.
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Event):
                    found[id(value)] = value
    return sorted(found.values(), key=lambda event: event.name)


def constructed() -> list[str]:
    """Return the names of all events that the sources construct, at any place."""
    trees = (ast.parse(module.read_text("utf-8")) for module in PACKAGE.rglob("*.py"))
    return sorted(
        ast.literal_eval(node.args[0])
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Event"
    )


def part(event: Event) -> str:
    """Return the part of the program that logs an event."""
    return event.name.partition(".")[0]


def render(events: Iterable[Event]) -> str:
    """Return a heading and a table for each part of the program.

    :param events: in the order of their names.
    """
    return "\n\n".join(
        "\n".join((f"### {name}\n", *_table(some))) for name, some in groupby(events, part)
    )


def _table(events: Iterable[Event]) -> Iterator[str]:
    yield "| event | level | text | fields | what to do |"
    yield "| --- | --- | --- | --- | --- |"
    for event in events:
        # How a value is shown ({seconds:.1f}) is of no interest, and a bar would end the cell.
        text = re.sub(r"\{(\w+)[^}]*\}", r"{\1}", event.text).replace("|", "\\|")
        fields = ", ".join(f"`{field}`" for field in event.fields)
        yield f"| `{event.name}` | {event.level.name} | {text} | {fields} | {event.cure} |"
