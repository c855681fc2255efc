"""What was found out lately: for its time, and no more of it than there is room for."""

from mirror.util.ttl_cache import TTLCache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_for_its_time() -> None:
    """What is put is there until its seconds are over, and what is put again for as long anew."""
    clock = Clock()
    known: TTLCache[str, int] = TTLCache(10, 99, clock)
    assert known.get("a") is None
    known.put("a", 1)
    clock.now = 9.9
    assert known.get("a") == 1
    known.put("a", 2)
    clock.now = 19.8
    assert known.get("a") == 2
    clock.now = 19.9
    assert known.get("a") is None


def test_the_oldest_goes_first() -> None:
    """Where there is no more room; what was put again is not old."""
    known: TTLCache[str, int] = TTLCache(10, 2)
    for key in "abac":
        known.put(key, 1)
    assert [key for key in "abc" if known.get(key)] == ["a", "c"]
