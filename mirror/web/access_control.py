"""Access control of requests: a decision for each request, before the cache or an upstream is asked.

A refusal tells nothing about what is here or upstream. A client that named the registry gets 403 DENIED; a
client that uses this as one of its mirrors gets 404 as for what is not here, because it treats 403 worse than
404 and may take neither for a last word: only a firewall keeps it from the registry itself.
"""

import asyncio
from collections.abc import Awaitable, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from mirror.access.forwarded import is_among
from mirror.access.policy import ConnectionScope, Policy, parse_address
from mirror.access.rules import CHANGING, Action, Decision, Network
from mirror.cache.results import FOREVER, Birth
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository, Tag, Target, TargetKind, Via
from mirror.upstream.errors import UpstreamError
from mirror.web.access.judge import RequestJudge
from mirror.web.access.list_filter import ListFilter
from mirror.web.client_errors import UNKNOWN
from mirror.web.private.gate import PrivateGate, PrivateRefused
from mirror.web.request_log import RequestRecord


class FindBirth(Protocol):
    """Returns since when an image exists."""

    def __call__(
        self, repository: Repository, digest: Digest, *, by_author: bool = False
    ) -> Awaitable[Birth]: ...


# Marks the scope of a connection that comes from a trusted proxy; no rule has this number.
PROXIED = 0

# Time, in seconds, for an upstream's word on whether a repository is private, where none is needed.
ADMISSION_SECONDS = 5.0

# The action of a request for each kind of content; other kinds are no repository's.
ACTIONS = {
    TargetKind.MANIFEST: Action.PULL,
    TargetKind.BLOB: Action.PULL,
    TargetKind.REFERRERS: Action.PULL,
    TargetKind.TAGS: Action.LIST,
}


def action_of(record: RequestRecord, target: Target) -> Action:
    """Return the action of a request about a repository."""
    if target.kind is TargetKind.UPLOAD:
        return Action.PUSH
    if record.request.method in ("GET", "HEAD"):
        return ACTIONS.get(target.kind, Action.LIST)
    return Action.DELETE if record.request.method == "DELETE" else Action.PUSH


class AccessDenied(RegistryError):
    """The refusal of a request by the rules. `note`: for the access line, which rule it was."""

    def __init__(self, code: Code, message: str, status: int, note: str) -> None:
        super().__init__(code, message, status=status)
        self.note = note


class AccessControl:
    """The policy, as the registry API asks it. `adopt` replaces it at any time."""

    def __init__(
        self, policy: Policy, trusted_proxies: Sequence[Network] = (), gate: PrivateGate | None = None
    ) -> None:
        """`gate`: to private content; None where there is none."""
        self._trusted = trusted_proxies
        self._judge = RequestJudge(policy, gate)
        self.lists = ListFilter(self._judge)

    @property
    def policy(self) -> Policy:
        """The rules that decide now."""
        return self._judge.policy

    def adopt(self, policy: Policy, trusted_proxies: Sequence[Network]) -> None:
        """Decide by another policy from now on; what upstreams keep private has changed before."""
        self._trusted = trusted_proxies
        self._judge.adopt(policy)

    @property
    def _tells_apart(self) -> bool:
        """Return whether clients get different answers to the same request."""
        return self._judge.policy.restricts or self._judge.gate is not None

    def scope(self, peer: str, names: tuple[str, ...] = ()) -> ConnectionScope:
        """Return the scope of a connection, for which responses may be remembered with a request's head.

        The head has credentials, and decides with the address and what the connection itself proves: `names`.
        Behind a trusted proxy the head has the client's address too, and decides with the scope of the proxy.
        """
        scope: ConnectionScope = (self._judge.policy.reach(peer), *names) if self._tells_apart else names
        return (*scope, PROXIED) if is_among(parse_address(peer), self._trusted) else scope

    def rights(self, record: RequestRecord) -> Hashable | None:
        """Return the rights of the client of a request: clients with equal ones get equal responses.

        None if more than its rights decides: credentials for an upstream or in the path, a client behind a
        proxy, something that the access line says of the credentials.
        """
        own = record.guest is not None or record.path_prefix or record.note is not None
        if own or is_among(parse_address(record.request.remote or ""), self._trusted):
            return None
        identity = record.identity
        restrictions = tuple((each.repositories, each.actions) for each in identity.restrictions)
        return self._judge.policy.scope(identity), restrictions, bool(identity.names)

    def authorise(self, record: RequestRecord, target: Target) -> None:
        """Raise AccessDenied, 403 or 404, if the client may not have what the target names."""
        action = action_of(record, target)
        if target.repository is None or not (self._judge.restricts(record) or action in CHANGING):
            return
        tag = target.reference.name if isinstance(target.reference, Tag) else None
        if target.kind is TargetKind.MANIFEST and action is Action.PULL and self._judge.policy.ages:
            decisions = [
                self._judge.decide(record, action, target.repository, tag, age)
                for age in (0.0, *self._judge.policy.ages)
            ]
            record.age_matters = len({each.allowed for each in decisions}) > 1
            decision = decisions[-1]
        else:
            decision = self._judge.decide(record, action, target.repository, tag)
        if not decision.allowed and not record.age_matters:
            # containerd asks a mirror that refuses again for each object.
            record.ttl = 0.0 if action in CHANGING else FOREVER
            raise _refusal(record, target, action, decision)
        record.rule = decision.reason

    def trusts_created(self, repository: Repository) -> bool:
        """Return whether the age of an image goes by its author's date, too."""
        return self._judge.policy.trusts_created(repository)

    def authorise_age(self, record: RequestRecord, target: Target, birth: Birth) -> None:
        """Raise AccessDenied if the image of the target is too young for this client, or too old."""
        if target.repository is None:
            return
        scope, age = self._judge.policy.scope(record.identity), max(0.0, birth.now - birth.since)
        tag = target.reference.name if isinstance(target.reference, Tag) else None
        decision = self._judge.policy.decide(scope, Action.PULL, target.repository, tag, age)
        record.rule = decision.reason
        if decision.allowed:
            return
        later = self._judge.policy.allowed_from(scope, Action.PULL, target.repository, tag, age)
        record.ttl = FOREVER if later is None else later - age
        happened = "created, as its author says," if birth.by_author else "first seen here"
        words = f": it was {happened} on {_date(birth.since)}"
        if later is not None:
            words = f" before {_date(birth.since + later)}{words}"
        raise _refusal(record, target, Action.PULL, decision, words)

    def guards(self, target: Target) -> bool:
        """Return whether the client of this request has to be let in by `admit`."""
        return self._judge.gate is not None and self._judge.gate.concerns(target)

    async def admit(self, record: RequestRecord, target: Target) -> None:
        """Raise AccessDenied, 403 or 404, if a repository is private, and not for this client.

        Raises UpstreamError if it is not known whether that is so.
        """
        if self._judge.gate is None or target.repository is None:
            return
        try:
            ttl = await self._judge.gate.admit(
                self._judge.visitor(record), target.repository, target, ACTIONS[target.kind]
            )
        except PrivateRefused as refused:
            record.ttl = refused.ttl
            raise _denied(target, str(refused), refused.note) from None
        except UpstreamError as error:
            record.note = str(error)
            raise
        record.identity_ttl = min(record.identity_ttl, ttl)

    async def may_pull(self, record: RequestRecord, target: Target) -> bool:
        """Return whether the client may pull what the target names, whatever its request is for.

        False if it is not known in time whether that is private.
        """
        if target.repository is None:
            return False
        if (
            self._judge.restricts(record)
            and not self._judge.decide(record, Action.PULL, target.repository, None).allowed
        ):
            return False
        if self._judge.gate is None or not self._judge.gate.concerns(target):
            return True
        try:
            async with asyncio.timeout(ADMISSION_SECONDS):
                await self._judge.gate.admit(
                    self._judge.visitor(record), target.repository, target, Action.PULL
                )
        except (PrivateRefused, UpstreamError, TimeoutError):
            return False
        return True

    async def authorise_images(
        self, record: RequestRecord, targets: Mapping[Target, Digest], birth: FindBirth
    ) -> None:
        """Raise AccessDenied unless the client may pull all of these manifests, as they are now.

        Raises UpstreamError if it is not known, and TimeoutError if it is not known in time.
        """
        for target, digest in targets.items():
            await self.authorise_image(record, target, digest, birth)
        async with asyncio.timeout(ADMISSION_SECONDS):
            for target in targets:
                if self.guards(target):
                    await self.admit(record, target)

    async def authorise_image(
        self, record: RequestRecord, target: Target, digest: Digest, birth: FindBirth
    ) -> None:
        """Raise AccessDenied unless the rules let the client pull a manifest at its age."""
        self.authorise(record, target)
        if record.age_matters and target.repository is not None:
            by_author = self.trusts_created(target.repository)
            self.authorise_age(record, target, await birth(target.repository, digest, by_author=by_author))


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _refusal(
    record: RequestRecord, target: Target, action: Action, decision: Decision, words: str = ""
) -> AccessDenied:
    """Return the error of a denied request. `words`: about its image."""
    message = f"the rules of this mirror do not let {record.identity} {action} {target.repository}"
    if isinstance(target.reference, Tag) and decision.rule is not None and decision.rule.tags:
        message = f"{message}:{target.reference}"
    if record.note is not None:  # about credentials
        message = f"{message} ({record.note})"
    record.rule = decision.reason
    message += words
    note = f"denied by {decision.reason}"
    if action in CHANGING:
        return AccessDenied(Code.DENIED, f"{message}: ask its operator", 403, note)
    return _denied(target, f"{message}: ask its operator", note)


def _denied(target: Target, message: str, note: str) -> AccessDenied:
    named = target.via is Via.PREFIX
    code = Code.DENIED if named else UNKNOWN.get(target.kind, Code.NAME_UNKNOWN)
    return AccessDenied(code, message, 403 if named else 404, note)
