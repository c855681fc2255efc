"""The policy's decision equals that of a slow reference, which reads the rules from the top for each request.

Rules with identities, networks, repositories, tags, actions and ages, in any combination and order; each
question is asked twice, because decisions are remembered.
"""

from datetime import timedelta
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.access.identity import Identity
from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.oci.reference import Repository

DAY = 86400.0
NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd00::/8", "0.0.0.0/0", "::/0"]
ADDRESSES = ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.168.1.1", "fd00::1", "::ffff:10.1.2.3", "nonsense", ""]
NAMES = ["user:alice", "user:bob", "group:dev", "jwt:gitlab:ref=main", "cert:build"]
PATTERNS = ["user:alice", "user:*", "group:dev", "*", "jwt:gitlab:*", "cert:b?ild", "user:[ab]*"]
REPOSITORIES = [Repository("docker.io", "library/alpine"), Repository("quay.io", "org/app")]
GLOBS = ["*", "docker.io/*", "quay.io/org/app", "*/alpine", "ghcr.io/*"]
TAGS = [None, "1", "1-rc1", "latest"]
TAG_GLOBS = ["*-rc*", "1*", "latest", "*"]
AGES = [0.0, DAY, 3 * DAY]


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """A few of the values; mostly none, which matches everything."""
    return st.one_of(st.just(()), st.lists(st.sampled_from(values), min_size=1, max_size=2).map(tuple))


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    return [
        Rule(
            number,
            draw(st.booleans()),
            networks=tuple(map(parse_network, draw(some(NETWORKS)))),
            repositories=draw(some(GLOBS)),
            tags=draw(some(TAG_GLOBS)),
            actions=tuple(map(Action, draw(some([each.value for each in Action])))),
            identities=draw(some(PATTERNS)),
            min_age=draw(st.sampled_from(AGES)),
        )
        for number in range(1, draw(st.integers(0, 6)) + 1)
    ]


QUESTIONS = st.tuples(
    st.builds(Identity, st.sampled_from(ADDRESSES), st.sets(st.sampled_from(NAMES)).map(sorted).map(tuple)),
    st.sampled_from(list(Action)),
    st.sampled_from(REPOSITORIES),
    st.sampled_from(TAGS),
    st.one_of(st.none(), st.sampled_from([0.0, 1.0, DAY - 1, DAY, 2 * DAY, 3 * DAY - 1, 3 * DAY, 99 * DAY])),
)
Question = tuple[Identity, Action, Repository, str | None, float | None]


def reference(listed: list[Rule], default: bool, question: Question) -> tuple[bool, int | None]:
    """Return whether a request is allowed, and by which rule: the documentation, sentence by sentence."""
    identity, action, repository, tag, age = question
    for rule in listed:
        if rule.networks and not any(_inside(identity.address, str(each)) for each in rule.networks):
            continue
        if rule.identities and not _any_fits(identity.names, rule.identities):
            continue
        if rule.repositories and not _any_fits((str(repository),), rule.repositories):
            continue
        if rule.tags and (tag is None or not _any_fits((tag,), rule.tags)):
            continue
        if action not in rule.actions and (rule.actions or action is Action.ADMIN):
            continue
        named = rule.actions and (rule.identities or rule.networks)
        if rule.allow and action in (Action.PUSH, Action.DELETE) and not named:
            continue
        if rule.min_age and age is None and not rule.allow:
            continue
        if rule.min_age and age is not None:
            old_enough = timedelta(seconds=age) >= timedelta(seconds=rule.min_age)
            if old_enough != rule.allow:
                continue
        return rule.allow, rule.number
    return default and action in (Action.PULL, Action.LIST), None


def _inside(address: str, network: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed) in ip_network(network)


def _any_fits(texts: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for text in texts for pattern in patterns)


@settings(max_examples=100, deadline=None)
@given(rules(), st.booleans(), st.lists(QUESTIONS, min_size=1, max_size=10))
@pytest.mark.slow
def test_policy_decides_as_the_reference(
    listed: list[Rule], default: bool, questions: list[Question]
) -> None:
    policy = Policy(listed, default=default)
    for question in questions * 2:
        identity, action, repository, tag, age = question
        decision = policy.decide(policy.scope(identity), action, repository, tag, age)
        expected = reference(listed, default, question)
        assert (decision.allowed, decision.rule and decision.rule.number) == expected
        if not expected[0] and not policy.restricts and action in (Action.PULL, Action.LIST):
            raise AssertionError("a policy that restricts nothing denies something")


@settings(max_examples=60, deadline=None)
@given(rules(), st.booleans(), QUESTIONS)
def test_policy_tells_from_which_age_a_request_is_allowed(
    listed: list[Rule], default: bool, question: Question
) -> None:
    """A request is denied before that age; without one it is denied at every age."""
    identity, action, repository, tag, age = question
    policy, age = Policy(listed, default=default), age or 0.0
    if reference(listed, default, (identity, action, repository, tag, age))[0]:
        return
    later = policy.allowed_from(policy.scope(identity), action, repository, tag, age)
    steps = [each for each in (DAY, 3 * DAY) if each > age]
    allowed = [reference(listed, default, (identity, action, repository, tag, each))[0] for each in steps]
    assert later == next((each for each, fine in zip(steps, allowed, strict=True) if fine), None)
