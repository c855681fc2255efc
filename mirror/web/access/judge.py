"""Decisions about the client of a request: by the rules, and by what upstreams keep private."""

from mirror.access.policy import Policy
from mirror.access.rules import Action, Decision
from mirror.oci.reference import Repository
from mirror.web.private.gate import PrivateGate, Visitor
from mirror.web.request_log import RequestRecord


class RequestJudge:
    """The policy and the gate to private content, as all parts of access control ask them."""

    def __init__(self, policy: Policy, gate: PrivateGate | None) -> None:
        """`gate`: to private content; None where there is none."""
        self.policy = policy
        self._open_or_shut_gate = gate
        self.gate = _if_shut(gate)

    def adopt(self, policy: Policy) -> None:
        """Decide by another policy from now on; what upstreams keep private has changed before."""
        self.policy = policy
        self.gate = _if_shut(self._open_or_shut_gate)

    def decide(
        self,
        record: RequestRecord,
        action: Action,
        repository: Repository,
        tag: str | None,
        age: float | None = None,
    ) -> Decision:
        """Return the decision of the rules, and of the limits of the client's credentials."""
        restriction = record.identity.forbidden_by(action, repository)
        if restriction is not None:
            return Decision(allowed=False, limited=restriction.owner)
        return self.policy.decide(self.policy.scope(record.identity), action, repository, tag, age)

    def restricts(self, record: RequestRecord) -> bool:
        """Return whether anything can be denied to this client."""
        return self.policy.restricts or bool(record.identity.restrictions)

    def visitor(self, record: RequestRecord) -> Visitor:
        """Return the client, as the gate to private content asks for it."""
        return Visitor(record.identity, self.policy, record.guest)


def _if_shut(gate: PrivateGate | None) -> PrivateGate | None:
    return gate if gate is not None and gate.is_shut else None
