"""How long a tag is taken for true: terms by section, rule and pattern."""

import math

import pytest

from mirror.cache.freshness import Freshness, FreshnessTerms
from mirror.config.schema import TagRuleSettings, TagSettings
from mirror.oci.reference import Repository, Tag
from mirror.upstream.rate_limit import LOW, OUT, PLENTY, SPARE, BudgetLevel

X = Repository("docker.io", "library/x")


@pytest.mark.parametrize(
    ("age", "ttl", "serve_while_revalidating", "serve_on_error"),
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
    age: float, ttl: float, serve_while_revalidating: bool, serve_on_error: bool
) -> None:
    """And what comes from the future, after a clock was set back, is asked about."""
    terms = FreshnessTerms(fresh=60.0, stale_while_revalidate=10.0, stale_if_error=100.0)
    assert (terms.ttl(age), terms.serve_while_revalidating(age), terms.serve_on_error(age)) == (
        ttl,
        serve_while_revalidating,
        serve_on_error,
    )


@pytest.mark.parametrize(("budget", "until"), [(PLENTY, 60.0), (SPARE, 240.0), (LOW, 960.0), (OUT, 1060.0)])
def test_the_less_an_upstream_allows_the_longer_it_is_not_asked(budget: BudgetLevel, until: float) -> None:
    """Within what the terms allow to be served unconfirmed."""
    terms = FreshnessTerms(fresh=60.0, stale_while_revalidate=10.0, stale_if_error=1000.0)
    assert terms.serve_to_save_budget(until - 1, budget) is (until > 60)
    assert not terms.serve_to_save_budget(until, budget)
    assert not FreshnessTerms(
        fresh=60.0, stale_while_revalidate=0.0, stale_if_error=0.0
    ).serve_to_save_budget(60, budget)


def test_what_is_always_asked_about_is_spared_in_the_end() -> None:
    """Nothing times four is nothing; and what comes from the future is asked about as long as possible."""
    terms = FreshnessTerms(fresh=0.0, stale_while_revalidate=0.0, stale_if_error=math.inf)
    assert [terms.serve_to_save_budget(1.0, budget) for budget in (SPARE, LOW, OUT)] == [False, False, True]
    assert [terms.serve_to_save_budget(-1.0, budget) for budget in (SPARE, LOW, OUT)] == [False, False, True]


def test_without_limit_is_without_limit() -> None:
    """The default: an old image is better than none."""
    assert Freshness(TagSettings()).terms(X).serve_on_error(10**9)


def test_the_first_rule_that_matches_counts() -> None:
    """By upstream and repository; what it does not say is as in the section."""
    rules = (
        TagRuleSettings(repositories="docker.io/library/*", fresh=3600),
        TagRuleSettings(repositories="docker.io/*", fresh=1, stale_if_error=5),
    )
    freshness = Freshness(TagSettings(fresh=60, stale_if_error=7, rules=rules))
    assert freshness.terms(X) == FreshnessTerms(3600, 0, 7)
    assert freshness.terms(Repository("docker.io", "me/x")) == FreshnessTerms(1, 0, 5)
    assert freshness.terms(Repository("quay.io", "library/x")) == FreshnessTerms(60, 0, 7)


def test_immutable_tags_are_fresh_for_ever() -> None:
    """By pattern, everywhere or for some repositories."""
    rule = TagRuleSettings(repositories="docker.io/library/*", immutable=("stable",))
    freshness = Freshness(TagSettings(immutable=("v*.*.*",), rules=(rule,)))
    assert freshness.terms(X, Tag("v1.2.3")).ttl(10**9) == math.inf
    assert freshness.terms(X, Tag("stable")).ttl(10**9) == math.inf
    assert freshness.terms(Repository("quay.io", "x/y"), Tag("stable")).ttl(61) < 0
    assert freshness.terms(X, Tag("latest")).ttl(61) < 0
