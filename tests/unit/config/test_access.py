"""Options about access become a policy; wrong ones are refused with what would be right."""

from pathlib import Path

import pytest

from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.config.access import AccessSettings, GroupSettings, RuleSettings, groups_of, policy_of
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
        ({**DENY, "actions": ["pus"]}, "'pus' is no action: there are pull, list, push, delete, admin"),
        (
            {**DENY, "effect": "allow", "actions": ["pull", "push"]},
            "'push' is allowed to some clients only: add identities or networks to the rule",
        ),
        ({**DENY, "identities": ["alice"]}, "'alice' is no identity: begin with one of user:, group:,"),
        ({**DENY, "identities": ["users:alice"]}, "is no identity"),
        ({**DENY, "repository": ["x"]}, "did you mean repositories?"),
    ],
)
def test_wrong_rule_is_refused(rule: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        RuleSettings.model_validate(rule)
    assert words in str(refused.value)


def test_groups_of_the_configuration() -> None:
    dev = GroupSettings.model_validate({"name": "dev", "members": ["user:alice"]})
    assert groups_of([dev]).of(("user:alice",)) == ("group:dev",)


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({"name": "a:b", "members": ["user:x"]}, "'a:b' is no name of a group"),
        ({"name": "dev", "members": ["alice"]}, "'alice' is no identity"),
        ({"name": "dev", "members": ["group:ops"]}, "'group:ops' is a group: name its members"),
        ({"name": "dev"}, "members: is missing"),
    ],
)
def test_wrong_group_is_refused(group: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        GroupSettings.model_validate(group)
    assert words in str(refused.value)


def test_login_hosts_have_one_spelling() -> None:
    access = AccessSettings.model_validate({"login_hosts": ["MIRROR.lan:5000", "[0::1]", "*"]})
    assert access.login_hosts == ("mirror.lan:5000", "[::1]", "*")


@pytest.mark.parametrize("host", ["http://mirror.lan", "mirror.lan/x", "", "*.lan"])
def test_login_host_that_no_client_can_send_is_refused(host: str) -> None:
    with pytest.raises(Invalid) as refused:
        AccessSettings.model_validate({"login_hosts": [host]})
    assert "is no host" in str(refused.value)


def test_file_of_users_is_read_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "users"
    for text, words in ((None, "cannot be read"), ("alice:secret\n", "line 1: the password of 'alice'")):
        if text is not None:
            file.write_text(text)
        with pytest.raises(Invalid) as refused:
            AccessSettings.model_validate({"htpasswd": str(file)})
        assert words in str(refused.value)
        assert "secret" not in str(refused.value)
    file.write_text("# nobody yet\n")
    assert AccessSettings.model_validate({"htpasswd": str(file)}).htpasswd == file
