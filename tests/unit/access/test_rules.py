"""Rules: what each is about, and how networks are written."""

import pytest

from mirror.access.rules import Action, Decision, Rule, parse_network
from mirror.oci.reference import Repository

APP = Repository("quay.io", "org/app")


@pytest.mark.parametrize(
    ("rule", "action", "tag", "applies"),
    [
        (Rule(1, True), Action.PULL, None, True),
        (Rule(1, True), Action.LIST, "v1", True),
        (Rule(1, True, repositories=("quay.io/*",)), Action.PULL, None, True),
        (Rule(1, True, repositories=("quay.io/org",)), Action.PULL, None, False),
        (Rule(1, True, repositories=("docker.io/*", "quay.io/org/app")), Action.PULL, None, True),
        (Rule(1, True, repositories=("quay.io/ORG/*",)), Action.PULL, None, False),
        (Rule(1, True, actions=(Action.LIST,)), Action.PULL, "v1", False),
        (Rule(1, True, actions=(Action.LIST, Action.PULL)), Action.PULL, "v1", True),
        (Rule(1, True, tags=("*-rc*",)), Action.PULL, "v1-rc2", True),
        (Rule(1, True, tags=("*-rc*",)), Action.PULL, "v1", False),
        (Rule(1, True, tags=("*",)), Action.PULL, None, False),
        (Rule(1, True, tags=("v1",), repositories=("docker.io/*",)), Action.PULL, "v1", False),
    ],
)
def test_rule_applies_where_all_its_lists_match(
    rule: Rule, action: Action, tag: str | None, applies: bool
) -> None:
    assert rule.applies_to(action, APP, tag) is applies


HERE = (parse_network("10.0.0.0/8"),)


@pytest.mark.parametrize("action", [Action.PUSH, Action.DELETE])
@pytest.mark.parametrize(
    ("rule", "applies"),
    [
        (Rule(1, True), False),
        (Rule(1, True, actions=tuple(Action)), False),
        (Rule(1, True, networks=HERE), False),
        (Rule(1, True, identities=("user:alice",)), False),
        (Rule(1, True, identities=("user:alice",), actions=(Action.PULL,)), False),
        (Rule(1, True, identities=("user:alice",), actions=tuple(Action)), True),
        (Rule(1, True, networks=HERE, actions=(Action.PUSH, Action.DELETE)), True),
        (Rule(1, False), True),
        (Rule(1, False, networks=HERE), True),
    ],
)
def test_rule_allows_changes_only_by_name_and_to_some_clients(
    rule: Rule, action: Action, applies: bool
) -> None:
    """A rule that was written for pulls opens nothing when a registry is hosted; one that denies does."""
    assert rule.applies_to(action, APP, "1") is applies


def test_rule_is_named_by_number_and_name() -> None:
    assert str(Rule(3, True)) == "rule 3"
    assert str(Rule(3, True, name="no betas")) == "rule 3 (no betas)"
    assert Decision(True, Rule(3, True)).reason == "rule 3"
    assert Decision(True).reason == "the default of [access]"


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.168.1.7", "192.168.1.7/32"),
        ("fd00::/8", "fd00::/8"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ],
)
def test_network_is_parsed(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.1.2.3/8", "write 10.0.0.0/8"),
        ("fd00::1/8", "write fd00::/8"),
        ("office", "no address and no network"),
        ("", "no address and no network"),
        ("10.0.0.0/33", "no address and no network"),
        ("10.0.0", "no address and no network"),
        ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
        ("::ffff:192.168.1.7", "write 192.168.1.7/32"),
    ],
)
def test_wrong_network_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_network(text)
