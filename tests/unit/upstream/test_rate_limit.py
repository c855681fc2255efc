"""Rate limits of accounts: any header is read without an error, and every reading expires."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from mirror.upstream.rate_limit import (
    BUDGET_LEVELS,
    LONGEST,
    LOW,
    OUT,
    PLENTY,
    SHORT,
    SPARE,
    BudgetLevel,
    RateLimit,
    RateLimitReading,
)
from tests.fakes.upstream import FakeTime


def observed(time: FakeTime, status: int = 200, **headers: str) -> RateLimit:
    """Return a rate limit after one answer; underscores stand for hyphens."""
    rate_limit = RateLimit(time)
    rate_limit.observe(CIMultiDict({name.replace("_", "-"): text for name, text in headers.items()}), status)
    return rate_limit


@pytest.mark.parametrize(
    ("limit", "remaining", "reading"),
    [
        ("100;w=21600", "20;w=21600", RateLimitReading(20, 100, 21600)),
        ("100;w=21600", "20", RateLimitReading(20, 100, 21600)),
        ("100", "20;w=60", RateLimitReading(20, 100, 60)),
        ("100", "20", RateLimitReading(20, 100)),
        (" 100 ; w=60", " 20 ", RateLimitReading(20, 100, 60)),
        ("10, 10;w=1, 50;w=60", "9", RateLimitReading(9, 10, 1)),
        ("100;w=0", "20", RateLimitReading(20, 100)),
        (None, "20", RateLimitReading(20)),
        ("many", "20", RateLimitReading(20)),
        ("100", None, None),
        ("100", "", None),
        ("100", "-1", None),
        ("100", "1.5", None),
        ("100", "few", None),
        ("100", "\u0663", None),
        ("100", "9" * 40, None),
    ],
)
def test_rate_limit_headers(
    limit: str | None, remaining: str | None, reading: RateLimitReading | None
) -> None:
    """Headers are read as Docker Hub sends them, as others do, and if they are nonsense."""
    given = {"RateLimit-Limit": limit, "RateLimit-Remaining": remaining}
    rate_limit = RateLimit(FakeTime())
    rate_limit.observe(CIMultiDict({name: text for name, text in given.items() if text is not None}), 200)
    # A window of 0 would expire at once: it counts as none.
    assert (
        rate_limit.reading
        and (rate_limit.reading.remaining, rate_limit.reading.limit, rate_limit.reading.window or None)
    ) == (reading and (reading.remaining, reading.limit, reading.window))


@pytest.mark.parametrize(
    ("limit", "remaining", "level"),
    [
        ("100", "100", PLENTY),
        ("100", "51", PLENTY),
        ("100", "50", SPARE),
        ("100", "26", SPARE),
        ("100", "25", LOW),
        ("100", "11", LOW),
        ("100", "10", OUT),
        ("100", "0", OUT),
        ("100", "500", PLENTY),
        ("0", "5", PLENTY),
        ("0", "0", OUT),
        ("1", "1", PLENTY),
    ],
)
def test_budget_level_by_share_of_the_limit(limit: str, remaining: str, level: BudgetLevel) -> None:
    """The share of the limit counts; without a known limit, whether anything is left."""
    assert observed(FakeTime(), ratelimit_limit=limit, ratelimit_remaining=remaining).budget_level is level


def test_budget_levels_are_in_order() -> None:
    """Each level spares more than the one before."""
    assert [each.share for each in BUDGET_LEVELS] == sorted(each.share for each in BUDGET_LEVELS)
    assert [each.ttl_factor for each in BUDGET_LEVELS] == sorted(
        (each.ttl_factor for each in BUDGET_LEVELS), reverse=True
    )
    assert [each.prefetch for each in BUDGET_LEVELS] == sorted(each.prefetch for each in BUDGET_LEVELS)
    assert (PLENTY.ttl_factor, OUT.ttl_factor) == (1, math.inf)


def test_rate_limit_without_headers() -> None:
    """Paid accounts and most registries report no limit; an earlier reading stays."""
    time = FakeTime()
    rate_limit = observed(time)
    assert (rate_limit.reading, rate_limit.budget_level, rate_limit.refused) == (None, PLENTY, False)
    rate_limit = observed(time, ratelimit_limit="10", ratelimit_remaining="1")
    rate_limit.observe(CIMultiDict(), 200)
    assert rate_limit.budget_level is OUT


@pytest.mark.parametrize(("window", "seconds"), [("21600", LONGEST), ("30", 30), ("0", SHORT), ("x", SHORT)])
def test_rate_limit_reading_expires(window: str, seconds: float) -> None:
    """A reading expires with its window, a long one earlier: else a refilled budget would go unnoticed."""
    time = FakeTime()
    rate_limit = observed(time, ratelimit_limit=f"100;w={window}", ratelimit_remaining=f"0;w={window}")
    time.now += seconds - 1
    assert rate_limit.budget_level is OUT
    time.now += 1
    assert (rate_limit.budget_level, rate_limit.reading) == (PLENTY, None)


@pytest.mark.parametrize(
    ("limit", "remaining", "seconds"),
    [
        ("100;w=21600", "20;w=21600", 21600),
        ("100;w=21600", "20", 21600),
        ("100", "20", None),
        ("100;w=21600", "100;w=21600", None),
        ("100;w=0", "20;w=0", None),
    ],
)
def test_rate_limit_renews_a_window_after_its_reading(
    limit: str, remaining: str, seconds: float | None
) -> None:
    """Nothing is known of the renewal without a window, or while nothing is used."""
    time = FakeTime()
    rate_limit = observed(time, ratelimit_limit=limit, ratelimit_remaining=remaining)
    assert rate_limit.renews_in == seconds
    if seconds is not None:
        time.now += 10
        assert rate_limit.renews_in == seconds - 10
        time.now += LONGEST
        assert rate_limit.renews_in is None


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("retry_after", "seconds"), [("20", 20), ("86400", LONGEST)])
def test_rate_limit_retry_after_is_kept(status: int, retry_after: str, seconds: float) -> None:
    """The budget is out while a Retry-After runs, up to the time after which the upstream is asked again."""
    time = FakeTime()
    rate_limit = observed(time, status, Retry_After=retry_after)
    time.now += seconds - 1
    assert (rate_limit.budget_level, rate_limit.refused) == (OUT, status == 429)
    time.now += 1
    assert (rate_limit.budget_level, rate_limit.refused) == (PLENTY, False)


def test_rate_limit_429_without_headers() -> None:
    """The account pauses for a while if there is another; the budget is not known to be out."""
    time = FakeTime()
    rate_limit = observed(time, 429)
    assert (rate_limit.budget_level, rate_limit.refused) == (PLENTY, True)
    time.now += SHORT
    assert not rate_limit.refused


def test_rate_limit_retry_after_of_a_success_is_ignored() -> None:
    """Retry-After has a meaning with 429 and 503 only."""
    assert observed(FakeTime(), 200, Retry_After="60").budget_level is PLENTY


def test_rate_limit_source_is_printable_and_short() -> None:
    """The source is printable and short, as sent or not."""
    reading = observed(FakeTime(), ratelimit_remaining="1", docker_ratelimit_source="203.0.113.7").reading
    assert reading is not None
    assert reading.source == "203.0.113.7"
    reading = observed(
        FakeTime(), ratelimit_remaining="1", docker_ratelimit_source="a\x1b[2J\n" + "x" * 999
    ).reading
    assert reading is not None
    assert reading.source is not None
    assert reading.source.isprintable()
    assert len(reading.source) <= 100


DATES = st.builds(
    "Thu, {} Jan {} {}:00:00 {}".format,
    st.integers(-1, 10**25),
    st.integers(-1, 10**25),
    st.integers(0, 10**12),
    st.sampled_from(["GMT", "-0000", "+9999", "+99999999999"]),
)
LIMITS = st.builds("{}{}{}".format, st.integers(0, 10**20), st.sampled_from([";w=", ", 5;w="]), st.integers())
VALUES = st.one_of(st.binary(max_size=40).map(lambda data: data.decode("latin-1")), DATES, LIMITS)
NAMES = ("ratelimit-limit", "ratelimit-remaining", "docker-ratelimit-source", "retry-after")


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.integers(100, 599))
def test_rate_limit_never_raises(headers: dict[str, str], status: int) -> None:
    """No header raises, and every reading expires."""
    time = FakeTime()
    rate_limit = RateLimit(time)
    rate_limit.observe(CIMultiDict(headers), status)
    assert rate_limit.budget_level in BUDGET_LEVELS
    time.now += LONGEST
    assert (rate_limit.reading, rate_limit.refused, rate_limit.budget_level) == (None, False, PLENTY)
