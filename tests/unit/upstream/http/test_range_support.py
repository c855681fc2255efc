"""Range support of a source."""

from mirror.upstream.http.range_support import DOUBTED_FOR, REFUSED_FOR, RangeSupport


def test_range_support_is_assumed_and_comes_back() -> None:
    """A refusal holds for a while, a doubtful one for a shorter while."""
    now = 0.0
    ranges = RangeSupport(lambda: now)
    assert ranges.available
    now = 1.0
    ranges.refuse()
    now = REFUSED_FOR
    assert not ranges.available
    now = REFUSED_FOR + 1.0
    assert ranges.available
    now = 1.0
    ranges.refuse(DOUBTED_FOR)
    now = DOUBTED_FOR + 1.0
    assert ranges.available


def test_range_support_is_confirmed_by_an_answer() -> None:
    ranges = RangeSupport(lambda: 1.0)
    ranges.refuse()
    ranges.confirm()
    assert ranges.available
