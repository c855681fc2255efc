"""Access rules: the first rule that matches a request allows or denies it.

    identities  x  networks  x  repositories  x  tags  x  actions   ->   allow or deny

A list that a rule leaves out matches everything; a star in `identities` is every client that has one. Without
a matching rule the default decides. A rule with `tags` matches requests for a tag only: a manifest that is
requested by its digest has no tag, so what must be out of reach by digest too needs a rule for its
repository. Pushes and deletions are denied unless a rule allows them by name, to some clients.
"""

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

from msgspec import Struct

from mirror.access.patterns import matches
from mirror.oci.reference import Repository

Network = IPv4Network | IPv6Network

# IPv4 addresses in the form of IPv6.
MAPPED = IPv6Network("::ffff:0:0/96")


class Action(StrEnum):
    """The actions that a rule is about."""

    PULL = "pull"
    LIST = "list"
    PUSH = "push"
    DELETE = "delete"
    ADMIN = "admin"


# Actions that change a hosted registry. What allows one must name it, and some clients: no default does, nor
# a rule that was written for pulls.
CHANGING = frozenset({Action.PUSH, Action.DELETE})

# What a rule, or a token, is about only if it names the action: nobody gets it with everything else.
EXPLICIT = frozenset({Action.ADMIN})


class Rule(Struct, frozen=True):
    """One rule. `number`: its place in the configuration, from 1. `name`: for people, may be empty."""

    number: int
    allow: bool
    name: str = ""
    networks: tuple[Network, ...] = ()
    repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    identities: tuple[str, ...] = ()
    min_age: float = 0.0  # seconds; 0 for any age

    @property
    def names_clients(self) -> bool:
        """Return whether the rule is about some clients only."""
        return bool(self.identities or self.networks)

    def applies_to(
        self, action: Action, repository: Repository, tag: str | None, age: float | None = None
    ) -> bool:
        """Return whether the rule is about this request, from any client. `tag`: None for one without.

        `age`: seconds since the image was first seen; None for a request about no single image. A rule that
        allows images of an age is about such requests too, and one that denies young images is not: their age
        was judged at the manifest.
        """
        if self.min_age and not (self.allow if age is None else (age >= self.min_age) is self.allow):
            return False
        if action not in self.actions and (self.actions or action in EXPLICIT):
            return False
        if self.allow and action in CHANGING and not (self.actions and self.names_clients):
            return False
        if self.tags and (tag is None or not matches(tag, self.tags)):
            return False
        return not self.repositories or matches(str(repository), self.repositories)

    def __str__(self) -> str:
        return f"rule {self.number} ({self.name})" if self.name else f"rule {self.number}"


class Decision(Struct, frozen=True):
    """The answer to a request, and the rule that gave it; None for the default.

    `limited`: the principal whose own limits denied it, before any rule was asked.
    """

    allowed: bool
    rule: Rule | None = None
    limited: str = ""

    @property
    def reason(self) -> str:
        """The rule, default or limit that decided, in words."""
        if self.limited:
            return f"the limits of {self.limited}"
        return "the default of [access]" if self.rule is None else str(self.rule)


def parse_network(text: str) -> Network:
    """Parse an address or a network such as `10.0.0.0/8`. Raises ValueError with a message for people."""
    try:
        network = ip_network(text)
    except ValueError:
        pass
    else:
        if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
            # Such clients are compared by their IPv4 addresses: a rule with it would match, and deny, nobody.
            raise ValueError(f"{text!r} is IPv4 in the form of IPv6: write {_unmapped(network)}")
        return network
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        message = f"{text!r} is no address and no network, for instance 10.0.0.0/8, 192.168.1.7 or fd00::/8"
        raise ValueError(message) from None
    raise ValueError(f"{text!r} has bits behind its prefix: write {network}")


def _unmapped(network: IPv6Network) -> IPv4Network:
    last = int(network.network_address) & 0xFFFF_FFFF
    return IPv4Network((last, network.prefixlen - MAPPED.prefixlen))
