"""The memory in front of the disk: bounded, and the least recently used goes first."""

from hypothesis import given
from hypothesis import strategies as st

from mirror.util.lru import OVERHEAD, LRUCache


def test_the_least_recently_used_goes_first() -> None:
    """A look counts as use."""
    recent: LRUCache[str, str] = LRUCache(2 * (OVERHEAD + 1))
    recent.put("a", "A", 1)
    recent.put("b", "B", 1)
    assert recent.get("a") == "A"
    recent.put("c", "C", 1)
    assert [recent.get(key) for key in "abc"] == ["A", None, "C"]


def test_what_is_too_large_drives_nothing_out() -> None:
    """And an older value under its key is gone: it is no longer true."""
    recent: LRUCache[str, str] = LRUCache(2 * (OVERHEAD + 1))
    recent.put("a", "A", 1)
    recent.put("b", "B", 1)
    recent.put("b", "much", 10_000)
    assert (recent.get("a"), recent.get("b")) == ("A", None)


def test_none_at_all() -> None:
    """With a limit of 0 nothing is kept."""
    recent: LRUCache[str, str] = LRUCache(0)
    recent.put("a", "A", 0)
    assert (recent.get("a"), len(recent)) == (None, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3000), st.booleans()), max_size=50))
def test_it_never_holds_more_than_its_limit(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever is put and dropped, the sum is right and within the limit."""
    recent: LRUCache[str, int] = LRUCache(6000)
    for key, length, put in steps:
        if put:
            recent.put(key, length, length)
        else:
            recent.drop(key)
        held = [value for each in "abcdef" if (value := recent.get(each)) is not None]
        assert recent.size == sum(held) + OVERHEAD * len(held) <= 6000


def test_cleared() -> None:
    """Nothing is left, and there is room again."""
    recent: LRUCache[str, str] = LRUCache(OVERHEAD + 1)
    recent.put("a", "A", 1)
    recent.clear()
    assert (recent.get("a"), recent.size) == (None, 0)
