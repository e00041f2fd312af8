"""What the documentation says of the code is true."""

import re
from pathlib import Path

import pytest

from belatwist import __version__
from belatwist.catalogue import CATALOGUE

CHECKOUT = Path(__file__).parent.parent
PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CHANGELOG.md",
    *sorted((CHECKOUT / "docs").glob("*.md")),
]


def test_the_catalogue_is_documented() -> None:
    """``docs/metrics.md`` has a row for every metric, in the catalogue's words, and no other."""
    expected = [
        f"| `{stored}` | `{entry.uploaded}` | {', '.join(f'`{tag}`' for tag in entry.tags)} |"
        f" {entry.kind} | {entry.unit} | {entry.help} | `{entry.collector}` |"
        for stored, entry in CATALOGUE.items()
    ]
    text = (CHECKOUT / "docs" / "metrics.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| `")] == expected


def test_the_changelog_knows_this_version() -> None:
    """The version has an entry."""
    assert f"## {__version__}" in (CHECKOUT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the project."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_queries_use_known_names() -> None:
    """Every metric that a documented query names is in the catalogue."""
    known = {entry.uploaded for entry in CATALOGUE.values()}
    text = (CHECKOUT / "docs" / "promql.md").read_text()
    queries = re.findall(r"```promql\n(.*?)\n```", text, re.DOTALL)
    prefixes = "|".join(sorted({name.partition("_")[0] for name in known}))
    for query in queries:
        names = set(re.findall(rf"\b(?:{prefixes})_\w+", query))
        assert names <= known
        assert names
