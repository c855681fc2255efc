"""How long a tag is taken for true: terms by section, rule and pattern."""

import math

import pytest

from mirror.cache.freshness import Freshness, Terms
from mirror.config import TagRule, Tags
from mirror.oci.reference import Repository, Tag

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
    terms = Terms(fresh=60.0, stale_while_revalidate=10.0, stale_if_error=100.0)
    assert (terms.left(age), terms.at_once(age), terms.at_worst(age)) == (left, at_once, at_worst)


def test_without_limit_is_without_limit() -> None:
    """The default: an old image is better than none."""
    assert Freshness(Tags()).of(X).at_worst(10**9)


def test_the_first_rule_that_matches_counts() -> None:
    """By upstream and repository; what it does not say is as in the section."""
    rules = (
        TagRule(repositories="docker.io/library/*", fresh=3600),
        TagRule(repositories="docker.io/*", fresh=1, stale_if_error=5),
    )
    freshness = Freshness(Tags(fresh=60, stale_if_error=7, rules=rules))
    assert freshness.of(X) == Terms(3600, 0, 7)
    assert freshness.of(Repository("docker.io", "me/x")) == Terms(1, 0, 5)
    assert freshness.of(Repository("quay.io", "library/x")) == Terms(60, 0, 7)


def test_immutable_tags_are_fresh_for_ever() -> None:
    """By pattern, everywhere or for some repositories."""
    rule = TagRule(repositories="docker.io/library/*", immutable=("stable",))
    freshness = Freshness(Tags(immutable=("v*.*.*",), rules=(rule,)))
    assert freshness.of(X, Tag("v1.2.3")).left(10**9) == math.inf
    assert freshness.of(X, Tag("stable")).left(10**9) == math.inf
    assert freshness.of(Repository("quay.io", "x/y"), Tag("stable")).left(61) < 0
    assert freshness.of(X, Tag("latest")).left(61) < 0
