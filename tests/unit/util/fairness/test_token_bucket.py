"""Token buckets by a clock of the test: never more than the burst and the rate allow, and all of that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.util.fairness.token_bucket import TokenBucket


class Clock:
    """A clock that goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_bucket_gives_a_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, 10, clock=clock)
    for _ in range(10):
        assert bucket.wait(1) == 0
        bucket.take(1)
    assert bucket.wait(1) == 0.5
    clock.now += 0.5
    assert bucket.wait(1) == 0
    bucket.take(1)
    assert bucket.wait(1) == 0.5


def test_bucket_lets_who_takes_ahead_wait_for_those_before() -> None:
    """Debts add up: each further take is due one token later."""
    bucket = TokenBucket(4.0, 1, clock=Clock())
    waits = []
    for _ in range(4):
        waits.append(bucket.wait(1))
        bucket.take(1)
    assert waits == [0, 0.25, 0.5, 0.75]


def test_bucket_saves_no_more_than_its_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(100.0, 5, clock=clock)
    clock.now += 3600
    assert bucket.tokens == 5
    bucket.take(7)
    assert bucket.tokens == pytest.approx(-2)


def test_bucket_gives_more_than_its_burst_only_when_it_is_full() -> None:
    clock = Clock()
    bucket = TokenBucket(1.0, 5, clock=clock)
    assert bucket.wait(50) == 0
    bucket.take(1)
    assert bucket.wait(50) == 1


def test_bucket_state_is_one_number_that_others_can_have() -> None:
    """Two workers on one cell are one bucket; the cell beside it is another."""
    cells = [0.0, 0.0]
    first, second, other = (TokenBucket(1.0, 2, cells, index, Clock()) for index in (1, 1, 0))
    first.take(2)
    assert second.wait(1) == 1
    assert other.wait(1) == 0


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20)), max_size=50),
    st.floats(0.5, 100),
    st.integers(1, 50),
)
def test_bucket_never_gives_more_than_burst_and_rate(
    steps: list[tuple[float, int]], rate: float, burst: int
) -> None:
    """Takes without a wait add up to the burst and the rate times the time, at most."""
    clock = Clock()
    bucket, began, taken = TokenBucket(rate, burst, clock=clock), clock.now, 0
    for pause, wanted in steps:
        clock.now += pause
        amount = min(wanted, burst)
        if bucket.wait(amount) == 0:
            bucket.take(amount)
            taken += amount
        assert taken <= burst + rate * (clock.now - began) + 1e-6
