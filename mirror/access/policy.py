"""The policy: all rules and the default, asked for each request.

A client is judged by its *scope*: which rules' networks its address is in. Addresses of one scope are treated
alike in everything, so the scope is what a remembered decision or response is remembered for.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from msgspec import Struct

from mirror.access.rules import Action, Decision, Rule
from mirror.oci.reference import Repository
from mirror.util.lru import LRUCache

Address = IPv4Address | IPv6Address

# Room for remembered scopes and decisions, in bytes: some thousand clients, and images in use.
REMEMBERED_BYTES = 4 * 1024 * 1024


# The scope of an address: the numbers of the rules whose networks the address is in, in order.
Scope = tuple[int, ...]

EVERYBODY: Scope = ()


def everybody(client: str) -> Scope:
    """Return the scope of every client where nothing is restricted."""
    return EVERYBODY


class _Question(Struct, frozen=True):
    """Everything about a request that a rule can see."""

    scope: Scope
    action: Action
    repository: Repository
    tag: str | None


class Policy:
    """Decisions by the first matching rule; `default`: whether what no rule matches is allowed."""

    def __init__(self, rules: Sequence[Rule] = (), *, default: bool = True) -> None:
        self.rules = tuple(rules)
        self.default = default
        self._by_number = {rule.number: rule for rule in rules}
        self._scopes: LRUCache[str, Scope] = LRUCache(REMEMBERED_BYTES)
        self._decisions: LRUCache[_Question, Decision] = LRUCache(REMEMBERED_BYTES)

    @property
    def restricts(self) -> bool:
        """Return whether any request of anyone can be denied."""
        return not self.default or any(not rule.allow for rule in self.rules)

    def scope(self, client: str) -> Scope:
        """Return the scope of a client's address; of one that cannot be read, the scope without networks."""
        found = self._scopes.get(client)
        if found is None:
            address = parse_address(client)
            found = tuple(rule.number for rule in self.rules if _is_in(address, rule))
            self._scopes.put(client, found, len(client) + 8 * len(found))
        return found

    def decide(
        self, scope: Scope, action: Action, repository: Repository, tag: str | None = None
    ) -> Decision:
        """Return whether clients of this scope may do that. `tag`: of a request that names one."""
        question = _Question(scope, action, repository, tag)
        found = self._decisions.get(question)
        if found is None:
            found = self._decide(question)
            self._decisions.put(question, found, len(str(repository)) + len(tag or ""))
        return found

    def _decide(self, question: _Question) -> Decision:
        for number in question.scope:
            rule = self._by_number[number]
            if rule.applies_to(question.action, question.repository, question.tag):
                return Decision(rule.allow, rule)
        return Decision(self.default)


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
