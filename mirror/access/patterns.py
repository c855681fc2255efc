"""Patterns of repositories, tags and principals: `*`, `?` and `[...]`, compared by case."""

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import lru_cache

WILDCARDS = frozenset("*?[")

# Compiled patterns, at most: those of some thousand rules. `fnmatch` itself remembers 256.
COMPILED = 65_536


def is_pattern(text: str) -> bool:
    """Return whether the text has a wildcard in it."""
    return not WILDCARDS.isdisjoint(text)


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Return whether one of the patterns matches the whole text."""
    return any(_compiled(each).match(text) is not None for each in patterns)


@lru_cache(maxsize=COMPILED)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
