"""Files and folders that pages name in code exist."""

import re
from pathlib import Path

import pytest

from tests.docs.prose import CHECKOUT, pages

_TOP = "belatwist|benchmarks|configs|docker|docs|packaging|systemd|tests|twisted"
_PATH = re.compile(rf"(?<![\w./])(?:{_TOP})/[\w./*-]*")
_NEAR = re.compile(r"`([\w/]+\.(?:py|sh|md))`")


def named(page: Path) -> set[str]:
    """Find the paths that the code of a page names, from the root of the checkout."""
    code = re.findall(r"`([^`\n]+)`", page.read_text())
    return {path.rstrip(".") for one in code for path in _PATH.findall(one)}


def exists(path: str, page: Path) -> bool:
    """Tell whether a path is there, from the root of the checkout or from the page's folder."""
    return any(any(folder.glob(path)) for folder in (CHECKOUT, page.parent))


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_paths_exist(page: Path) -> None:
    """A page sends its reader only to files that are there."""
    assert [path for path in sorted(named(page)) if not exists(path, page)] == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_a_folder_s_page_names_its_modules(folder: str) -> None:
    """The modules that the page of a folder names are in that folder."""
    page = CHECKOUT / folder / "README.md"
    found = set(_NEAR.findall(page.read_text()))
    assert found
    assert [name for name in sorted(found) if not list(page.parent.rglob(name))] == []


def test_every_helper_is_listed() -> None:
    """``tests/README.md`` names each module that tests share."""
    page = (CHECKOUT / "tests" / "README.md").read_text()
    shared = {path.name for path in (CHECKOUT / "tests").glob("*.py")}
    shared -= {name for name in shared if name.startswith(("test_", "__"))}
    assert {name for name in shared if f"`{name}`" not in page} == set()
