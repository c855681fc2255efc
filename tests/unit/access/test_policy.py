"""The policy: the first rule that matches decides, and what is remembered is what is computed."""

from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.access.identity import Identity, Restriction
from mirror.access.policy import EVERYBODY, Policy, everybody, parse_address
from mirror.access.rules import CHANGING, Action, Rule, parse_network
from mirror.oci.reference import Repository

APP = Repository("quay.io", "org/app")
NETWORKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.168.0.0/16", "fd00::/8", "0.0.0.0/0", "::/0"]
CLIENTS = ["10.1.2.3", "10.2.0.1", "192.168.3.4", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.1.2.3", ""]
REPOSITORIES = [APP, Repository("quay.io", "other"), Repository("docker.io", "library/alpine")]
PATTERNS = ["*", "quay.io/*", "quay.io/org/app", "docker.io/library/*", "*/app", "nowhere"]
NAMES = ["user:alice", "user:bob", "group:dev", "cert:build1"]
IDENTITIES = ["*", "user:*", "user:alice", "group:dev", "cert:build[12]", "USER:ALICE"]
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
    scope = policy.scope(Identity("10.1.2.3"))
    assert policy.decide(scope, Action.PULL, APP).rule == policy.rules[0]
    alpine = Repository("docker.io", "library/alpine")
    assert policy.decide(scope, Action.PULL, alpine).rule == policy.rules[1]
    outside = policy.decide(policy.scope(Identity("8.8.8.8")), Action.PULL, alpine)
    assert (outside.allowed, outside.rule) == (False, None)


def test_policy_without_rules_allows_everything_and_restricts_nothing() -> None:
    policy = Policy()
    assert not policy.restricts
    assert policy.decide(policy.scope(Identity("8.8.8.8")), Action.PULL, APP).allowed
    assert everybody("8.8.8.8") == EVERYBODY == policy.scope(Identity("8.8.8.8"))


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
    assert policy.scope(Identity("10.1.1.1")) == policy.scope(Identity("10.200.1.1")) == (1, 2)
    assert (
        policy.scope(Identity("8.8.8.8"))
        == policy.scope(Identity("fd00::1"))
        == policy.scope(Identity(""))
        == (2,)
    )


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
            identities=draw(lists(IDENTITIES)),
        )
        for number in range(1, draw(st.integers(0, 6)) + 1)
    ]


def is_about(rule: Rule, client: Identity) -> bool:
    """Compare a rule and a client as the documentation says, without anything remembered or prepared."""
    address = parse_address(client.address)
    here = not rule.networks or (
        address is not None
        and any(
            address.version == ip_network(each).version and address in ip_network(each)
            for each in map(str, rule.networks)
        )
    )
    who = not rule.identities or any(
        fnmatchcase(name, each) for name in client.names for each in rule.identities
    )
    return here and who


def reference(
    rules: list[Rule],
    default: bool,
    client: Identity,
    action: Action,
    repository: Repository,
    tag: str | None,
) -> bool:
    for rule in rules:
        if is_about(rule, client) and rule.applies_to(action, repository, tag):
            return rule.allow
    return default and action in (Action.PULL, Action.LIST)


def names_reference(
    rules: list[Rule], client: Identity, action: Action, repository: Repository, tag: str | None
) -> bool:
    """Return whether an allow rule about some clients comes before any that denies."""
    for rule in rules:
        if is_about(rule, client) and rule.applies_to(action, repository, tag):
            if not rule.allow:
                return False
            if rule.networks or rule.identities:
                return True
    return False


QUESTIONS = st.tuples(
    st.builds(
        Identity,
        st.sampled_from(CLIENTS),
        st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(sorted).map(tuple),
    ),
    st.sampled_from(list(Action)),
    st.sampled_from(REPOSITORIES),
    st.sampled_from(TAGS),
)


@settings(max_examples=300, deadline=None)
@given(rules(), st.booleans(), st.lists(QUESTIONS, min_size=1, max_size=12))
@pytest.mark.slow
def test_decision_equals_the_slow_reference(
    given_rules: list[Rule],
    default: bool,
    questions: list[tuple[Identity, Action, Repository, str | None]],
) -> None:
    policy = Policy(given_rules, default=default)
    for client, action, repository, tag in questions * 2:
        found = policy.decide(policy.scope(client), action, repository, tag)
        assert found.allowed is reference(given_rules, default, client, action, repository, tag)
        assert policy.names(client, action, repository, tag) is names_reference(
            given_rules, client, action, repository, tag
        )
        assert set(policy.scope(client)) <= set(policy.reach(client.address))
        if not policy.restricts and action not in (*CHANGING, Action.ADMIN):
            assert found.allowed


def test_rule_about_identities_is_about_no_client_without_one() -> None:
    policy = Policy([Rule(1, True, identities=("*",))], default=False)
    assert not policy.decide(policy.scope(Identity("10.1.2.3")), Action.PULL, APP).allowed
    assert policy.decide(policy.scope(Identity("10.1.2.3", ("user:x",))), Action.PULL, APP).allowed


def test_rule_about_everybody_names_no_client() -> None:
    """A default, and a rule about everybody, are no word about private content; a rule behind them may be."""
    alice, bob = Identity("10.1.2.3", ("user:alice",)), Identity("10.1.2.3", ("user:bob",))
    assert not Policy().names(alice, Action.PULL, APP)
    policy = Policy([Rule(1, True), Rule(2, True, identities=("user:alice",))])
    assert policy.names(alice, Action.PULL, APP)
    assert not policy.names(bob, Action.PULL, APP)
    denying = Policy([Rule(1, False, tags=("1",)), Rule(2, True, identities=("user:alice",))])
    assert not denying.names(alice, Action.PULL, APP, "1")
    assert denying.names(alice, Action.PULL, APP)


def test_scope_costs_no_look_at_each_rule_by_name() -> None:
    """A thousand rules about single users: one of them is about a client."""
    policy = Policy([Rule(number, True, identities=(f"user:{number}",)) for number in range(1, 1001)])
    assert policy.scope(Identity("10.1.2.3", ("user:7", "user:900"))) == (7, 900)
    assert policy.scope(Identity("10.1.2.3")) == ()


def test_equal_scopes_are_one_object() -> None:
    """A thousand rules about a client are hashed once, and ten thousand clients do not have a list each."""
    policy = Policy([Rule(number, True) for number in range(1, 1001)])
    scopes = [policy.scope(Identity(f"10.0.0.{number}", ("user:a",))) for number in range(5)]
    assert all(each is scopes[0] for each in scopes)
    assert policy.reach("10.9.9.9") is scopes[0]
    assert hash(scopes[0]) == hash(tuple(range(1, 1001)))


def test_creation_dates_are_trusted_where_the_operator_says_so() -> None:
    policy = Policy(trust_created=("docker.io/library/*",))
    assert policy.trusts_created(Repository("docker.io", "library/alpine"))
    assert not policy.trusts_created(APP)
    assert not Policy().trusts_created(APP)


def test_changes_are_denied_by_default() -> None:
    for action, allowed in ((Action.PULL, True), (Action.PUSH, False), (Action.DELETE, False)):
        policy = Policy()
        assert policy.decide(policy.scope(Identity("10.1.2.3")), action, APP).allowed is allowed
    rule = Rule(1, True, identities=("user:alice",), actions=(Action.PUSH,))
    policy = Policy([rule])
    alice, bob = Identity("10.1.2.3", ("user:alice",)), Identity("10.1.2.3", ("user:bob",))
    assert policy.decide(policy.scope(alice), Action.PUSH, APP).allowed
    assert not policy.decide(policy.scope(alice), Action.DELETE, APP).allowed
    assert not policy.decide(policy.scope(bob), Action.PUSH, APP).allowed


@pytest.mark.parametrize(
    ("rules", "limits", "expected"),
    [
        ([], (), False),
        ([], (Restriction("token:a", (), (Action.ADMIN,)),), True),
        ([], (Restriction("token:a", (), (Action.PULL,)),), False),
        ([], (Restriction("token:a", ("hub/*",), (Action.ADMIN,)),), False),
        ([Rule(1, allow=True)], (), False),
        ([Rule(1, allow=True, actions=(Action.ADMIN,))], (), False),
        ([Rule(1, allow=True, actions=(Action.ADMIN,), identities=("token:*",))], (), True),
        ([Rule(1, allow=True, actions=(Action.ADMIN,), identities=("user:*",))], (), False),
        ([Rule(1, allow=True, actions=(Action.ADMIN,), repositories=("hub/*",))], (), False),
        (
            [Rule(1, True, actions=(Action.ADMIN,), identities=("*",))],
            (Restriction("token:a", ("hub/*",)),),
            False,
        ),
        (
            [Rule(1, allow=False, actions=(Action.ADMIN,)), Rule(2, allow=True, actions=(Action.ADMIN,))],
            (Restriction("token:a", (), (Action.ADMIN,)),),
            False,
        ),
    ],
)
def test_policy_makes_nobody_an_administrator_by_the_way(
    rules: list[Rule], limits: tuple[Restriction, ...], expected: bool
) -> None:
    """A rule or a token must name the action; what is for some repositories is for no administrator."""
    policy = Policy(rules)
    assert policy.administers(Identity("10.0.0.1", ("token:a",), limits)) is expected
    scope = policy.scope(Identity("10.0.0.1"))
    named = any(Action.ADMIN in each.actions for each in rules)
    assert named or not policy.decide(scope, Action.ADMIN, Repository("hub", "x")).allowed
