"""Sentences of the documentation and their lengths: ``python -m tests.docs.prose [PAGE ...]``.

Only running text counts. Code, tables, headings, comments, pictures and the line that says when and
where a table was measured have no sentences. Code within a sentence, like ``twistd -n bela``,
counts as one word. A link counts with its text.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent

MAX_WORDS = 30
"""Words that a sentence may have."""

_FENCE = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_CODE = re.compile(r"(`+).+?\1", re.DOTALL)
_MARKUP = re.compile(r"\*{1,2}(?=\S)|(?<=\S)\*{1,2}")
_NO_TEXT = re.compile(r"^ *(#|\||\[[^\]]+\]: |(-{3,}|\*{3,}) *$|date \d{4}-)")
_ITEM = re.compile(r"^ *(?:[-*+]|\d+[.)]) +(?:\[[ x]\] +)?|^ *> ?")
_FIELD = re.compile(r"^ *:\w+[^:\n]*:", re.MULTILINE)
_END = re.compile(r"[.!?…]+[\"'”)\]]*(?=\s|$)")
_ABBREVIATIONS = {"cf.", "e.g.", "etc.", "fig.", "i.e.", "no.", "p.", "resp.", "st.", "vs."}


def blocks(markdown: str) -> Iterator[str]:
    """Yield each paragraph and each item of a list, as text without markup."""
    markdown = _COMMENT.sub("\n", _FENCE.sub("\n", markdown))
    markdown = _CODE.sub("Code", markdown)
    markdown = _LINK.sub(r"\1", _PICTURE.sub("", markdown))
    block: list[str] = []
    for line in [*markdown.splitlines(), ""]:
        item = _ITEM.match(line)
        if not line.strip() or item or _NO_TEXT.match(line):
            if block:
                yield _MARKUP.sub("", " ".join(block))
            block = []
        if line.strip() and not _NO_TEXT.match(line):
            block.append(line[item.end() :] if item else line.strip())


def sentences(markdown: str) -> Iterator[str]:
    """Yield the sentences of a page. The end of a paragraph or of an item ends one as well."""
    for block in blocks(markdown):
        begin = 0
        for end in _END.finditer(block):
            words = block[begin : end.end()].split()
            if words and words[-1].lower() not in _ABBREVIATIONS:
                yield " ".join(words)
                begin = end.end()
        if rest := block[begin:].split():
            yield " ".join(rest)


def docstrings(module: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts that stand alone in a module, with their lines; each field is a paragraph."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str):
                yield node.lineno, _FIELD.sub("\n\n", text)


def length(sentence: str) -> int:
    """Count the words of a sentence: whatever has a letter or a digit in it."""
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


def pages() -> list[Path]:
    """Find every page of the project."""
    folders = (CHECKOUT / name for name in ("docs", "tests", "benchmarks"))
    return sorted(
        [*CHECKOUT.glob("*.md"), *(page for one in folders for page in one.rglob("*.md"))]
    )


def main(arguments: Sequence[str]) -> None:
    """Print a table: how many sentences each page has, their mean length, and the longest.

    :param arguments: pages; all where none is named. With ``-v`` first, what is too long follows.
    """
    verbose = arguments[:1] == ["-v"]
    named = [Path(one) for one in arguments[verbose:]]
    print("| page | sentences | mean words | longest |")
    print("| --- | ---: | ---: | ---: |")
    for page in named or pages():
        counts = {text: length(text) for text in sentences(page.read_text())}
        mean = sum(counts.values()) / len(counts) if counts else 0
        name = page.relative_to(CHECKOUT) if page.is_relative_to(CHECKOUT) else page
        print(f"| {name} | {len(counts)} | {mean:.1f} | {max(counts.values(), default=0)} |")
        if verbose:
            for text, words in counts.items():
                if words > MAX_WORDS:
                    print(f"    {words}: {text}")


if __name__ == "__main__":
    main(sys.argv[1:])
