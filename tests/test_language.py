"""Rules of prose that a machine can hold: openings of docstrings, names of tests, turns to avoid, HELP texts.

CONTRIBUTING.md has the rules that only a reader can hold.
"""

import ast
import gc
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from mirror.metrics.metrics import Metrics
from tests.packages import parametrize_by_package

ROOT = Path(__file__).parent.parent
MODULES = sorted([*(ROOT / "mirror").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

# A docstring opens with a verb in the imperative, or with a noun phrase that has its noun in it.
OPENING = re.compile(
    r"(What|Who|Whom|Whose|Whoever|Whatever|Of|Those|As|For|So|That|How|It|Its|They|Their|Them|Which|Whether"
    r"|If|Be|Until|Where|When|Then|Also|But|And|Nor|Or|By|With|Without|To|In|On|From|This|These)\b"
)

# A test's name begins with the feature: a reader greps for it.
NAME = re.compile(r"test_(what|who|whoever|whatever|of|those|as|for|it|its|that|how|so|they|whose|which)_")

# Turns for which the field has a word, and the word.
TURNS = {
    r"\bthe books\b": "the index, the metadata",
    r"\bkeeps? house\b|\bhouse was kept\b|\bkeeping house\b": "housekeeping",
    r"\banew\b": "again, recreated",
    r"\bby and by\b": "gradually, in the background",
    r"\bby heart\b": "cached",
    r"\bbe it (for|of|in|that|by|on|a|an|with)\b": "even if",
    r"\b(has|had|who|it|source|upstream|that) lied\b|\bliars?\b": "sent wrong bytes, corrupt source",
    r"\bleft alone\b": "its breaker is open, not used",
    r"\bis looked\b": "the subject that looks",
    r"\bso (many|much) (seconds|bytes|times|of)\b": "the name of the parameter",
    r"\bwhoever\b|\bfor himself\b|\bfor ever\b": "the client, the worker, the caller; forever",
    r"\bin vain\b": "without an answer",
    r"\bfor whom\b|\bby whom\b|\bof whom\b": "the noun",
    r"\bis told of\b|\bare told of\b": "receives, is called with",
    r"\bin a row bearable\b|\bmeans to be told\b": "plain words",
}
BANNED = {re.compile(turn, re.IGNORECASE): word for turn, word in TURNS.items()}
ANY_TURN = re.compile("|".join(f"(?:{turn})" for turn in TURNS), re.IGNORECASE)

HERE = Path(__file__)


class Prose(NamedTuple):
    """Lines and texts of docstrings, and names of functions: all of a tree that the rules look at."""

    docstrings: list[tuple[int, str]]
    functions: list[str]


@cache
def prose_of(path: Path) -> Prose:
    """Read a module once; its tree, a hundred times larger than this, goes at once."""
    found = Prose([], [])
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions.append(node.name)
        elif not isinstance(node, ast.Module | ast.ClassDef):
            continue
        if text := ast.get_docstring(node):
            found.docstrings.append((getattr(node, "lineno", 1), text))
    return found


def parsed(path: Path) -> ast.Module:
    """Parse without the collector, which Python 3.11 may not survive meanwhile (CPython gh-106905)."""
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each package: one of each file would cost more for pytest's sake than for the rules'."""
    if "paths" in metafunc.fixturenames:
        parametrize_by_package(metafunc, [*MODULES, *PAGES], ROOT, depth=2)


def test_docstrings_open_with_a_verb_or_a_noun(paths: list[Path]) -> None:
    """No docstring opens with a pronoun, a conjunction or a preposition."""
    assert [
        f"{short(path)}:{line}: {text.splitlines()[0]}"
        for path in paths
        if path.suffix == ".py"
        for line, text in prose_of(path).docstrings
        if OPENING.match(text)
    ] == []


def test_names_of_tests_begin_with_the_feature(paths: list[Path]) -> None:
    """No test is named by a relative clause."""
    assert [
        f"{short(path)}: {name}"
        for path in paths
        if path.suffix == ".py" and "tests" in path.parts
        for name in prose_of(path).functions
        if NAME.match(name)
    ] == []


def test_prose_uses_the_fields_words(paths: list[Path]) -> None:
    """No code, comment or page has a turn of TURNS; the message names the better word."""
    found = [
        f"{short(path)}:{number}: {line.strip()} -> {word}"
        for path in paths
        if path != HERE
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ANY_TURN.search(line)
        for turn, word in BANNED.items()
        if turn.search(line)
    ]
    assert found == []


def test_help_of_metrics_is_a_sentence_with_a_subject() -> None:
    """Each HELP opens with a capital or a digit, ends with a full stop, and has three words at least."""
    for family in Metrics().families():
        if not family.name.startswith("registry_mirror_"):
            continue  # prometheus_client's own
        assert re.fullmatch(r"[A-Z0-9].*\.", family.documentation), family.name
        assert not OPENING.match(family.documentation), f"{family.name}: {family.documentation}"
        assert len(family.documentation.split()) >= 3, f"{family.name}: {family.documentation}"
