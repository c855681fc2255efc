"""Heads seen once: told from those that come again, in bounded memory."""

from mirror.web.fastpath.seen_once import SeenOnce


def test_seen_once_tells_the_second_time() -> None:
    seen = SeenOnce(10)
    assert [seen.again(each) for each in ("a", "b", "a", "a")] == [False, False, True, True]


def test_seen_once_forgets_all_when_it_is_full() -> None:
    seen = SeenOnce(2)
    assert [seen.again(each) for each in ("a", "b", "c", "a", "c")] == [False, False, False, False, True]
