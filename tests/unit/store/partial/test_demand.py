"""The demand for a blob: parts that were asked for, in chunks."""

import pytest

from mirror.oci.ranges import Span
from mirror.store.partial.demand import EAGER_PREFIX_BYTES, KEPT_HEADERS, Demand

SIZE = 1000
ALL = [Span(0, SIZE)]


def resolved(*headers: str | None, size: int = SIZE, chunk: int = 10) -> Demand:
    demand = Demand()
    demand.resolve(size, chunk)
    for each in headers:
        demand.add(each)
    return demand


@pytest.mark.parametrize(
    ("headers", "gaps"),
    [
        (["bytes=0-1"], [(0, 10)]),
        (["bytes=15-24"], [(10, 30)]),
        (["bytes=-5"], [(990, 1000)]),
        (["bytes=0-1,50-51", "bytes=60-61"], [(0, 10), (50, 70)]),
        (["bytes=2000-3000"], []),
    ],
)
def test_demand_rounds_ranges_to_chunks(headers: list[str], gaps: list[tuple[int, int]]) -> None:
    """Neighbours are one gap; a range beyond the end is none."""
    assert resolved(*headers).gaps(ALL) == [Span(*each) for each in gaps]


@pytest.mark.parametrize("header", [None, "bytes=5-", "bytes=0-999", "bytes=x", "bytes=0-1,5-"])
def test_demand_for_all_of_it(header: str | None) -> None:
    """No range, one without an end, one that has all, and what is answered with the whole."""
    demand = resolved(header)
    assert demand.whole
    assert demand.gaps([Span(3, 4)]) == [Span(3, 4)]


def test_demand_leaves_out_what_is_here() -> None:
    """A chunk that has its first bytes lacks the others; a complete chunk is not looked at again."""
    demand = resolved("bytes=0-29")
    assert demand.gaps([Span(4, 10), Span(20, 500)]) == [Span(4, 10), Span(20, 30)]
    assert demand.gaps([Span(500, 600)]) == []
    assert demand.gaps(ALL) == []


def test_demand_is_resolved_when_the_size_is_known() -> None:
    """Headers are kept until then, and parts survive another size of chunks."""
    demand = Demand()
    demand.add("bytes=-10")
    demand.add("bytes=0-1")
    assert demand.gaps(ALL) == []
    demand.resolve(SIZE, 10)
    assert demand.gaps(ALL) == [Span(0, 10), Span(990, 1000)]
    demand.resolve(SIZE, 100)
    assert demand.gaps(ALL) == [Span(0, 100), Span(900, 1000)]


def test_demand_of_many_clients_before_the_size_is_known() -> None:
    """Memory is bounded: all of it is wanted then."""
    demand = Demand()
    for _ in range(KEPT_HEADERS):
        demand.add("bytes=0-1")
    assert not demand.whole
    demand.add("bytes=0-1")
    assert demand.whole


def test_demand_of_another_process() -> None:
    """A reader there waits at an offset."""
    demand = resolved()
    demand.ask_chunk(995)
    assert demand.gaps(ALL) == [Span(990, 1000)]


def test_demand_of_every_part_is_demand_for_all() -> None:
    """The fill then ends with a verified blob, and is told."""
    demand = resolved("bytes=500-999")
    demand.changed.clear()
    demand.add("bytes=0-499")
    assert demand.whole
    assert demand.changed.is_set()


@pytest.mark.parametrize(
    ("header", "size", "eager"),
    [
        ("bytes=500-999", 1000, True),
        ("bytes=500-899", 1000, False),
        (f"bytes=0-{EAGER_PREFIX_BYTES - 1}", 100 * EAGER_PREFIX_BYTES, True),
        (f"bytes=0-{EAGER_PREFIX_BYTES - 2000}", 100 * EAGER_PREFIX_BYTES, False),
        (f"bytes=1000-{EAGER_PREFIX_BYTES + 1000}", 100 * EAGER_PREFIX_BYTES, False),
    ],
)
def test_demand_of_a_pull_is_eager(header: str, size: int, eager: bool) -> None:
    """Half of the blob, or its beginning up to EAGER_PREFIX_BYTES; parts elsewhere are not."""
    assert resolved(header, size=size, chunk=10 if size == 1000 else 1000).is_eager() is eager
