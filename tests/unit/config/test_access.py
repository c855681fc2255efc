"""Options about access become a policy; wrong ones are refused with what would be right."""

import pytest

from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.config.access import AccessSettings, RuleSettings, policy_of
from mirror.config.validation import Invalid

DENY = {"name": "no betas", "effect": "deny"}


def policy(*rules: dict[str, object], **access: object) -> Policy:
    return policy_of(
        AccessSettings.model_validate(access), [RuleSettings.model_validate(each) for each in rules]
    )


def test_rules_become_a_policy() -> None:
    found = policy(
        {**DENY, "tags": ["*-rc*"], "actions": ["pull"]},
        {"name": "office", "effect": "allow", "networks": ["10.0.0.0/8"], "repositories": ["quay.io/*"]},
        {"name": "team", "effect": "allow", "identities": ["user:alice", "*"]},
        default="deny",
    )
    assert found.rules == (
        Rule(1, False, "no betas", tags=("*-rc*",), actions=(Action.PULL,)),
        Rule(2, True, "office", (parse_network("10.0.0.0/8"),), ("quay.io/*",)),
        Rule(3, True, "team", identities=("user:alice", "*")),
    )
    assert not found.default


def test_everything_is_allowed_by_default() -> None:
    assert not policy().restricts


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"name": "x"}, "effect: is missing"),
        ({"effect": "deny"}, "name: is missing"),
        ({**DENY, "effect": "no"}, "must be 'allow' or 'deny'"),
        ({**DENY, "networks": ["10.1.2.3/8"]}, "write 10.0.0.0/8"),
        ({**DENY, "actions": ["push"]}, "'push' is no action: there are pull and list"),
        ({**DENY, "identities": ["alice"]}, "'alice' is no identity: begin with one of user:, group:,"),
        ({**DENY, "identities": ["users:alice"]}, "is no identity"),
        ({**DENY, "repository": ["x"]}, "did you mean repositories?"),
    ],
)
def test_wrong_rule_is_refused(rule: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        RuleSettings.model_validate(rule)
    assert words in str(refused.value)
