"""The documentation agrees with the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from belatwist import __version__, config
from belatwist.collectors.registry import CATALOGUE, SOURCES
from belatwist.metrics.metric import MetricType

CHECKOUT = Path(__file__).parent.parent
PAGES = [
    *sorted(CHECKOUT.glob("*.md")),
    *sorted((CHECKOUT / "docs").rglob("*.md")),
    CHECKOUT / "tests" / "README.md",
    CHECKOUT / "benchmarks" / "README.md",
]


def test_the_changelog_knows_this_version() -> None:
    """The changelog has an entry for the version."""
    assert f"## {__version__}" in (CHECKOUT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the project."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_queries_use_known_names() -> None:
    """Every metric that a documented query names is in the catalogue."""
    known = {
        f"{entry.prometheus_name}{suffix}"
        for entry in CATALOGUE.values()
        for suffix in (
            ("_bucket", "_sum", "_count") if entry.type is MetricType.HISTOGRAM else ("",)
        )
    }
    text = (CHECKOUT / "docs" / "promql.md").read_text()
    queries = re.findall(r"```promql\n(.*?)\n```", text, re.DOTALL)
    prefixes = "|".join(sorted({name.partition("_")[0] for name in known}))
    for query in queries:
        names = set(re.findall(rf"\b(?:{prefixes})_\w+", query))
        assert names <= known
        assert names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_to_one(page: Path) -> None:
    """Each fragment of a link is a heading of the linked page, in GitHub's spelling."""
    for target, section in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        headings = re.findall(
            r"^#+ (.*)$", (page.parent / target if target else page).read_text(), re.MULTILINE
        )
        known = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
        assert section in known, f"{target}#{section}"


def keys(struct: type[msgspec.Struct], above: str = "") -> Iterator[str]:
    """Yield the path of every key of the configuration, sections included."""
    for entry in msgspec.structs.fields(struct):
        path = f"{above}{entry.encode_name}"
        yield path
        for one in (entry.type, *get_args(entry.type)):
            if isinstance(one, type) and issubclass(one, msgspec.Struct):
                yield from keys(one, f"{path}.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_exist(page: Path) -> None:
    """Every key that a page names in code is a key of the configuration."""
    known = set(keys(config.Config)) | set(config.RENAMED_KEYS)
    text = page.read_text()
    if page.name == "health.md":  # Its table has the members of the document, with the same names.
        text = re.sub(r"^\| `.*$", "", text, flags=re.MULTILINE)
    sections = "|".join(sorted(one for one in known if "." not in one and one != "metrics"))
    stored = set(CATALOGUE)
    named = re.findall(rf"`((?:{sections})\.[a-z_.]+)[`:]", text)
    files = {"config.yaml", "config.py"}
    assert set(named) - known - stored - files == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configurations_are_accepted(page: Path) -> None:
    """Every piece of a configuration on a page is valid."""
    sections = {one.encode_name for one in msgspec.structs.fields(config.Config)}
    for example in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        if example.partition(":")[0] in sections:
            config.parse(f"device: {{id: x}}\n{example}", page.name, SOURCES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_exist(page: Path) -> None:
    """Every metric that a page names in code, as stored or as uploaded, is in the catalogue."""
    known = set()
    for stored, entry in CATALOGUE.items():
        known |= {stored, entry.prometheus_name}
        if entry.type is MetricType.HISTOGRAM:
            known |= {f"{entry.prometheus_name}_{end}" for end in ("bucket", "sum", "count")}
    first = "|".join(sorted({name.partition("_")[0] for name in known if "." not in name}))
    last = "total|bytes|percent|celsius|seconds|bucket|sum|count|ms|[0-9]+m|upload|reclaimed"
    named = re.findall(rf"(?<![.\w])(?:{first})_[a-z0-9_]*(?:{last})\b", page.read_text())
    assert set(named) - known == set()


FOREIGN = {
    "Address already in use",
    "Connection refused",
    "Connection was refused by other side",
    "DNS lookup failed",
    "Input/output error",
    "Permission denied",
    "Read-only file system",
    "attempt to write a readonly database",
    "database disk image is malformed",
    "database or disk is full",
    "disk I/O error",
    "no results for hostname lookup",
    "wrong version number",
}
"""Texts of the kernel, SQLite, OpenSSL and Twisted."""


class Texts:
    """The texts that the package can write; tells whether it can make another text of them."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._literal = set(FOREIGN)
        self._filled: set[tuple[str, ...]] = set()
        for module in (CHECKOUT / "belatwist").rglob("*.py"):
            for node in ast.walk(ast.parse(module.read_text())):
                self._take(node)

    def _take(self, node: ast.AST) -> None:
        if isinstance(node, ast.keyword | ast.arg) and node.arg:
            self.names.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = re.split(r"\{[a-z_]+(?::[^}]*)?\}", node.value)
            self._literal.add(node.value)
            self.names.add(node.value)
            self._filled.add(tuple(parts))
        elif isinstance(node, ast.JoinedStr):
            literals = [one.value for one in node.values if isinstance(one, ast.Constant)]
            text = "".join(
                str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values
            )
            # A format that is itself filled in: {{name}}.
            self._filled.add(tuple(re.split(r"\0|\{[a-z_]+(?::[^}]*)?\}", text)))
            self._literal.update(str(one) for one in literals)

    def makes(self, text: str) -> bool:
        """Return whether a text is one of the package's, filled in with its texts or single words.

        A colon or a semicolon may join two sentences.
        """
        if re.fullmatch(r"\S*|\[.*\]|\{.*\}", text) or text in self._literal:
            return True
        for parts in self._filled:
            if len(parts) > 1 and len("".join(parts)) >= 5 and all(one in text for one in parts):
                for anything in ("(.+?)", "(.+)"):
                    found = re.fullmatch(anything.join(map(re.escape, parts)), text)
                    if found and all(
                        len(one) < len(text) and self.makes(one) for one in found.groups()
                    ):
                        return True
        return any(
            self.makes(text[: at.start()]) and self.makes(text[at.end() :])
            for at in re.finditer("[:;] ", text)
        )


def test_quoted_log_lines_are_the_agents() -> None:
    """The log lines on the troubleshooting page are the code's, to the word."""
    texts = Texts()
    page = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
    assert not texts.makes("Upload failed, 3 samples waited: no answer within 3 s")
    assert not texts.makes("Upload failed, 3 samples pending: no answer after 3 s")
    quoted = "".join(re.findall(r"```log\n(.*?)```", page, re.DOTALL)).splitlines()
    assert len(quoted) > 30
    for line in quoted:
        assert re.match(r"bela: |(CRITICAL|ERROR|WARN |INFO ) ", line), line
        text = re.sub(r"^[A-Z]+ +", "", line)
        fields = re.findall(r' (\w+)=("[^"]*"|\S+)', text)
        text = re.sub(r'( \w+=("[^"]*"|\S+))+$', "", text)
        assert texts.makes(text), text
        for name, value in fields:
            assert texts.names >= {name}, name
            assert texts.makes(value.strip('"')), value
