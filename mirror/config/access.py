"""Options about access: the default, and the rules."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from mirror.access.groups import Group, Groups
from mirror.access.identity import KINDS
from mirror.access.patterns import is_pattern
from mirror.access.policy import Policy
from mirror.access.rules import CHANGING, EXPLICIT, Action, Rule, parse_network
from mirror.config.types import Duration, Networks, ReadableFile, Strings
from mirror.config.validation import After, Beside, Doc, Settings
from mirror.oci.registries import canonical_host


def _check_actions(value: tuple[str, ...]) -> tuple[str, ...]:
    wrong = next((each for each in value if each not in set(Action)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no action: there are {', '.join(Action)}")
    return value


def _check_changing(value: tuple[str, ...], valid: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse a rule that would let everybody push, or look after the mirror: such a rule allows nothing."""
    changing = [each for each in value if each in CHANGING | EXPLICIT]
    named = valid.get("identities") or valid.get("networks")
    if changing and valid.get("effect") == "allow" and not named:
        raise ValueError(
            f"{changing[0]!r} is allowed to some clients only: add identities or networks to the rule"
        )
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


def _check_members(value: tuple[str, ...]) -> tuple[str, ...]:
    nested = next((each for each in value if each.startswith("group:")), None)
    if nested is not None:
        raise ValueError(f"{nested!r:.80} is a group: name its members")
    return _check_identities(value)


def _check_group_name(value: str) -> str:
    if re.fullmatch("[A-Za-z0-9._-]{1,100}", value) is None:
        raise ValueError(f"{value!r:.80} is no name of a group: letters, digits, dots, dashes, underscores")
    return value


def _check_htpasswd(value: Path | None, _: Mapping[str, Any]) -> Path | None:
    """Refuse a file that cannot be used at the start, with the line that is wrong."""
    if value is not None:
        from mirror.access.htpasswd import read_htpasswd

        try:
            read_htpasswd(value)
        except ValueError as error:
            raise ValueError(f"{value}: {error}") from None
    return value


def _check_login_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no host; return each in its one spelling."""
    hosts = []
    for each in value:
        host = each if each == "*" else canonical_host(each)
        if host is None:
            raise ValueError(f"{each!r:.80} is no host, for instance mirror.lan or mirror.lan:5000")
        hosts.append(host)
    return tuple(hosts)


Identities = Annotated[Strings, After(_check_identities)]


class AccessSettings(Settings, frozen=True, kw_only=True):
    """Access of clients, beside the [[rule]] tables."""

    default: Annotated[
        Literal["allow", "deny"],
        Doc('What happens to a request that no [[rule]] matches: "allow" or "deny".'),
    ] = "allow"
    htpasswd: Annotated[
        ReadableFile | None,
        Doc(
            "File of users, a line `user:hash` for each, as `htpasswd -B` writes it: bcrypt or argon2. It is "
            "re-read when it changes. A user is `user:NAME` in `identities` of a rule.",
            examples=["/etc/registry-mirror/users"],
        ),
        Beside(_check_htpasswd),
    ] = None
    login_hosts: Annotated[
        Strings,
        After(_check_login_hosts),
        Doc(
            "Names of this mirror, as in the Host header, at which clients are asked to log in, for `docker "
            'login NAME`. A name without a port counts for every port; "*" is every name. Clients that have '
            "this as a mirror of a registry must use another name: Docker would send its Docker Hub password "
            "here, and containerd the pull secret of the registry.",
            examples=[["mirror.lan:5000"]],
        ),
    ] = ()

    trust_created: Annotated[
        Strings,
        Doc(
            "Patterns of `<upstream>/<repository>` whose images are, for `min_age`, as old as their authors "
            "say: by `created` in the config, or the annotation `org.opencontainers.image.created`. Who "
            "can push there can write any date. Elsewhere, and without a date, the age counts from when an "
            "image was first seen here.",
            examples=[["docker.io/library/*"]],
        ),
    ] = ()


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
        Identities,
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
            'What clients do: "pull" (manifests, blobs, referrers), "list" (tags, and the catalog), in a '
            'hosted registry "push" and "delete", and on the pages "admin": see everything, pin, remove. '
            'Without the key a rule that allows is about "pull" and "list", and one that denies is about all '
            'but "admin". One that allows "push", "delete" or "admin" needs `identities` or `networks`.',
            examples=[["pull"]],
        ),
        Beside(_check_changing),
    ] = ()
    min_age: Annotated[
        Duration,
        Doc(
            "Age of an image, since it was first seen here (or created, with `access.trust_created`). A rule "
            "that denies is then about images that are younger, one that allows about images of at least "
            "this age. It is judged at the manifest.",
            examples=["3d"],
            zero="any age",
        ),
    ] = 0


class GroupSettings(Settings, frozen=True, kw_only=True):
    """Groups of clients, which are `group:NAME` in `identities` of a rule."""

    name: Annotated[str, After(_check_group_name), Doc("Name of the group.", examples=["dev"])]
    members: Annotated[
        Strings,
        After(_check_members),
        Doc(
            "Patterns of what clients in the group have proven to be; not of other groups.",
            examples=[["user:alice", "user:bob", "cert:build*.lan"]],
        ),
    ]


def groups_of(groups: Sequence[GroupSettings]) -> Groups:
    """Return the groups that the options describe."""
    return Groups(Group(each.name, each.members) for each in groups)


def policy_of(access: AccessSettings, rules: Sequence[RuleSettings]) -> Policy:
    """Return the policy that the options describe."""
    return Policy(
        [_rule(number, each) for number, each in enumerate(rules, 1)],
        default=access.default == "allow",
        trust_created=access.trust_created,
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
        settings.min_age,
    )
