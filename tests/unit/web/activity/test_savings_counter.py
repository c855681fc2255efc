"""Savings since they were last written."""

import pytest
from msgspec.structs import replace

from mirror.store.metadata.savings_book import Amounts
from mirror.web.activity import savings_counter
from mirror.web.activity.savings_counter import DAY, SavingsCounter
from tests.unit.web.activity.test_entries import ENDED

PLACE = (3, "hub.test", "team/app")


@pytest.mark.parametrize(
    ("outcome", "amounts"),
    [
        ("hit", Amounts(2, 2, 14)),
        ("join", Amounts(2, 2, 14)),
        ("stale", Amounts(2, 2, 14)),
        ("miss", Amounts(2, 0, 0, 14, 0, 1.0)),
        ("passed", Amounts(2, 0, 0, 14, 0, 1.0)),
        ("denied", None),
        ("error", None),
    ],
)
def test_savings_are_what_was_not_fetched(outcome: str, amounts: Amounts | None) -> None:
    """Neither refusals nor failures count, and neither do lists and errors of an upstream."""
    counter = SavingsCounter(lambda: 3.5 * DAY)
    counter.add(replace(ENDED, outcome=outcome, count=2))
    counter.add(replace(ENDED, outcome=outcome, kind="tags"))
    counter.add(replace(ENDED, outcome=outcome, status=404))
    counter.add(replace(ENDED, outcome=outcome, upstream=None))
    assert counter.take() == ({} if amounts is None else {PLACE: amounts})
    assert counter.take() == {}


def test_bytes_of_upstreams_are_counted_once() -> None:
    """The number so far is given each time; after a restart it begins at nothing."""
    counter = SavingsCounter(lambda: 3.5 * DAY)
    for so_far in (100, 100, 150):
        counter.note_received({"hub.test": so_far})
    assert counter.take() == {(3, "hub.test", ""): Amounts(received=150)}
    counter.note_received({"hub.test": 10})
    assert counter.take() == {}


def test_savings_of_a_flood_of_repositories_count_for_the_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names beyond the limit take no memory, and no amount is lost."""
    monkeypatch.setattr(savings_counter, "MOST_PLACES", 5)
    counter = SavingsCounter(lambda: 3.5 * DAY)
    for number in range(20):
        counter.add(replace(ENDED, repository=f"app{number}"))
    taken = counter.take()
    assert len(taken) == 6
    assert taken[3, "hub.test", ""].requests == 15
