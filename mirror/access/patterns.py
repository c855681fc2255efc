"""Patterns of repositories, tags and principals: `*`, `?` and `[...]`, compared by case."""

import re
from collections.abc import Hashable, Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

WILDCARDS = frozenset("*?[")

# Compiled patterns, at most: those of some thousand rules. `fnmatch` itself remembers 256.
COMPILED = 65_536


def is_pattern(text: str) -> bool:
    """Return whether the text has a wildcard in it."""
    return not WILDCARDS.isdisjoint(text)


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Return whether one of the patterns matches the whole text."""
    return any(_compiled(each).match(text) is not None for each in patterns)


class PatternIndex(Generic[K]):
    """Keys with patterns each, found by the texts that the patterns match, without a look at each key."""

    def __init__(self, entries: Iterable[tuple[Sequence[str], K]]) -> None:
        self._exact: dict[str, set[K]] = {}
        self._patterns: list[tuple[Sequence[str], K]] = []
        for patterns, key in entries:
            for text in (each for each in patterns if not is_pattern(each)):
                self._exact.setdefault(text, set()).add(key)
            if wild := tuple(filter(is_pattern, patterns)):
                self._patterns.append((wild, key))

    def find(self, texts: Sequence[str]) -> set[K]:
        """Return the keys with a pattern that matches one of the texts."""
        found = {key for text in texts for key in self._exact.get(text, ())}
        found.update(key for wild, key in self._patterns if any(matches(text, wild) for text in texts))
        return found


@lru_cache(maxsize=COMPILED)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
