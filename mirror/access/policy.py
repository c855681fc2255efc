"""The policy: all rules and the default, asked for each request.

A client is judged by its *scope*: which rules' networks and identities it is in. Clients of one scope are
treated alike in everything, so the scope is what a remembered decision is remembered for.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct

from mirror.access.identity import Identity
from mirror.access.patterns import PatternIndex, matches
from mirror.access.rules import CHANGING, EXPLICIT, Action, Decision, Rule
from mirror.oci.reference import Repository
from mirror.util.lru import LRUCache

Address = IPv4Address | IPv6Address

# Room for remembered scopes and decisions each, in bytes: ten thousand clients, and images in use.
REMEMBERED_BYTES = 8 * 1024 * 1024


class Scope(tuple[int, ...]):
    """The numbers of the rules that are about a client, in order.

    Each request needs the hash of its scope, which may have a thousand numbers: it is computed once.
    """

    _hash: int | None = None

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


# What a connection says of its client: the rules about its address, principals that it proves itself, and
# marks of what else tells connections apart.
ConnectionScope = tuple[Scope | int | str, ...]

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
    """Decisions by the first matching rule; `default`: whether what no rule matches is allowed.

    `trust_created`: patterns of repositories whose images are as old as their authors say.
    """

    def __init__(
        self, rules: Sequence[Rule] = (), *, default: bool = True, trust_created: Sequence[str] = ()
    ) -> None:
        self._trust_created = tuple(trust_created)
        self.rules = tuple(rules)
        self.default = default
        self._by_number = {rule.number: rule for rule in rules}
        self._naming = frozenset(rule.number for rule in rules if rule.identities)
        self._by_name = PatternIndex((rule.identities, rule.number) for rule in rules if rule.identities)
        self.ages = tuple(sorted({rule.min_age for rule in rules if rule.min_age}))
        self._known: LRUCache[Scope, Scope] = LRUCache(REMEMBERED_BYTES)  # equal scopes are one object
        self._reaches: LRUCache[str, Scope] = LRUCache(REMEMBERED_BYTES)
        self._scopes: LRUCache[Identity, Scope] = LRUCache(REMEMBERED_BYTES)
        self._decisions: LRUCache[_Question, Decision] = LRUCache(REMEMBERED_BYTES)

    @property
    def restricts(self) -> bool:
        """Return whether any request of anyone can be denied that changes nothing."""
        return not self.default or any(not rule.allow for rule in self.rules)

    def trusts_created(self, repository: Repository) -> bool:
        """Return whether the age of an image goes by the date that its author wrote, too."""
        return bool(self._trust_created) and matches(str(repository), self._trust_created)

    def reach(self, address: str) -> Scope:
        """Return the rules whose networks the address is in, for any identity there.

        For an address that cannot be read these are the rules without networks.
        """
        found = self._reaches.get(address)
        if found is None:
            parsed = parse_address(address)
            found, size = self._one(rule.number for rule in self.rules if _is_in(parsed, rule))
            self._reaches.put(address, found, len(address) + size)
        return found

    def scope(self, identity: Identity) -> Scope:
        """Return the rules that are about the client: whose networks and identities it is in."""
        found = self._scopes.get(identity)
        if found is None:
            others = self._naming - self._by_name.find(identity.names)
            reach = self.reach(identity.address)
            found, size = self._one(number for number in reach if number not in others)
            self._scopes.put(identity, found, sum(map(len, identity.names)) + size)
        return found

    def _one(self, numbers: Iterable[int]) -> tuple[Scope, int]:
        """Return the scope of these rules, one object for all its clients; and the bytes that it adds."""
        scope = Scope(numbers)
        known = self._known.get(scope)
        if known is not None:
            return known, 0
        size = 8 * len(scope)
        self._known.put(scope, scope, size)
        return scope, size

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

    def administers(self, identity: Identity) -> bool:
        """Return whether a client may see everything, and change what the mirror holds.

        The first rule about the action `admin` decides, else a token that is good for it. The action is about
        the whole mirror: a rule or a token for some repositories does not give it.
        """
        limits = identity.restrictions
        if not all(each.covers(Action.ADMIN) for each in limits):
            return False
        for number in self.scope(identity):
            rule = self._by_number[number]
            about_all = rule.names_clients and not (rule.repositories or rule.tags)
            if Action.ADMIN in rule.actions and (about_all or not rule.allow):
                return rule.allow
        return any(Action.ADMIN in each.actions for each in limits)

    def _decide(self, question: _Question) -> Decision:
        for number in question.scope:
            rule = self._by_number[number]
            if rule.applies_to(question.action, question.repository, question.tag, question.age):
                return Decision(rule.allow, rule)
        return Decision(self.default and question.action not in CHANGING | EXPLICIT)

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
