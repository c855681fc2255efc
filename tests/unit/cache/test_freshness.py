"""How long a tag is taken for true: terms by section, rule and pattern."""

import math

import pytest

from mirror.cache.freshness import Freshness, FreshnessTerms
from mirror.config.schema import TagRuleSettings, TagSettings
from mirror.oci.reference import Repository, Tag
from mirror.upstream.rate_limit import LOW, OUT, PLENTY, SPARE, BudgetLevel

X = Repository("docker.io", "library/x")


@pytest.mark.parametrize(
    ("age", "left", "at_once", "at_worst"),
    [
        (0.0, 60.0, True, True),
        (59.0, 1.0, True, True),
        (60.0, 0.0, True, True),
        (69.0, -9.0, True, True),
        (70.0, -10.0, False, True),
        (159.0, -99.0, False, True),
        (160.0, -100.0, False, False),
        (-1.0, 0.0, False, True),
    ],
)
def test_each_span_begins_where_the_one_before_ends(
    age: float, left: float, at_once: bool, at_worst: bool
) -> None:
    """And what comes from the future, after a clock was set back, is asked about."""
    terms = FreshnessTerms(fresh=60.0, stale_while_revalidate=10.0, stale_if_error=100.0)
    assert (terms.left(age), terms.at_once(age), terms.at_worst(age)) == (left, at_once, at_worst)


@pytest.mark.parametrize(("pressure", "until"), [(PLENTY, 60.0), (SPARE, 240.0), (LOW, 960.0), (OUT, 1060.0)])
def test_the_less_an_upstream_allows_the_longer_it_is_not_asked(pressure: BudgetLevel, until: float) -> None:
    """Within what the terms allow to be served unconfirmed."""
    terms = FreshnessTerms(fresh=60.0, stale_while_revalidate=10.0, stale_if_error=1000.0)
    assert terms.spared(until - 1, pressure) is (until > 60)
    assert not terms.spared(until, pressure)
    assert not FreshnessTerms(fresh=60.0, stale_while_revalidate=0.0, stale_if_error=0.0).spared(60, pressure)


def test_what_is_always_asked_about_is_spared_in_the_end() -> None:
    """Nothing times four is nothing; and what comes from the future is asked about as long as possible."""
    terms = FreshnessTerms(fresh=0.0, stale_while_revalidate=0.0, stale_if_error=math.inf)
    assert [terms.spared(1.0, pressure) for pressure in (SPARE, LOW, OUT)] == [False, False, True]
    assert [terms.spared(-1.0, pressure) for pressure in (SPARE, LOW, OUT)] == [False, False, True]


def test_without_limit_is_without_limit() -> None:
    """The default: an old image is better than none."""
    assert Freshness(TagSettings()).of(X).at_worst(10**9)


def test_the_first_rule_that_matches_counts() -> None:
    """By upstream and repository; what it does not say is as in the section."""
    rules = (
        TagRuleSettings(repositories="docker.io/library/*", fresh=3600),
        TagRuleSettings(repositories="docker.io/*", fresh=1, stale_if_error=5),
    )
    freshness = Freshness(TagSettings(fresh=60, stale_if_error=7, rules=rules))
    assert freshness.of(X) == FreshnessTerms(3600, 0, 7)
    assert freshness.of(Repository("docker.io", "me/x")) == FreshnessTerms(1, 0, 5)
    assert freshness.of(Repository("quay.io", "library/x")) == FreshnessTerms(60, 0, 7)


def test_immutable_tags_are_fresh_for_ever() -> None:
    """By pattern, everywhere or for some repositories."""
    rule = TagRuleSettings(repositories="docker.io/library/*", immutable=("stable",))
    freshness = Freshness(TagSettings(immutable=("v*.*.*",), rules=(rule,)))
    assert freshness.of(X, Tag("v1.2.3")).left(10**9) == math.inf
    assert freshness.of(X, Tag("stable")).left(10**9) == math.inf
    assert freshness.of(Repository("quay.io", "x/y"), Tag("stable")).left(61) < 0
    assert freshness.of(X, Tag("latest")).left(61) < 0
