"""The policy: the first rule that matches decides, and what is remembered is what is computed."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.access.policy import EVERYBODY, Policy, everybody, parse_address
from mirror.access.rules import Action, Rule, parse_network
from mirror.oci.reference import Repository

APP = Repository("quay.io", "org/app")
NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.168.0.0/16", "fd00::/8", "0.0.0.0/0", "::/0"]
CLIENTS = ["10.1.2.3", "10.2.0.1", "192.168.3.4", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.1.2.3", ""]
REPOSITORIES = [APP, Repository("quay.io", "other"), Repository("docker.io", "library/alpine")]
PATTERNS = ["*", "quay.io/*", "quay.io/org/app", "docker.io/library/*", "*/app", "nowhere"]
TAGS = [None, "1", "1-rc1", "latest"]


def test_first_matching_rule_decides() -> None:
    inside = (parse_network("10.0.0.0/8"),)
    policy = Policy(
        [
            Rule(1, False, repositories=("quay.io/org/*",)),
            Rule(2, True, networks=inside),
            Rule(3, False, networks=inside),
        ],
        default=False,
    )
    scope = policy.scope("10.1.2.3")
    assert policy.decide(scope, Action.PULL, APP).rule == policy.rules[0]
    alpine = Repository("docker.io", "library/alpine")
    assert policy.decide(scope, Action.PULL, alpine).rule == policy.rules[1]
    outside = policy.decide(policy.scope("8.8.8.8"), Action.PULL, alpine)
    assert (outside.allowed, outside.rule) == (False, None)


def test_policy_without_rules_allows_everything_and_restricts_nothing() -> None:
    policy = Policy()
    assert not policy.restricts
    assert policy.decide(policy.scope("8.8.8.8"), Action.PULL, APP).allowed
    assert everybody("8.8.8.8") == EVERYBODY == policy.scope("8.8.8.8")


@pytest.mark.parametrize(
    ("policy", "restricts"),
    [
        (Policy([Rule(1, True)]), False),
        (Policy([Rule(1, False)]), True),
        (Policy([Rule(1, True)], default=False), True),
        (Policy([Rule(1, False, tags=("*-rc*",))]), True),
    ],
)
def test_policy_knows_whether_it_restricts(policy: Policy, restricts: bool) -> None:
    assert policy.restricts == restricts


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        ("unix", None),
    ],
)
def test_address_is_parsed(text: str, address: str | None) -> None:
    assert parse_address(text) == (None if address is None else ip_address(address))


def test_addresses_in_the_same_networks_share_a_scope() -> None:
    policy = Policy([Rule(1, True, networks=(parse_network("10.0.0.0/8"),)), Rule(2, False)])
    assert policy.scope("10.1.1.1") == policy.scope("10.200.1.1") == (1, 2)
    assert policy.scope("8.8.8.8") == policy.scope("fd00::1") == policy.scope("") == (2,)


def lists(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2).map(tuple)


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    return [
        Rule(
            number,
            draw(st.booleans()),
            networks=tuple(parse_network(each) for each in draw(lists(NETWORKS))),
            repositories=draw(lists(PATTERNS)),
            tags=draw(lists(["*-rc*", "latest", "*"])),
            actions=tuple(draw(st.lists(st.sampled_from(list(Action)), max_size=2))),
        )
        for number in range(1, draw(st.integers(0, 6)) + 1)
    ]


def reference(
    rules: list[Rule], default: bool, client: str, action: Action, repository: Repository, tag: str | None
) -> bool:
    """Decide as the documentation says, without anything remembered or prepared."""
    for rule in rules:
        address = parse_address(client)
        here = not rule.networks or (
            address is not None
            and any(
                address.version == ip_network(each).version and address in ip_network(each)
                for each in map(str, rule.networks)
            )
        )
        if here and rule.applies_to(action, repository, tag):
            return rule.allow
    return default


QUESTIONS = st.tuples(
    st.sampled_from(CLIENTS),
    st.sampled_from(list(Action)),
    st.sampled_from(REPOSITORIES),
    st.sampled_from(TAGS),
)


@settings(max_examples=300, deadline=None)
@given(rules(), st.booleans(), st.lists(QUESTIONS, min_size=1, max_size=12))
def test_decision_equals_the_slow_reference(
    given_rules: list[Rule], default: bool, questions: list[tuple[str, Action, Repository, str | None]]
) -> None:
    policy = Policy(given_rules, default=default)
    for client, action, repository, tag in questions * 2:
        found = policy.decide(policy.scope(client), action, repository, tag)
        assert found.allowed is reference(given_rules, default, client, action, repository, tag)
        if not policy.restricts:
            assert found.allowed
