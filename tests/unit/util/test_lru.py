"""The LRU cache: bounded in bytes, and the least recently used entry goes first."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.util.lru import OVERHEAD, LRUCache


def test_lru_evicts_the_least_recently_used() -> None:
    """A lookup counts as use."""
    cache: LRUCache[str, str] = LRUCache(2 * (OVERHEAD + 1))
    cache.put("a", "A", 1)
    cache.put("b", "B", 1)
    assert cache.get("a") == "A"
    cache.put("c", "C", 1)
    assert [cache.get(key) for key in "abc"] == ["A", None, "C"]


def test_lru_rejects_an_oversized_value() -> None:
    """An oversized value evicts no other entry, but the older value of its key is dropped as outdated."""
    cache: LRUCache[str, str] = LRUCache(2 * (OVERHEAD + 1))
    cache.put("a", "A", 1)
    cache.put("b", "B", 1)
    cache.put("b", "much", 10_000)
    assert (cache.get("a"), cache.get("b")) == ("A", None)


def test_lru_with_limit_0_keeps_nothing() -> None:
    """A limit of 0 turns the cache off."""
    cache: LRUCache[str, str] = LRUCache(0)
    cache.put("a", "A", 0)
    assert (cache.get("a"), len(cache)) == (None, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.booleans()), max_size=50))
def test_lru_never_exceeds_its_limit(steps: list[tuple[str, int, bool]]) -> None:
    """After any steps the size is the exact sum and within the limit."""
    cache: LRUCache[str, int] = LRUCache(6000)
    for key, length, put in steps:
        if put:
            cache.put(key, length, length)
        else:
            cache.drop(key)
        held = [value for each in "abcdef" if (value := cache.get(each)) is not None]
        assert cache.size == sum(held) + OVERHEAD * len(held) <= 6000


def test_lru_clear() -> None:
    """A cleared cache is empty and has its whole room again."""
    cache: LRUCache[str, str] = LRUCache(OVERHEAD + 1)
    cache.put("a", "A", 1)
    cache.clear()
    assert (cache.get("a"), cache.size) == (None, 0)
