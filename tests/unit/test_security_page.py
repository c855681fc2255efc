"""docs/security.md: each threat names its test, each container that is bounded stands in its table."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"

# Threats that no code of the mirror prevents, by words of theirs.
UNTESTED = ("a layer of an immutable tag is deleted",)


def threats() -> list[list[str]]:
    """Return the cells of the rows of the table of threats."""
    text = PAGE.read_text().partition("| component | | threat |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()[2:]]


@cache
def has_tests(name: str) -> bool:
    return (
        re.search(r"^(?:async )?def test_|^ +def test_|TestCase$", (ROOT / name).read_text(), re.M)
        is not None
    )


@pytest.mark.parametrize("row", threats(), ids=lambda row: row[2][:40])
def test_threats_name_their_tests(row: list[str]) -> None:
    """A threat has a file of tests at least, and there are tests in it."""
    named = re.findall(r"`(tests/[\w/]+\.py)`", row[-1])
    assert named or row[2].startswith(UNTESTED)
    assert [each for each in named if not has_tests(each)] == []


def bounded_containers() -> Iterator[str]:
    """Yield class and attribute of the containers in the mirror that are made with a bound."""
    for path in (ROOT / "mirror").rglob("*.py"):
        for kind in ast.walk(ast.parse(path.read_text())):
            if isinstance(kind, ast.ClassDef):
                yield from (f"{kind.name}.{name}" for name in made_in(kind))


def made_in(kind: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(kind):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            called = node.value.func
            if isinstance(called, ast.Name) and called.id in ("LRUCache", "TTLCache"):
                assert isinstance(target, ast.Attribute)
                yield target.attr


def test_bounded_containers_stand_on_the_page() -> None:
    """The table has every container with a bound in bytes or in entries."""
    found, text = set(bounded_containers()), PAGE.read_text()
    assert len(found) > 40
    assert [each for each in sorted(found) if f"`{each}`" not in text] == []
