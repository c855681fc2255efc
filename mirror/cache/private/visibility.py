"""Visibility: whether anybody may read a repository, as its upstream answers nobody's request.

    last answer                  asked again            while the upstream gives no answer
    ---------------------------  ---------------------  -----------------------------------
    public                       after 15 minutes, or   public
                                 `recheck_access`
    private                      after five minutes     private
    none                         at each request        private: the request fails

An answer that a repository is public is on the disk, for all workers and over restarts; without one it is
private. All that is asked for in a repository is asked about once in that time: no hit costs a round trip.
"""

import asyncio
from collections.abc import Collection
from functools import partial

from msgspec import Struct

from mirror.cache.negative_cache import NegativeCache
from mirror.oci.reference import Repository
from mirror.store.metadata.visibility import PublicMark
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import FINAL, Failure, UpstreamError, too_many_requests
from mirror.upstream.rights.grant import Grant
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.log import get_logger
from mirror.util.single_flight import SingleFlight
from mirror.util.ttl_cache import TTLCache

log = get_logger(__name__)

# How long an answer is believed, in seconds: a repository that becomes private is served for as long. Asking
# costs the upstream a request without an account for each repository in use.
PUBLIC_SECONDS = 900.0
PRIVATE_SECONDS = 300.0

# How long an upstream that gave no answer is not asked again about a repository that was public, in seconds.
UNANSWERED_SECONDS = 60.0

# Repositories that are remembered in memory.
MOST = 10_000


class Verdict(Struct, frozen=True):
    """Answer whether a repository is public, and for how many seconds that is believed unasked."""

    public: bool
    ttl: float = 0.0


class _Known(Struct, frozen=True):
    """A mark in memory, as it was when `removals` was the number of the store."""

    mark: PublicMark
    removals: int


class Visibility:
    """Asks upstreams whether repositories are public, and remembers their answers."""

    def __init__(
        self, context: TransferContext, upstreams: UpstreamSet, *, fallback_after: float, missing: float
    ) -> None:
        """`fallback_after`: seconds to wait where the last answer can be used instead.

        `missing`: seconds to remember that something that nobody may read, or that does not exist, was named.
        """
        self._context = context
        self._upstreams = upstreams
        self._fallback_after = fallback_after
        self._store = context.store.metadata.visibility
        self._public: TTLCache[Repository, _Known] = TTLCache(PUBLIC_SECONDS, MOST)
        self._private: TTLCache[Repository, float] = TTLCache(PUBLIC_SECONDS, MOST)
        self._unanswered: TTLCache[Repository, bool] = TTLCache(UNANSWERED_SECONDS, MOST)
        self._absent: NegativeCache[Repository] = NegativeCache(missing, failures=FINAL)
        self._asking: SingleFlight[tuple[Repository, str | None], Grant] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )

    async def verdict(self, repository: Repository, reference: str | None) -> Verdict:
        """Return whether anybody may read a repository. `reference`: of the manifest that a client wants.

        Raises UpstreamError where that is not known, and cannot be asked.
        """
        mark, asked = await self._mark(repository), self._private.get(repository)
        if asked is not None and (mark is None or asked >= mark.confirmed):
            mark, age = None, self._context.clock() - asked
            if 0 <= age < PRIVATE_SECONDS:
                return Verdict(public=False, ttl=PRIVATE_SECONDS - age)
        if mark is not None:
            return await self._still_public(repository, mark, reference)
        with self._absent.remembering(repository, reference):
            grant = await self._ask(repository, reference)
            if grant is Grant.ABSENT:
                raise _not_found(repository)
        return self._new_verdict(repository, grant)

    async def public_among(self, names: Collection[str]) -> set[str]:
        """Return those of the repositories, `<upstream>/<repository>`, that were public when last asked.

        Nothing is asked; an answer older than `recheck_access` does not count.
        """
        if not names:
            return set()
        marks, now = await self._store.between(min(names), max(names)), self._context.clock()
        terms = {name: upstream.recheck_access for name, upstream in self._upstreams.items()}
        return {
            name
            for name in names
            if (mark := marks.get(name)) and 0 <= now - mark.confirmed < terms[name.partition("/")[0]]
        }

    async def _mark(self, repository: Repository) -> PublicMark | None:
        """Return the mark of a repository: from memory, if no process has withdrawn anything since."""
        removals = self._store.removals()
        known = self._public.get(repository)
        if known is not None and known.removals == removals:
            return known.mark
        mark = await self._store.mark(repository)
        if mark is not None:
            self._public.put(repository, _Known(mark, removals))
        return mark

    def _ttl(self, repository: Repository, mark: PublicMark) -> float:
        age = self._context.clock() - mark.confirmed
        term = min(PUBLIC_SECONDS, self._upstreams[repository.upstream].recheck_access)
        return term - age if age >= 0 else 0.0  # a clock that was set back

    async def _still_public(self, repository: Repository, mark: PublicMark, reference: str | None) -> Verdict:
        """Return the verdict on a repository that was public: the same while its upstream gives no answer."""
        if (ttl := self._ttl(repository, mark)) > 0:
            return Verdict(public=True, ttl=ttl)
        if not self._upstreams[repository.upstream].health.available or self._unanswered.get(repository):
            return Verdict(public=True)
        try:
            async with asyncio.timeout(self._fallback_after):
                grant = await self._ask_again(repository, mark, reference)
        except (TimeoutError, UpstreamError):
            self._unanswered.put(repository, True)
            return Verdict(public=True)
        if grant is Grant.ABSENT:
            # Perhaps what was asked for has gone; but some registries hide what is private like that.
            await self._withdraw(repository)
            raise _not_found(repository)
        return self._new_verdict(repository, grant)

    async def _ask_again(self, repository: Repository, mark: PublicMark, reference: str | None) -> Grant:
        """Ask about a repository that was public; if the name tells nothing, by what was granted then."""
        grant = await self._ask(repository, reference or mark.reference)
        if grant is Grant.ABSENT and reference is not None and reference != mark.reference:
            return await self._ask(repository, mark.reference)
        return grant

    def _new_verdict(self, repository: Repository, grant: Grant) -> Verdict:
        if grant is not Grant.GRANTED:
            return Verdict(public=False, ttl=PRIVATE_SECONDS)
        return Verdict(
            public=True, ttl=min(PUBLIC_SECONDS, self._upstreams[repository.upstream].recheck_access)
        )

    async def _ask(self, repository: Repository, reference: str | None) -> Grant:
        ask = partial(self._ask_upstream, repository, reference)
        return await self._asking.do((repository, reference), ask, repository.upstream)

    async def _ask_upstream(self, repository: Repository, reference: str | None) -> Grant:
        """Ask, and note the answer."""
        now = self._context.clock()
        grant = await self._upstreams[repository.upstream].accounts.grant(repository.path, reference, None)
        if grant is Grant.GRANTED:
            mark = PublicMark(now, reference)
            self._private.drop(repository)
            await self._store.put(repository, mark)
            self._public.put(repository, _Known(mark, self._store.removals()))
        elif grant is Grant.REFUSED:
            self._private.put(repository, now)
            await self._withdraw(repository)
        return grant

    async def _withdraw(self, repository: Repository) -> None:
        if await self._mark(repository) is not None:
            log.info("repository no longer public", repository=str(repository))
            self._public.drop(repository)
            await self._store.withdraw(repository)
            self._public.drop(repository)


def _not_found(repository: Repository) -> UpstreamError:
    message = f"{repository}: its upstream has nothing there that anybody may read"
    return UpstreamError(Failure.NOT_FOUND, message, status=404)
