"""The policy: all rules and the default, asked for each request.

A client is judged by its *scope*: which rules' networks and identities it is in. Clients of one scope are
treated alike in everything, so the scope is what a remembered decision is remembered for.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct

from mirror.access.identity import Identity
from mirror.access.patterns import PatternIndex
from mirror.access.rules import Action, Decision, Rule
from mirror.oci.reference import Repository
from mirror.util.lru import LRUCache

Address = IPv4Address | IPv6Address

# Room for remembered scopes and decisions each, in bytes: ten thousand clients, and images in use.
REMEMBERED_BYTES = 8 * 1024 * 1024

# A scope: the numbers of the rules that are about the client, in order.
Scope = tuple[int, ...]

# What a connection says of its client: the rules about its address, and principals that it proves itself.
ConnectionScope = tuple[int | str, ...]

EVERYBODY: ConnectionScope = ()


def everybody(client: str, names: tuple[str, ...] = ()) -> ConnectionScope:
    """Return the scope of every connection where nothing is restricted."""
    return EVERYBODY


class _Question(Struct, frozen=True):
    """Everything about a request that a rule can see."""

    scope: Scope
    action: Action
    repository: Repository
    tag: str | None
    age: float | None = None


class Policy:
    """Decisions by the first matching rule; `default`: whether what no rule matches is allowed."""

    def __init__(self, rules: Sequence[Rule] = (), *, default: bool = True) -> None:
        self.rules = tuple(rules)
        self.default = default
        self._by_number = {rule.number: rule for rule in rules}
        self._naming = frozenset(rule.number for rule in rules if rule.identities)
        self._by_name = PatternIndex((rule.identities, rule.number) for rule in rules if rule.identities)
        self.ages = tuple(sorted({rule.min_age for rule in rules if rule.min_age}))
        self._reaches: LRUCache[str, Scope] = LRUCache(REMEMBERED_BYTES)
        self._scopes: LRUCache[Identity, Scope] = LRUCache(REMEMBERED_BYTES)
        self._decisions: LRUCache[_Question, Decision] = LRUCache(REMEMBERED_BYTES)

    @property
    def restricts(self) -> bool:
        """Return whether any request of anyone can be denied."""
        return not self.default or any(not rule.allow for rule in self.rules)

    def reach(self, address: str) -> Scope:
        """Return the rules whose networks the address is in, for any identity there.

        For an address that cannot be read these are the rules without networks.
        """
        found = self._reaches.get(address)
        if found is None:
            parsed = parse_address(address)
            found = tuple(rule.number for rule in self.rules if _is_in(parsed, rule))
            self._reaches.put(address, found, len(address) + 8 * len(found))
        return found

    def scope(self, identity: Identity) -> Scope:
        """Return the rules that are about the client: whose networks and identities it is in."""
        found = self._scopes.get(identity)
        if found is None:
            others = self._naming - self._by_name.find(identity.names)
            found = tuple(number for number in self.reach(identity.address) if number not in others)
            self._scopes.put(identity, found, sum(map(len, identity.names)) + 8 * len(found))
        return found

    def decide(
        self,
        scope: Scope,
        action: Action,
        repository: Repository,
        tag: str | None = None,
        age: float | None = None,
    ) -> Decision:
        """Return whether clients of this scope may do that. `tag`: of a request that names one.

        `age`: of the image in seconds; None for a request about no single image.
        """
        if age is not None:
            age = max(
                (each for each in self.ages if each <= age), default=0.0
            )  # all ages up to the next are alike
        question = _Question(scope, action, repository, tag, age)
        found = self._decisions.get(question)
        if found is None:
            found = self._decide(question)
            self._decisions.put(question, found, len(str(repository)) + len(tag or ""))
        return found

    def names(
        self, identity: Identity, action: Action, repository: Repository, tag: str | None = None
    ) -> bool:
        """Return whether a rule allows that to the client by its network or identity, and none before denies.

        What everybody is allowed, by a rule or by the default, names no client.
        """
        for number in self.scope(identity):
            rule = self._by_number[number]
            if rule.applies_to(action, repository, tag) and (rule.names_clients or not rule.allow):
                return rule.allow
        return False

    def _decide(self, question: _Question) -> Decision:
        for number in question.scope:
            rule = self._by_number[number]
            if rule.applies_to(question.action, question.repository, question.tag, question.age):
                return Decision(rule.allow, rule)
        return Decision(self.default)

    def allowed_from(
        self, scope: Scope, action: Action, repository: Repository, tag: str | None, age: float
    ) -> float | None:
        """Return the age, in seconds, from which a request about an image is allowed that is not so now."""
        later = (each for each in self.ages if each > age)
        return next(
            (each for each in later if self.decide(scope, action, repository, tag, each).allowed), None
        )


def parse_address(text: str) -> Address | None:
    """Parse an address; an IPv4 address in IPv6 form (`::ffff:10.0.0.1`) is the IPv4 address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _is_in(address: Address | None, rule: Rule) -> bool:
    if not rule.networks:
        return True
    return address is not None and any(
        address.version == network.version and address in network for network in rule.networks
    )
