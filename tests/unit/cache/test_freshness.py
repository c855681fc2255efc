"""Freshness: terms by section, rule and pattern."""

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
        (math.inf, 0.0, False, True),
    ],
)
def test_freshness_periods_follow_each_other(
    age: float, ttl: float, serve_while_revalidating: bool, serve_on_error: bool
) -> None:
    """An answer from the future, after a clock was set back, is revalidated."""
    terms = FreshnessTerms(fresh=60.0, stale_while_revalidate=10.0, stale_if_error=100.0)
    assert (terms.ttl(age), terms.serve_while_revalidating(age), terms.serve_on_error(age)) == (
        ttl,
        serve_while_revalidating,
        serve_on_error,
    )


@pytest.mark.parametrize(("budget", "until"), [(PLENTY, 60.0), (SPARE, 240.0), (LOW, 960.0), (OUT, 1060.0)])
def test_freshness_is_extended_to_save_the_rate_limit(budget: BudgetLevel, until: float) -> None:
    """The less an upstream allows, the longer it is not asked, within the terms for stale answers."""
    terms = FreshnessTerms(fresh=60.0, stale_while_revalidate=10.0, stale_if_error=1000.0)
    assert terms.serve_to_save_budget(until - 1, budget) is (until > 60)
    assert not terms.serve_to_save_budget(until, budget)
    assert not FreshnessTerms(
        fresh=60.0, stale_while_revalidate=0.0, stale_if_error=0.0
    ).serve_to_save_budget(60, budget)


def test_freshness_of_zero_is_served_only_when_the_budget_is_out() -> None:
    """Four times zero is zero; an answer from the future is revalidated as long as possible."""
    terms = FreshnessTerms(fresh=0.0, stale_while_revalidate=0.0, stale_if_error=math.inf)
    assert [terms.serve_to_save_budget(1.0, budget) for budget in (SPARE, LOW, OUT)] == [False, False, True]
    assert [terms.serve_to_save_budget(-1.0, budget) for budget in (SPARE, LOW, OUT)] == [False, False, True]


def test_freshness_of_a_tag_that_was_never_confirmed() -> None:
    """The upstream is asked, even under an immutable pattern, unless its rate limit is used up."""
    for terms in (FreshnessTerms(math.inf, 0.0, 0.0), FreshnessTerms(60.0, math.inf, 0.0)):
        assert terms.ttl(math.inf) == 0.0
        assert not terms.serve_while_revalidating(math.inf)
        assert terms.serve_on_error(math.inf)
        assert [terms.serve_to_save_budget(math.inf, each) for each in (PLENTY, LOW, OUT)] == [
            False,
            False,
            True,
        ]


def test_freshness_allows_any_age_on_error_by_default() -> None:
    """An old image is better than none."""
    assert Freshness(TagSettings()).terms(X).serve_on_error(10**9)


def test_freshness_rules_apply_by_first_match() -> None:
    """Rules match upstream and repository; fields that a rule leaves out come from the section."""
    rules = (
        TagRuleSettings(repositories="docker.io/library/*", fresh=3600),
        TagRuleSettings(repositories="docker.io/*", fresh=1, stale_if_error=5),
    )
    freshness = Freshness(TagSettings(fresh=60, stale_if_error=7, rules=rules))
    assert freshness.terms(X) == FreshnessTerms(3600, 0, 7)
    assert freshness.terms(Repository("docker.io", "me/x")) == FreshnessTerms(1, 0, 5)
    assert freshness.terms(Repository("quay.io", "library/x")) == FreshnessTerms(60, 0, 7)


def test_freshness_of_immutable_tags_has_no_end() -> None:
    """Patterns apply everywhere, or for some repositories."""
    rule = TagRuleSettings(repositories="docker.io/library/*", immutable=("stable",))
    freshness = Freshness(TagSettings(immutable=("v*.*.*",), rules=(rule,)))
    assert freshness.terms(X, Tag("v1.2.3")).ttl(10**9) == math.inf
    assert freshness.terms(X, Tag("stable")).ttl(10**9) == math.inf
    assert freshness.terms(Repository("quay.io", "x/y"), Tag("stable")).ttl(61) < 0
    assert freshness.terms(X, Tag("latest")).ttl(61) < 0


def test_freshness_keeps_what_is_gone_by_rule() -> None:
    """The first rule that matches counts; one without the key is as the section."""
    rules = (
        TagRuleSettings(repositories="docker.io/library/*", on_gone="keep"),
        TagRuleSettings(repositories="docker.io/*", fresh=1),
        TagRuleSettings(repositories="quay.io/*", on_gone="drop"),
    )
    asked = [X, Repository("docker.io", "me/x"), Repository("quay.io", "a/b"), Repository("ghcr.io", "a/b")]
    section = TagSettings(rules=rules)
    assert [Freshness(section).keeps_gone(each) for each in asked] == [True, False, False, False]
    section = TagSettings(rules=rules, on_gone="keep")
    assert [Freshness(section).keeps_gone(each) for each in asked] == [True, True, False, True]


def test_freshness_rule_of_an_ipv6_address() -> None:
    """The brackets of an address in a rule are no wildcard."""
    rule = TagRuleSettings(repositories="[::1]:5000/*", fresh=3600)
    freshness = Freshness(TagSettings(fresh=60, rules=(rule,)))
    assert freshness.terms(Repository("[::1]:5000", "app")).fresh == 3600
    assert freshness.terms(Repository("1:5000", "app")).fresh == 60
