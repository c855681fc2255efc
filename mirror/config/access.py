"""Options about access: the default, and the rules."""

from collections.abc import Sequence
from typing import Annotated, Literal

from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.config.types import Networks, Strings
from mirror.config.validation import After, Doc, Settings


def _check_actions(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = next((each for each in value if each not in set(Action)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no action: there are {' and '.join(Action)}")
    return value


class AccessSettings(Settings, frozen=True, kw_only=True):
    """Access of clients, beside the [[rule]] tables."""

    default: Annotated[
        Literal["allow", "deny"],
        Doc('What happens to a request that no [[rule]] matches: "allow" or "deny".'),
    ] = "allow"


class RuleSettings(Settings, frozen=True, kw_only=True):
    """Access rules: which networks may pull and list which repositories and tags."""

    name: Annotated[
        str, Doc("Name of the rule, in the log and in `registry-mirror access test`.", examples=["no betas"])
    ]
    effect: Annotated[
        Literal["allow", "deny"],
        Doc('What happens to a request that the rule matches: "allow" or "deny".', examples=["deny"]),
    ]
    networks: Annotated[
        Networks,
        Doc("Addresses and networks of clients.", examples=[["10.0.0.0/8", "192.168.1.7", "fd00::/8"]]),
    ] = ()
    repositories: Annotated[
        Strings,
        Doc(
            "Patterns of `<upstream>/<repository>`. A star matches slashes too.",
            examples=[["docker.io/library/*", "quay.io/org/*"]],
        ),
    ] = ()
    tags: Annotated[
        Strings,
        Doc(
            "Patterns of tags. The rule is then about requests for a tag only; the same image requested by "
            "its digest is another request.",
            examples=[["*-rc*", "*beta*"]],
        ),
    ] = ()
    actions: Annotated[
        Strings,
        After(_check_actions),
        Doc(
            'What clients do: "pull" (manifests, blobs, referrers) and "list" (tags, and the catalog).',
            examples=[["pull"]],
        ),
    ] = ()


def policy_of(access: AccessSettings, rules: Sequence[RuleSettings]) -> Policy:
    """Return the policy that the options describe."""
    return Policy(
        [_rule(number, each) for number, each in enumerate(rules, 1)], default=access.default == "allow"
    )


def _rule(number: int, settings: RuleSettings) -> Rule:
    return Rule(
        number,
        settings.effect == "allow",
        settings.name,
        tuple(map(parse_network, settings.networks)),
        settings.repositories,
        settings.tags,
        tuple(map(Action, settings.actions)),
    )
