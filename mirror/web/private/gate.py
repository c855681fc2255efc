"""The gate to private content: after the rules, before the cache.

    repository                         client                               answer
    ---------------------------------  -----------------------------------  ------------------------------
    of an upstream that keeps nothing  any that the rules let in            as without the gate
    any                                named by an allow rule               as without the gate
    public at its upstream             any that the rules let in            as without the gate
    private, `private = "as-upstream"` its own credentials open it there    as without the gate
    private                            any other                            403 DENIED by prefix, else 404

The answer of the gate is about the repository and the client, never about what is here: whatever kind of
request it is, and whether that would be a hit, a download that is joined, or passed through.
"""

import asyncio
import math
from collections.abc import Sequence

from msgspec import Struct

from mirror.access.identity import Identity
from mirror.access.policy import Policy
from mirror.access.rules import Action
from mirror.cache.private.private_content import PrivateContent
from mirror.oci.reference import Repository, Tag, Target, TargetKind
from mirror.upstream.errors import UpstreamError
from mirror.upstream.guests.guest_login import GuestLogin

# Names of a catalog that are judged before other clients have their turn.
NAMES_AT_ONCE = 8


class Visitor(Struct, frozen=True):
    """The client of a request, as the policy sees it, and credentials that are not for this mirror."""

    identity: Identity
    policy: Policy
    credentials: GuestLogin | None = None

    def is_named(self, action: Action, repository: Repository, tag: str | None = None) -> bool:
        """Return whether a rule lets this client, as the client that it is, have that."""
        return self.policy.names(self.identity, action, repository, tag)


class PrivateRefused(Exception):
    """The refusal of private content. `note`: for the log, with what lets the client in.

    `ttl`: seconds for which it is the same.
    """

    def __init__(self, message: str, note: str, ttl: float) -> None:
        super().__init__(message)
        self.note = note
        self.ttl = ttl


class PrivateGate:
    """Admission to repositories that not anybody may read at their upstreams."""

    def __init__(self, content: PrivateContent) -> None:
        self._content = content

    @property
    def is_shut(self) -> bool:
        """Return whether any upstream has content that it keeps from some clients."""
        return bool(self._content.guarded)

    def concerns(self, target: Target) -> bool:
        """Return whether a request is about a repository that may be private."""
        return target.repository is not None and target.repository.upstream in self._content.guarded

    async def admit(self, visitor: Visitor, repository: Repository, target: Target, action: Action) -> float:
        """Return for how many seconds the client is let in; raise PrivateRefused if it is not.

        Raises UpstreamError if that is not known, and the upstream gives no answer.
        """
        tag = target.reference.name if isinstance(target.reference, Tag) else None
        if visitor.is_named(action, repository, tag):
            return math.inf
        reference = str(target.reference) if target.kind is TargetKind.MANIFEST else None
        credentials = self._credentials(visitor, repository)
        # What was private a moment ago is not asked about first.
        if credentials is not None and self._content.opens(repository, credentials):
            return await self._content.admit_guest(repository, reference, credentials)
        failure, ttl = None, 0.0
        try:
            verdict = await self._content.visibility(repository, reference)
            if verdict.public:
                return verdict.ttl
            ttl = verdict.ttl
        except UpstreamError as error:
            failure = _unknown(error, visitor, repository)
        if credentials is not None:
            seconds = await self._content.admit_guest(repository, reference, credentials)
            if seconds > 0:
                return seconds
        raise failure or self._refusal(visitor, repository, ttl)

    async def hidden(self, visitor: Visitor, names: Sequence[str]) -> set[str]:
        """Return the repositories, `<upstream>/<repository>`, whose names the client may not know."""
        unknown = set[str]()
        for number, name in enumerate(names, 1):
            repository = Repository(*name.split("/", 1))
            if repository.upstream in self._content.guarded and not self._knows(visitor, repository):
                unknown.add(name)
            if number % NAMES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return unknown - await self._content.public_among(unknown)

    def _credentials(self, visitor: Visitor, repository: Repository) -> GuestLogin | None:
        return visitor.credentials if repository.upstream in self._content.open_to_guests else None

    def _knows(self, visitor: Visitor, repository: Repository) -> bool:
        credentials = self._credentials(visitor, repository)
        return visitor.is_named(Action.LIST, repository) or (
            credentials is not None and self._content.opens(repository, credentials)
        )

    def _refusal(self, visitor: Visitor, repository: Repository, ttl: float) -> PrivateRefused:
        """Return the refusal, with what the operator writes to let the client in."""
        upstream, rule = repository.upstream, _rule(visitor.identity, repository)
        words = f"{repository} is not public, and no rule of this mirror names {visitor.identity} for it"
        if self._credentials(visitor, repository) is not None:
            words += f"; {upstream} does not open it to the credentials that came with the request"
        elif upstream in self._content.open_to_guests:
            words += f"; send the credentials of an account of {upstream} that may read it"
        note = f"private, and no rule names the client for it; this would: {rule}"
        return PrivateRefused(f"{words}. Its operator can add: {rule}", note, ttl)


def _unknown(error: UpstreamError, visitor: Visitor, repository: Repository) -> UpstreamError:
    """Return the error of a client that is not let in because its upstream does not say who may be."""
    found = error.copy()
    found.message = (
        f"no rule of this mirror names {visitor.identity} for {repository}, and it is not known to be public"
        f": {error}. Its operator can add: {_rule(visitor.identity, repository)}"
    )
    found.args = (found.message,)
    return found


def _rule(identity: Identity, repository: Repository) -> str:
    """Return the rule that would let the client in, for its operator."""
    who = f'identities = ["{identity.names[0]}"]' if identity.names else f'networks = ["{identity.address}"]'
    return f'[[rule]] effect = "allow", {who}, repositories = ["{repository}"]'
