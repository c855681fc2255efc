"""Access control of requests: a decision for each request, before the cache or an upstream is asked.

A refusal tells nothing about what is here or upstream. A client that named the registry gets 403 DENIED; a
client that uses this as one of its mirrors gets 404 as for what is not here, because it treats 403 worse than
404 and may take neither for a last word: only a firewall keeps it from the registry itself.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from mirror.access.forwarded import is_among
from mirror.access.policy import ConnectionScope, Policy, parse_address
from mirror.access.rules import CHANGING, Action, Decision, Network
from mirror.cache.results import FOREVER, Birth, CatalogAnswer
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import Code, RegistryError
from mirror.oci.reference import Repository, Tag, Target, TargetKind, Via
from mirror.upstream.errors import UpstreamError
from mirror.web.client_errors import UNKNOWN
from mirror.web.private.gate import PrivateGate, PrivateRefused, Visitor
from mirror.web.request_log import RequestRecord


class FindBirth(Protocol):
    """Returns since when an image exists."""

    def __call__(
        self, repository: Repository, digest: Digest, *, by_author: bool = False
    ) -> Awaitable[Birth]: ...


FetchCatalog = Callable[[str, int], Awaitable[CatalogAnswer]]

# Marks the scope of a connection that comes from a trusted proxy; no rule has this number.
PROXIED = 0

# Names of a catalog, or tags, that are judged before other clients have their turn: some milliseconds with a
# thousand rules.
NAMES_AT_ONCE = 8

# Actions that a client needs to know of a repository.
KNOWING = (Action.LIST, Action.PULL)

# Names of a catalog that are asked for at once, at the least, where rules hide some: a client that may list
# nothing would cost a query of the index for each repository, with n=1.
NAMES_ASKED = 1000

# The most tags of a page that are compared with the rules; a page of the largest repositories has fewer.
MOST_TAGS = 100_000

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
        self.policy = policy
        self._trusted = trusted_proxies
        self._open_or_shut_gate = gate
        self._gate = _if_shut(gate)

    def adopt(self, policy: Policy, trusted_proxies: Sequence[Network]) -> None:
        """Decide by another policy from now on; what upstreams keep private has changed before."""
        self.policy, self._trusted = policy, trusted_proxies
        self._gate = _if_shut(self._open_or_shut_gate)

    @property
    def _tells_apart(self) -> bool:
        """Return whether clients get different answers to the same request."""
        return self.policy.restricts or self._gate is not None

    def scope(self, peer: str, names: tuple[str, ...] = ()) -> ConnectionScope:
        """Return the scope of a connection, for which responses may be remembered with a request's head.

        The head has credentials, and decides with the address and what the connection itself proves: `names`.
        Behind a trusted proxy the head has the client's address too, and decides with the scope of the proxy.
        """
        scope: ConnectionScope = (self.policy.reach(peer), *names) if self._tells_apart else names
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
        return self.policy.scope(identity), restrictions, bool(identity.names)

    def authorise(self, record: RequestRecord, target: Target) -> None:
        """Raise AccessDenied, 403 or 404, if the client may not have what the target names."""
        action = action_of(record, target)
        if target.repository is None or not (self._restricts(record) or action in CHANGING):
            return
        tag = target.reference.name if isinstance(target.reference, Tag) else None
        if target.kind is TargetKind.MANIFEST and action is Action.PULL and self.policy.ages:
            decisions = [
                self._decide(record, action, target.repository, tag, age) for age in (0.0, *self.policy.ages)
            ]
            record.age_matters = len({each.allowed for each in decisions}) > 1
            decision = decisions[-1]
        else:
            decision = self._decide(record, action, target.repository, tag)
        if not decision.allowed and not record.age_matters:
            # containerd asks a mirror that refuses again for each object.
            record.ttl = 0.0 if action in CHANGING else FOREVER
            raise _refusal(record, target, action, decision)
        record.rule = decision.reason

    def trusts_created(self, repository: Repository) -> bool:
        """Return whether the age of an image goes by its author's date, too."""
        return self.policy.trusts_created(repository)

    def authorise_age(self, record: RequestRecord, target: Target, birth: Birth) -> None:
        """Raise AccessDenied if the image of the target is too young for this client, or too old."""
        if target.repository is None:
            return
        scope, age = self.policy.scope(record.identity), max(0.0, birth.now - birth.since)
        tag = target.reference.name if isinstance(target.reference, Tag) else None
        decision = self.policy.decide(scope, Action.PULL, target.repository, tag, age)
        record.rule = decision.reason
        if decision.allowed:
            return
        later = self.policy.allowed_from(scope, Action.PULL, target.repository, tag, age)
        record.ttl = FOREVER if later is None else later - age
        happened = "created, as its author says," if birth.by_author else "first seen here"
        words = f": it was {happened} on {_date(birth.since)}"
        if later is not None:
            words = f" before {_date(birth.since + later)}{words}"
        raise _refusal(record, target, Action.PULL, decision, words)

    def guards(self, target: Target) -> bool:
        """Return whether the client of this request has to be let in by `admit`."""
        return self._gate is not None and self._gate.concerns(target)

    async def admit(self, record: RequestRecord, target: Target) -> None:
        """Raise AccessDenied, 403 or 404, if a repository is private, and not for this client.

        Raises UpstreamError if it is not known whether that is so.
        """
        if self._gate is None or target.repository is None:
            return
        try:
            ttl = await self._gate.admit(
                self._visitor(record), target.repository, target, ACTIONS[target.kind]
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
        if self._restricts(record) and not self._decide(record, Action.PULL, target.repository, None).allowed:
            return False
        if self._gate is None or not self._gate.concerns(target):
            return True
        try:
            async with asyncio.timeout(ADMISSION_SECONDS):
                await self._gate.admit(self._visitor(record), target.repository, target, Action.PULL)
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

    def _visitor(self, record: RequestRecord) -> Visitor:
        return Visitor(record.identity, self.policy, record.guest)

    async def catalog(
        self, record: RequestRecord, target: Target, fetch: FetchCatalog, after: str, limit: int
    ) -> tuple[list[str], bool]:
        """Return a page of the names that the client may list, and whether another one follows.

        `fetch` returns the page of all names after a name. A name that is not shown ends no page: the next
        page would be asked for by that name.
        """
        shown: list[str] = []
        restricts = self._restricts(record) or self._gate is not None
        asked = max(limit, NAMES_ASKED) if limit and restricts else limit
        while True:
            page = await fetch(after, asked)
            private = await self._private(record, target, page.repositories)
            for number, name in enumerate(page.repositories):
                if name not in private and self._may_list(record, target, name):
                    if len(shown) == limit:
                        return shown, True
                    shown.append(name)
                if number % NAMES_AT_ONCE == NAMES_AT_ONCE - 1:
                    await asyncio.sleep(0)
            if not page.more or not page.repositories:
                return shown, False
            after = page.repositories[-1]

    async def visible(self, record: RequestRecord, names: Collection[str]) -> set[str]:
        """Return those of the repositories, `<upstream>/<repository>`, of which the client may know."""
        found = sorted(names)
        if self._restricts(record):
            allowed = []
            for number, name in enumerate(found, 1):
                repository = Repository(*name.split("/", 1))
                if all(self._decide(record, each, repository, None).allowed for each in KNOWING):
                    allowed.append(name)
                if number % NAMES_AT_ONCE == 0:
                    await asyncio.sleep(0)
            found = allowed
        if self._gate is not None and found:
            return set(found) - await self._gate.hidden(self._visitor(record), found)
        return set(found)

    def may_know_tag(self, record: RequestRecord, repository: Repository, tag: str) -> bool:
        """Return whether the client may know of a tag in a repository of which it may know."""
        return not self._restricts(record) or self._decide(record, Action.PULL, repository, tag).allowed

    def hides(self, record: RequestRecord) -> bool:
        """Return whether there may be content of which the client may not know."""
        return self._restricts(record) or self._gate is not None

    async def visible_tags(self, record: RequestRecord, repository: Repository, page: bytes) -> bytes:
        """Return a page of tags without those that the client may not pull.

        Raises RegistryError for a page that cannot be judged: it might tell of one.
        """
        if not self._restricts(record):
            return page
        try:
            tags = json_text.parse(page, MOST_TAGS)["tags"] or []
            names = [str(tag) for tag in tags]
        except (ValueError, KeyError, TypeError) as error:
            message = f"the tags cannot be compared with the rules of this mirror ({error}); ask for n=1000"
            raise RegistryError(Code.UNAVAILABLE, message, status=502) from None
        shown: list[str] = []
        for number, tag in enumerate(names, 1):
            if self._decide(record, Action.PULL, repository, tag).allowed:
                shown.append(tag)
            if number % NAMES_AT_ONCE == 0:
                await asyncio.sleep(0)
        return json.dumps({"name": repository.path, "tags": shown}, separators=(",", ":")).encode()

    async def _private(self, record: RequestRecord, target: Target, names: Sequence[str]) -> set[str]:
        """Return those of the names that are private, and not for this client."""
        if self._gate is None:
            return set()
        prefix = "" if target.upstream is None else f"{target.upstream}/"
        hidden = await self._gate.hidden(self._visitor(record), [f"{prefix}{name}" for name in names])
        return {name.removeprefix(prefix) for name in hidden}

    def _may_list(self, record: RequestRecord, target: Target, name: str) -> bool:
        if not self._restricts(record):
            return True
        first, _, rest = name.partition("/")
        repository = Repository(first, rest) if target.upstream is None else Repository(target.upstream, name)
        return self._decide(record, Action.LIST, repository, None).allowed

    def _decide(
        self,
        record: RequestRecord,
        action: Action,
        repository: Repository,
        tag: str | None,
        age: float | None = None,
    ) -> Decision:
        restriction = record.identity.forbidden_by(action, repository)
        if restriction is not None:
            return Decision(allowed=False, limited=restriction.owner)
        return self.policy.decide(self.policy.scope(record.identity), action, repository, tag, age)

    def _restricts(self, record: RequestRecord) -> bool:
        """Return whether anything can be denied to this client."""
        return self.policy.restricts or bool(record.identity.restrictions)


def _if_shut(gate: PrivateGate | None) -> PrivateGate | None:
    return gate if gate is not None and gate.is_shut else None


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
