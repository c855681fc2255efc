"""Gaps of a blob that is read by ranges: which are fetched, and when."""

from collections.abc import Sequence
from typing import cast

import pytest

from mirror.oci.ranges import Span
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.transfer.sources.rest import IDLE_SECONDS, LINGER_SECONDS, SMALL_PARTS, RestPolicy, RestWay

SIZE = 1000


class Growing:
    """The face of a growing file that the policy sees."""

    def __init__(self) -> None:
        self.gaps: list[Span] = [Span(0, SIZE)]
        self.withheld = False
        self.asked: tuple[list[int], bool] = ([], False)

    def missing(self) -> Sequence[Span]:
        return self.gaps

    def release_tail(self) -> None:
        pass

    def remote_requests(self) -> tuple[list[int], bool]:
        return self.asked


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.idle = 0.0


def policy(way: RestWay, clock: Clock, *headers: str) -> tuple[RestPolicy, GrowingFile, Growing]:
    demand, growing = Demand(), Growing()
    demand.resolve(SIZE, 10)
    for each in headers:
        demand.add(each)
    made = RestPolicy(way, demand, lambda: clock.idle, lambda: clock.now)
    return made, cast(GrowingFile, growing), growing


def test_rest_always_fetches_all() -> None:
    """The demand is for the whole at once."""
    rest, growing, _ = policy(RestWay.ALWAYS, Clock(), "bytes=0-1")
    assert rest.gaps(growing) == [Span(0, SIZE)]
    assert not rest.parked
    assert not rest.fetches_rest


def test_rest_idle_waits_until_no_client_waits() -> None:
    """Asked parts come first; the rest over one connection, until a client waits again."""
    clock = Clock()
    rest, growing, fake = policy(RestWay.IDLE, clock, "bytes=0-9")
    assert rest.gaps(growing) == [Span(0, 10)]
    fake.gaps = [Span(10, SIZE)]
    assert rest.gaps(growing) == ()
    assert rest.parked
    clock.idle = IDLE_SECONDS
    assert rest.gaps(growing) == [Span(10, SIZE)]
    assert (rest.fetches_rest, rest.parked, rest.level(fake.gaps, 8, 8)) == (True, False, 1)
    clock.idle = 0.0
    assert rest.gaps(growing) == ()
    assert not rest.fetches_rest
    rest.attended = False
    clock.now = 10 * LINGER_SECONDS
    assert not rest.is_over(growing)


def test_rest_never_ends_some_time_after_the_last_client() -> None:
    """Not while a client is here, nor while something is missing that was asked for."""
    clock = Clock()
    rest, growing, fake = policy(RestWay.NEVER, clock, "bytes=0-9")
    clock.idle = 1e9
    assert rest.gaps(growing) == [Span(0, 10)]
    fake.gaps = [Span(10, SIZE)]
    assert rest.gaps(growing) == ()
    clock.now = 2 * LINGER_SECONDS
    assert rest.gaps(growing) == ()
    assert not rest.is_over(growing)
    rest.attended = False
    assert not rest.is_over(growing)
    clock.now += LINGER_SECONDS
    assert rest.is_over(growing)
    fake.gaps = []
    assert rest.is_over(growing)


@pytest.mark.parametrize(("withheld", "asked"), [(True, ([], False)), (False, ([0], True))])
def test_rest_of_a_blob_that_is_needed_whole(withheld: bool, asked: tuple[list[int], bool]) -> None:
    """A blob that is verified before any byte is sent, or that a client of another process reads whole."""
    rest, growing, fake = policy(RestWay.NEVER, Clock(), "bytes=0-9")
    fake.withheld, fake.asked = withheld, asked
    assert rest.gaps(growing) == [Span(0, SIZE)]


def test_rest_takes_what_other_processes_wait_for() -> None:
    """Readers there leave an offset in the chunk map."""
    rest, growing, fake = policy(RestWay.NEVER, Clock())
    fake.asked = ([500], False)
    assert rest.gaps(growing) == [Span(500, 510)]


def test_rest_small_parts_are_requested_at_once() -> None:
    """Each with a request of its own, up to the maximum; what is long is planned as for a whole blob."""
    rest, _, _ = policy(RestWay.NEVER, Clock())
    parts = [Span(start, start + 10) for start in range(0, 500, 50)]
    assert rest.level(parts, 1, 8) == 8
    assert rest.level(parts[:3], 1, 8) == 3
    assert rest.level([Span(0, SMALL_PARTS + 1)], 2, 8) == 2
    assert rest.length(1000) == SMALL_PARTS
    rest.demand.set_whole()
    assert (rest.level(parts, 1, 8), rest.length(1000)) == (1, 1000)
