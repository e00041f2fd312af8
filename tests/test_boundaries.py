"""Which part of the package may import which, and that the pure parts do without Twisted."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import belatwist

PACKAGE = Path(belatwist.__file__).parent

# What a part may import besides itself; a module with rules of its own comes before its folder.
# The bare package, which holds no more than the version, is open to all.
MAY_IMPORT = {
    "belatwist.errors": set[str](),
    "belatwist.model": {"belatwist.errors"},
    "belatwist.metrics.catalogue": set(),
    "belatwist.log.throttle": {"belatwist.log.events"},
    "belatwist.text": set(),
    "belatwist.metrics.telemetry": {"belatwist.metrics.catalogue"},
    "belatwist.metrics.names": {"belatwist.model"},
    "belatwist.metrics.exposition": {"belatwist.metrics", "belatwist.model"},
    "belatwist.web.gzip": set(),
    "belatwist.web.site": set(),
    "belatwist.health.builder": {
        "belatwist.clock.sources",
        "belatwist.collectors",
        "belatwist.health.snapshot",
        "belatwist.scheduler",
        "belatwist.runtime.lockfile",
        "belatwist.model",
        "belatwist.store",
        "belatwist.store.buffer",
        "belatwist.store.checkpointer",
        "belatwist.store.pruner",
        "belatwist.store.sqlite",
        "belatwist.metrics",
        "belatwist.clock.timekeeper",
        "belatwist.upload",
    },
    "belatwist.web.page": {
        "belatwist.metrics",
        "belatwist.errors",
        "belatwist.model",
        "belatwist.store.sql.ranges",
        "belatwist.web.gzip",
        "belatwist.web.site",
    },
    "belatwist.web.endpoints": {
        "belatwist.web.access",
        "belatwist.metrics",
        "belatwist.config",
        "belatwist.health",
        "belatwist.web.page",
        "belatwist.web.gzip",
        "belatwist.web.site",
    },
    "belatwist.web.access": {"belatwist.errors", "belatwist.web.site"},
    "belatwist.health": {
        "belatwist.metrics",
        "belatwist.config",
        "belatwist.model",
        "belatwist.web.site",
    },
    "belatwist.procfs": {"belatwist.errors"},
    "belatwist.config": {"belatwist.errors", "belatwist.model"},
    "belatwist.collectors.registry": {
        "belatwist.errors",
        "belatwist.model",
        "belatwist.procfs",
        "belatwist.collectors",
        "belatwist.config",
    },
    "belatwist.scheduler": {
        "belatwist.errors",
        "belatwist.model",
        "belatwist.collectors",
        "belatwist.clock.sources",
        "belatwist.log.throttle",
        "belatwist.metrics",
    },
    "belatwist.collectors.selfmetrics": {
        "belatwist.model",
        "belatwist.metrics",
    },
    "belatwist.collectors": {"belatwist.errors", "belatwist.model", "belatwist.procfs"},
    "belatwist.store": {
        "belatwist.errors",
        "belatwist.model",
        "belatwist.clock.sources",
        "belatwist.metrics",
    },
    "belatwist.upload": {
        "belatwist.errors",
        "belatwist.model",
        "belatwist.store",
        "belatwist.clock.sources",
        "belatwist.log.throttle",
        "belatwist.metrics",
        "belatwist.text",
    },
    "belatwist.cli": {
        "belatwist.metrics",
        "belatwist.clock.sources",
        "belatwist.collectors",
        "belatwist.config",
        "belatwist.errors",
        "belatwist.model",
        "belatwist.procfs",
        "belatwist.store.sql.queries",
        "belatwist.store.sql.schema",
        "belatwist.text",
        "belatwist.upload.jsonl",
    },
    "belatwist.receiver": {
        "belatwist.errors",
        "belatwist.web.site",
        "belatwist.upload.jsonl",
        "belatwist.metrics",
    },
}

# The two entry points that twistd calls: each wires a service together, from whatever it takes.
ENTRY_POINTS = {"belatwist.tap", "belatwist.receiver.tap"}

# Of these, only the package itself: its interface, none of the modules behind it.
INTERFACES = {"belatwist.store"}

PURE = (
    "belatwist.text",
    "belatwist.model",
    "belatwist.errors",
    "belatwist.config",
    "belatwist.procfs",
    "belatwist.metrics.catalogue",
    "belatwist.metrics.telemetry",
    "belatwist.health.snapshot",
    "belatwist.health.status",
    "belatwist.health.document",
    "belatwist.metrics.exposition",
    "belatwist.web.page.query",
    "belatwist.web.page.index",
    "belatwist.store.sql.ranges",
    "belatwist.metrics.names",
    "belatwist.upload.jsonl",
    "belatwist.upload.chunks",
    "belatwist.upload.policy",
)


def modules() -> dict[str, Path]:
    """Find the package's modules by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[str]:
    """Give the dotted names that a module imports, wherever in it the statement stands."""
    path = MODULES[module]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                package = (
                    module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                )
                kept = package[: len(package) - node.level + 1]
                source = ".".join([*kept, source] if source else kept)
            # "from a import b" may name the module a.b, or something that a defines.
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                outside = not source.startswith("belatwist")
                yield inner if outside or inner in MODULES else source


def within(name: str, part: str) -> bool:
    """Tell whether a module is a part or lies in it."""
    return name == part or name.startswith(f"{part}.")


def part_of(module: str) -> str | None:
    """Find the part whose rules a module follows; an entry point follows none."""
    if module in ENTRY_POINTS:
        return None
    return next((part for part in MAY_IMPORT if within(module, part)), None)


def allowed(module: str, imported: str) -> bool:
    """Tell whether a module may import another one of the package."""
    part = part_of(module)
    if part is None or imported == "belatwist" or within(imported, part):
        return True
    return any(
        imported == other if other in INTERFACES else within(imported, other)
        for other in MAY_IMPORT[part]
    )


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m)])
def test_a_part_imports_what_it_may(module: str) -> None:
    """Data flows one way, and nothing downstream is imported upstream."""
    ours = {name for name in imports(module) if within(name, "belatwist")}
    assert {name for name in ours if not allowed(module, name)} == set()


@pytest.mark.parametrize("module", MODULES)
def test_only_an_entry_point_imports_the_reactor(module: str) -> None:
    """Everything else takes it as an argument."""
    if module not in ENTRY_POINTS:
        assert "twisted.internet.reactor" not in set(imports(module))


def test_the_table_has_teeth() -> None:
    """The reading of imports finds the forms there are, and the rules refuse what they must."""
    assert "belatwist.procfs.text" in set(imports("belatwist.procfs.stat"))
    assert "belatwist.config" in set(imports("belatwist.collectors.registry"))
    assert not allowed("belatwist.procfs.stat", "belatwist.model")
    assert not allowed("belatwist.collectors.cpu", "belatwist.config")
    assert not allowed("belatwist.collectors.cpu", "belatwist.store")
    assert not allowed("belatwist.upload.service", "belatwist.store.sqlite")
    assert not allowed("belatwist.receiver.app", "belatwist.upload.http.client")
    assert allowed("belatwist.upload.service", "belatwist.store")
    assert allowed("belatwist.receiver.app", "belatwist.metrics.names")
    assert allowed("belatwist.app", "belatwist.store.sqlite")


def test_the_pure_modules_do_without_twisted() -> None:
    """Imported in a process of their own, they load no module of Twisted."""
    pure = [module for module in MODULES if any(within(module, part) for part in PURE)]
    assert len(pure) > 12
    program = (
        f"import importlib, sys\n"
        f"for name in {pure!r}: importlib.import_module(name)\n"
        f"print(sorted(name for name in sys.modules if name.split('.')[0] == 'twisted'))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")
