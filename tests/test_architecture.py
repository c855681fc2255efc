"""Layers and doors of DESIGN.md, held by machine: imports go down only, each library has one door."""

import ast
import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mirror"

# Lower layers first. A module may import from its own layer and from those below.
LAYERS = [
    {"oci"},
    {
        "config",
        "fields",
        "heap",
        "settings",
        "log",
        "metrics",
        "tally",
        "tasks",
        "tls",
        "listening",
        "ledger",
    },
    {"store", "upstream"},
    {"cache"},
    {"service"},
    {"web"},
    {
        "notify",
        "workers",
        "serving",
        "cli",
        "cli_cache",
        "cli_common",
        "cli_pins",
        "cli_verify",
        "__main__",
    },
]

# What may be imported, or used, only where; paths are relative to the package.
DOORS = {
    "diskcache": ("store/",),
    "sqlite3": ("store/",),
    "aiofiles": ("store/",),
    "aiohttp.web": ("web/",),
    "aiohttp": ("upstream/", "web/"),
    "prometheus_client": ("metrics.py", "web/probes.py"),
    "tomllib": ("config.py",),
    "os.environ": ("config.py",),
    "os.getenv": ("config.py",),
    "asyncio.create_task": ("tasks.py",),
    "asyncio.ensure_future": ("tasks.py",),
    "pickle": (),
}

MODULES = sorted(PACKAGE.rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    """Once each, without the collector, which Python 3.11 may not survive meanwhile (CPython gh-106905)."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def layer_of(path: Path) -> int:
    """The index in LAYERS of a file of the package; the package's own __init__ is below all."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if first == "__init__":
        return -1
    return next(index for index, names in enumerate(LAYERS) if first in names)


def used(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported, and dotted attribute accesses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def within(name: str, door: str) -> bool:
    return name == door or name.startswith(f"{door}.")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    """A module imports from its own layer or below, and `store` and `upstream` never meet."""
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in used(parsed(path)):
        if not within(name, "mirror") or name == "mirror.__version__":
            continue
        there = name.split(".")[1]
        target = next((index for index, names in enumerate(LAYERS) if there in names), None)
        assert target is not None, f"{name} is in no layer"
        assert target <= layer_of(path), f"{here} imports {name}, which is above it"
        assert {here, there} != {"store", "upstream"}, f"{here} imports {name}"


@pytest.mark.parametrize("door", DOORS)
def test_each_library_has_one_door(door: str) -> None:
    """What DOORS names is used nowhere else in the package."""
    for path in MODULES:
        where = str(path.relative_to(PACKAGE))
        if where.startswith(DOORS[door]) if DOORS[door] else False:
            continue
        names = [name for name in used(parsed(path)) if within(name, door)]
        assert not names, f"{where} uses {names[0]}; only {', '.join(DOORS[door]) or 'nobody'} may"


def test_every_module_has_a_docstring_and_a_test_file() -> None:
    """Each module says what it is for, and has a test file in the same place under tests/unit."""
    tests = PACKAGE.parent / "tests" / "unit"
    for path in MODULES:
        assert ast.get_docstring(parsed(path)), f"{path} has no docstring"
        where = path.relative_to(PACKAGE)
        if path.name in ("__init__.py", "__main__.py"):
            continue
        assert (tests / where.parent / f"test_{where.name}").exists(), f"no test file for {where}"
