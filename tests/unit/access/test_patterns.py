"""Patterns: compared as `fnmatch` does, with the case of the letters."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.access.patterns import PatternIndex, is_pattern, matches

TEXTS = st.text("ab/*?[]!-:\n", max_size=8)


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_patterns_match_as_those_of_fnmatch(text: str, patterns: list[str]) -> None:
    assert matches(text, patterns) is any(fnmatchcase(text, each) for each in patterns)


@given(TEXTS, TEXTS)
def test_text_without_wildcard_matches_itself_alone(text: str, pattern: str) -> None:
    if not is_pattern(pattern):
        assert matches(text, [pattern]) is (text == pattern)


@pytest.mark.parametrize(("text", "wild"), [("", False), ("user:a", False), ("*", True), ("a[b", True)])
def test_pattern_is_known_by_its_wildcards(text: str, wild: bool) -> None:
    assert is_pattern(text) is wild


@given(st.lists(st.lists(TEXTS, max_size=3), max_size=4), st.lists(TEXTS, max_size=3))
def test_index_finds_what_a_look_at_each_key_finds(entries: list[list[str]], texts: list[str]) -> None:
    index = PatternIndex((patterns, number) for number, patterns in enumerate(entries))
    found = {
        number for number, patterns in enumerate(entries) if any(matches(each, patterns) for each in texts)
    }
    assert index.find(texts) == found
