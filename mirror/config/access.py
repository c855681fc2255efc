"""Options about access: the default, and the rules."""

from collections.abc import Sequence
from typing import Annotated, Literal

from mirror.access.identity import KINDS
from mirror.access.patterns import is_pattern
from mirror.access.policy import Policy
from mirror.access.rules import Action, Rule, parse_network
from mirror.config.types import Networks, Strings
from mirror.config.validation import After, Doc, Settings


def _check_actions(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = next((each for each in value if each not in set(Action)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no action: there are {' and '.join(Action)}")
    return value


def _check_identities(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a pattern that matches no principal, which begins with its kind."""
    for each in value:
        kind, colon, _ = each.partition(":")
        if kind not in KINDS if colon else not is_pattern(each):
            kinds = ", ".join(f"{kind}:" for kind in KINDS)
            raise ValueError(
                f"{each!r:.80} is no identity: begin with one of {kinds}, or write a star for all"
            )
    return value


class AccessSettings(Settings, frozen=True, kw_only=True):
    """Access of clients, beside the [[rule]] tables."""

    default: Annotated[
        Literal["allow", "deny"],
        Doc('What happens to a request that no [[rule]] matches: "allow" or "deny".'),
    ] = "allow"


class RuleSettings(Settings, frozen=True, kw_only=True):
    """Access rules: who may pull and list which repositories and tags, from where."""

    name: Annotated[
        str, Doc("Name of the rule, in the log and in `registry-mirror access test`.", examples=["no betas"])
    ]
    effect: Annotated[
        Literal["allow", "deny"],
        Doc('What happens to a request that the rule matches: "allow" or "deny".', examples=["deny"]),
    ]
    identities: Annotated[
        Strings,
        After(_check_identities),
        Doc(
            "Patterns of what clients have proven to be. A star alone is every client that has proven "
            "something; without the key the rule is about everybody.",
            examples=[["user:alice", "group:*", "cert:build1.lan"]],
        ),
    ] = ()
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
        settings.identities,
    )
