"""Rates of running transfers."""

from mirror.web.activity.rates import Rates


def test_rate_is_that_since_the_last_look() -> None:
    """Looks that come at the same time have the same rate; a number that shrinks is no rate."""
    now = 0.0
    rates = Rates(lambda: now)
    assert rates.rate("a", 100) == 0.0
    now = 2.0
    assert rates.rate("a", 300) == 100.0
    now = 2.1
    assert rates.rate("a", 5000) == 100.0
    now = 4.0
    assert rates.rate("a", 200) == 0.0


def test_rates_of_transfers_that_have_ended_are_forgotten() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    rates.rate("a", 100)
    rates.rate("b", 100)
    rates.keep({"b"})
    now = 1.0
    assert (rates.rate("a", 200), rates.rate("b", 200)) == (0.0, 100.0)
