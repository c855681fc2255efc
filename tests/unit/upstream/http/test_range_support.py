"""Range support of a source."""

from mirror.upstream.http.range_support import DOUBTED_FOR, REFUSED_FOR, RangeSupport


def test_range_support_is_assumed_and_comes_back() -> None:
    """A refusal holds for a while, a doubtful one for a shorter while."""
    ranges = RangeSupport()
    assert ranges.available(0.0)
    ranges.refuse(1.0)
    assert not ranges.available(REFUSED_FOR)
    assert ranges.available(REFUSED_FOR + 1.0)
    ranges.refuse(1.0, DOUBTED_FOR)
    assert ranges.available(DOUBTED_FOR + 1.0)


def test_range_support_is_confirmed_by_an_answer() -> None:
    ranges = RangeSupport()
    ranges.refuse(1.0)
    ranges.confirm()
    assert ranges.available(2.0)
