"""Layers and doors of docs/architecture.md, held by machine: imports go down only, a library has one door."""

import ast
import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from tests.packages import parametrize_by_package

PACKAGE = Path(__file__).parent.parent / "mirror"

# Lower layers first. A module may import from its own package and from packages of lower layers.
LAYERS = [
    {"oci"},
    {"util", "metrics"},
    {"access", "credentials"},
    {"config", "bundle"},
    {"system", "setup"},
    {"store", "upstream", "shared"},
    {"transfer"},
    {"cache", "manage", "doctor"},
    {"hosted"},
    {"service"},
    {"web"},
    {"server"},
    {"cli"},
    {"__main__"},
]

# How many modules one folder may hold before it needs wings, and the folders that hold more: none. A folder
# may leave this table, and its number may only shrink.
MOST_MODULES = 16
CROWDED: dict[str, int] = {}

# The modules of aiohttp whose names its documentation offers. All others are inner ones, which an upgrade may
# change; they and private names are used by the adapter of the server and by that of the client.
OFFERED = {"abc", "hdrs", "web"}
INNER_MODULES = sorted(
    path.stem
    for path in Path(aiohttp.__file__).parent.glob("*.py")
    if not path.stem.startswith("_") and path.stem not in OFFERED
)
AIOHTTP_DOORS = (
    "web/connections/aiohttp_internals.py",
    "upstream/http/aiohttp_internals.py",
)

# What may be imported, or used, only where; paths are relative to the package.
DOORS = {
    "diskcache": ("store/",),
    "sqlite3": ("store/",),
    "aiofiles": ("store/",),
    "aiohttp.web": ("web/",),
    "aiohttp": ("upstream/", "web/", "shared/upkeep/open_uploads.py"),
    # The inner parts of aiohttp, which an upgrade may change.
    **{f"aiohttp.{module}": AIOHTTP_DOORS for module in INNER_MODULES},
    "prometheus_client": ("metrics/metrics.py", "metrics/families.py"),
    "tomllib": ("config/",),
    "tomlkit": ("setup/",),
    "ruamel.yaml": ("setup/", "manage/warm/"),
    "packaging": ("manage/warm/",),
    "jwt": ("access/jwt/",),
    "cronsim": ("config/",),
    "pydantic": (),
    "os.environ": ("config/",),
    "os.getenv": ("config/",),
    "asyncio.create_task": ("util/tasks.py",),
    "asyncio.ensure_future": ("util/tasks.py",),
    "pickle": (),
    "bcrypt": ("web/identity/passwords.py",),
    "argon2": ("web/identity/passwords.py",),
    "opentelemetry": ("util/tracing/otel.py",),
    "obstore": ("shared/s3.py",),
    "redis": ("shared/redis_leases.py",),
    "jinja2": ("web/admin/pages/render.py",),
    "zstandard": ("bundle/archives/stream.py",),
}

# SQL is text that begins like this, or the use of a connection; it is found here only.
SQL = re.compile(r"(SELECT|INSERT (OR [A-Z]+ )?INTO|UPDATE \w+ SET|DELETE FROM|CREATE [A-Z]+|PRAGMA)\s")
SQL_DOOR = "store/metadata/"

# The private names of a library, each used in one adapter only: what an upgrade of the library may change.
PRIVATE = {
    "_sql": "store/metadata/",  # diskcache.Cache
}

# The most public methods of a class, properties and inherited ones included, and the classes that have more,
# with their number: none. A class may leave this table, and its number may only shrink.
MOST_METHODS = 15
LARGE: dict[str, int] = {}

# The longest function and the longest module, in lines.
LONGEST_FUNCTION, LONGEST_MODULE = 50, 400

MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES}


def parsed(path: Path) -> ast.Module:
    """Parse without the collector, which Python 3.11 may not survive meanwhile (CPython gh-106905)."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def package_of(name: str) -> str:
    """The package, or the module beside the packages, of a dotted name below `mirror`."""
    return name.split(".")[1] if "." in name else ""


def layer_of(package: str) -> int:
    """The index in LAYERS; `mirror` itself, which holds the version, is below all."""
    if not package:
        return -1
    found = next((index for index, names in enumerate(LAYERS) if package in names), None)
    assert found is not None, f"{package} is in no layer"
    return found


def wing_of(module: str) -> str:
    """A module that stands for itself, or the wing (`mirror.store.blobs`) that it belongs to."""
    return ".".join(module.split(".")[:3])


def name_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


class Module(NamedTuple):
    """Names that the rules look at; the tree that they come from is a hundred times larger."""

    documented: bool
    imports: list[str]
    uses: set[str]
    classes: list[str]
    long_functions: list[str]
    methods: dict[str, tuple[set[str], list[str]]]
    sql: list[str]
    attributes: set[str]


@cache
def module_of(path: Path) -> Module:
    """Parse a file once, for all rules."""
    tree = parsed(path)
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    return Module(
        bool(ast.get_docstring(tree)),
        list(imported(tree)),
        set(used(tree)),
        classes,
        long_functions(tree),
        public_methods(tree),
        sql_texts(tree),
        {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)},
    )


def public_methods(tree: ast.Module) -> dict[str, tuple[set[str], list[str]]]:
    """The public methods of each class, properties included, and the names of its bases."""
    return {
        node.name: (
            {
                each.name
                for each in node.body
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.name.startswith("_")
            },
            [base.id for base in node.bases if isinstance(base, ast.Name)],
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def sql_texts(tree: ast.Module) -> list[str]:
    """Texts that are SQL."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value.lstrip())
    ]


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of the package that a file imports, at its head and in its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and within(node.module, "mirror"):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in NAMES else node.module


def used(tree: ast.AST) -> Iterator[str]:
    """Dotted names that are imported, and dotted attribute accesses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def long_functions(tree: ast.AST) -> list[str]:
    """Names of functions that are too long."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]


def within(name: str, door: str) -> bool:
    return name == door or name.startswith(f"{door}.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each package."""
    if "paths" in metafunc.fixturenames:
        parametrize_by_package(metafunc, MODULES, PACKAGE, depth=1)


def test_imports_go_down_only(paths: list[Path]) -> None:
    """A module imports from its own package or from lower layers, never from a package beside its own."""
    for path in paths:
        here = package_of(name_of(path))
        for name in module_of(path).imports:
            there = package_of(name)
            if there != here:
                where = path.relative_to(PACKAGE)
                assert layer_of(there) < layer_of(here), f"{where} imports {name}, which is not below it"


@pytest.mark.parametrize("node_of", [str, wing_of, package_of], ids=["modules", "wings", "packages"])
def test_imports_make_no_cycle(node_of: Callable[[str], str]) -> None:
    """Modules, wings and packages can each be put in an order in which every import points backwards."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        here = node_of(name_of(path))
        graph.setdefault(here, set()).update({node_of(name) for name in module_of(path).imports} - {here})
    TopologicalSorter(graph).prepare()


def test_no_folder_is_crowded() -> None:
    """A folder holds at most MOST_MODULES modules, or as many as CROWDED allows it for now."""
    folders = Counter(str(p.parent.relative_to(PACKAGE)) for p in MODULES if p.name != "__init__.py")
    crowded = {folder: count for folder, count in folders.items() if count > MOST_MODULES}
    assert crowded == CROWDED


@pytest.mark.parametrize("door", DOORS)
def test_each_library_has_one_door(door: str) -> None:
    """Each name in DOORS is used nowhere else in the package."""
    for path in MODULES:
        where = str(path.relative_to(PACKAGE))
        if where.startswith(DOORS[door]) if DOORS[door] else False:
            continue
        names = [name for name in module_of(path).uses if within(name, door)]
        assert not names, f"{where} uses {names[0]}; only {', '.join(DOORS[door]) or 'nobody'} may"


def test_every_module_has_a_docstring_and_a_test_file() -> None:
    """Each module says what it is for, and has a test file in the same place under tests/unit."""
    tests = PACKAGE.parent / "tests" / "unit"
    for path in MODULES:
        assert module_of(path).documented, f"{path} has no docstring"
        where = path.relative_to(PACKAGE)
        if path.name in ("__init__.py", "__main__.py"):
            continue
        assert (tests / where.parent / f"test_{where.name}").exists(), f"no test file for {where}"


def test_functions_and_modules_are_short() -> None:
    """A reader takes in a function at a glance, and a module in one sitting."""
    long = [
        f"{path.relative_to(PACKAGE)}: {name}" for path in MODULES for name in module_of(path).long_functions
    ]
    long += [
        str(path.relative_to(PACKAGE)) for path in MODULES if path.read_text().count("\n") > LONGEST_MODULE
    ]
    assert long == []


def test_class_names_are_unique() -> None:
    """A name means one thing; private classes of a module are its own business."""
    found = Counter(name for path in MODULES for name in module_of(path).classes if not name.startswith("_"))
    assert [name for name, count in sorted(found.items()) if count > 1] == []


def test_public_classes_are_small() -> None:
    """A public class has at most MOST_METHODS public methods, or as many as LARGE allows it for now."""
    known = {name: found for path in MODULES for name, found in module_of(path).methods.items()}

    def count(name: str) -> set[str]:
        own, bases = known.get(name, (set(), []))
        return own.union(*map(count, bases))

    counts = {name: len(count(name)) for name in known if not name.startswith("_")}
    assert {name: number for name, number in counts.items() if number > MOST_METHODS} == LARGE


def test_sql_and_private_names_of_libraries_have_one_door(paths: list[Path]) -> None:
    """SQL is in the wing of the databases alone; what a library keeps private is used by one adapter."""
    for path in paths:
        where = str(path.relative_to(PACKAGE))
        if not where.startswith(SQL_DOOR):
            assert module_of(path).sql == [], f"{where} has SQL"
        for name, door in PRIVATE.items():
            assert where.startswith(door) or name not in module_of(path).attributes, f"{where} uses {name}"


@cache
def private_names_of_aiohttp() -> frozenset[str]:
    """Private attributes that aiohttp's classes give themselves."""
    sources = (path.read_text() for path in Path(aiohttp.__file__).parent.glob("*.py"))
    return frozenset(name for source in sources for name in re.findall(r"\bself\.(_[a-z]\w*)", source))


@cache
def extensions_of_aiohttp() -> frozenset[str]:
    """Classes of the package that have a base of aiohttp, at any distance."""
    heads = (re.findall(r"^class (\w+)\(([^)]*)\):", path.read_text(), re.MULTILINE) for path in MODULES)
    bases = {name: set(re.findall(r"[\w.]+", of)) for each in heads for name, of in each}
    found = {name for name, of in bases.items() if any(base.startswith(("web.", "aiohttp.")) for base in of)}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return frozenset(found)


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if "aiohttp" in path.read_text()],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_private_names_of_aiohttp_have_two_doors(path: Path) -> None:
    """No module uses a private name of aiohttp, nor a class that extends one of aiohttp's."""
    if str(path.relative_to(PACKAGE)) in AIOHTTP_DOORS:
        return
    private, found = private_names_of_aiohttp(), []
    for node in parsed(path).body:
        extends = isinstance(node, ast.ClassDef) and node.name in extensions_of_aiohttp()
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and each.attr in private:
                own = isinstance(each.value, ast.Name) and each.value.id in ("self", "cls")
                found += [f"{each.lineno}: {ast.unparse(each)}"] if extends or not own else []
    assert found == []
