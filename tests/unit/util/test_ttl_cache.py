"""The TTL cache: entries expire, and the oldest are dropped beyond the maximum."""

from mirror.util.ttl_cache import TTLCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ttl_cache_forgets_after_ttl() -> None:
    """An entry expires after its TTL; putting the key again restarts the TTL."""
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(10, 99, clock)
    assert cache.get("a") is None
    cache.put("a", 1)
    clock.now = 9.9
    assert cache.get("a") == 1
    cache.put("a", 2)
    clock.now = 19.8
    assert cache.get("a") == 2
    clock.now = 19.9
    assert cache.get("a") is None


def test_ttl_cache_drops_the_oldest_beyond_its_maximum() -> None:
    """A full cache drops the oldest entry; an entry that was put again is not old."""
    cache: TTLCache[str, int] = TTLCache(10, 2)
    for key in "abac":
        cache.put(key, 1)
    assert [key for key in "abc" if cache.get(key)] == ["a", "c"]


def test_ttl_cache_keeps_no_expired_entries() -> None:
    """Entries that nobody asks for again are dropped by the next one that is put."""
    clock = Clock()
    cache: TTLCache[int, int] = TTLCache(10, 1000, clock)
    for key in range(100):
        clock.now = float(key)
        cache.put(key, 1)
    assert len(cache._entries) == 10
