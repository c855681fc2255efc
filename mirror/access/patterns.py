"""Patterns of repositories, tags and principals: `*`, `?` and `[...]`, compared by case."""

import re
from collections.abc import Hashable, Iterable, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

WILDCARDS = frozenset("*?[")

# The part of a pattern in front of its first wildcard.
FRONT = re.compile("[^*?[]+")

# Compiled patterns, at most: those of some thousand rules. `fnmatch` itself remembers 256.
COMPILED = 65_536


def is_pattern(text: str) -> bool:
    """Return whether the text has a wildcard in it."""
    return not WILDCARDS.isdisjoint(text)


def matches(text: str, patterns: Sequence[str]) -> bool:
    """Return whether one of the patterns matches the whole text."""
    return any(_compiled(each).match(text) is not None for each in patterns)


class PatternIndex(Generic[K]):
    """Keys with patterns each, found by the texts that the patterns match, without a look at each key.

    A pattern is compared only with texts that begin like the part in front of its first wildcard.
    """

    def __init__(self, entries: Iterable[tuple[Sequence[str], K]]) -> None:
        self._exact: dict[str, set[K]] = {}
        # By the length of that part, and by the part: patterns and their keys.
        self._patterns: dict[int, dict[str, list[tuple[str, K]]]] = {}
        for patterns, key in entries:
            for each in patterns:
                self._add(each, key)

    def _add(self, pattern: str, key: K) -> None:
        if not is_pattern(pattern):
            self._exact.setdefault(pattern, set()).add(key)
            return
        start = FRONT.match(pattern)
        front = "" if start is None else start[0]
        self._patterns.setdefault(len(front), {}).setdefault(front, []).append((pattern, key))

    def find(self, texts: Sequence[str]) -> set[K]:
        """Return the keys with a pattern that matches one of the texts."""
        found = {key for text in texts for key in self._exact.get(text, ())}
        for text in texts:
            for length, by_front in self._patterns.items():
                found.update(key for wild, key in by_front.get(text[:length], ()) if matches(text, (wild,)))
        return found


@lru_cache(maxsize=COMPILED)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
