"""Which part of the package may import which, and that the pure parts load without Twisted.

The rules are import-linter's contracts in pyproject.toml; ``make lint`` checks them as well.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import belatwist
from tests import import_rules

PACKAGE = Path(belatwist.__file__).parent


@pytest.mark.process
def test_the_import_rules_are_kept() -> None:
    """Data flows one way, and nothing downstream is imported upstream."""
    command = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [command, "--no-cache", "--no-logo"],
        capture_output=True,
        text=True,
        check=False,
        cwd=import_rules.CHECKOUT,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_page_shows_the_rules() -> None:
    """docs/architecture.md is made from the contracts."""
    page = import_rules.PAGE.read_text("utf-8")
    assert import_rules.with_rules(page) == page, "run make docs"


@pytest.mark.process
def test_the_pure_modules_load_without_twisted() -> None:
    """In a process of their own: also what a package's __init__ brings counts."""
    (pure,) = (
        contract["source_modules"]
        for contract in import_rules.contracts()
        if contract.get("forbidden_modules") == ["twisted"]
    )
    program = (
        "import importlib, pkgutil, sys\n"
        f"for name in {pure!r}:\n"
        "    module = importlib.import_module(name)\n"
        "    for found in pkgutil.walk_packages(getattr(module, '__path__', ()), name + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'twisted'))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")
