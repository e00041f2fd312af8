"""Writes the import rules of pyproject.toml into docs/architecture.md; run as a module."""

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent
PAGE = CHECKOUT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports:begin -->", "<!-- imports:end -->"


def contracts() -> list[Mapping[str, Any]]:
    """Read the contracts that import-linter checks."""
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    found: list[Mapping[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def render() -> str:
    """Return the contracts as Markdown: a table of the layers, and a list of what is forbidden."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for contract in contracts():
        if contract["type"] == "layers":
            (container,) = contract["containers"]
            yield f"**{contract['name']}** (`{container}`):"
            yield ""
            yield "| row | parts |"
            yield "| --- | --- |"
            for number, layer in enumerate(contract["layers"], 1):
                parts = ", ".join(f"`{part.strip()}`" for part in layer.split("|"))
                yield f"| {number} | {parts} |"
            yield ""
    yield "| rule | for | must not import |"
    yield "| --- | --- | --- |"
    for contract in contracts():
        if contract["type"] == "forbidden":
            sources, forbidden = (
                ", ".join(f"`{_path(name)}`" for name in contract[key])
                for key in ("source_modules", "forbidden_modules")
            )
            yield f"| {contract['name']} | {sources} | {forbidden} |"


def _path(module: str) -> str:
    return module.removeprefix("belatwist.").replace(".", "/")


def with_rules(page: str) -> str:
    """Return a page with the rules between its two marks.

    :raises ValueError: when it does not have both marks, in this order.
    """
    head, mark, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (mark and end):
        raise ValueError(f"{PAGE} needs the marks {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{render()}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_rules(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{PAGE.relative_to(CHECKOUT)} has the import rules\n")
