"""Listings: tags and referrers of a repository, repositories of the cache."""

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct
from msgspec.structs import replace

from mirror.cache.results import CatalogAnswer, Outcome, ReferrersAnswer, Staleness, TagsAnswer
from mirror.cache.tag.expired import REVALIDATING, saving_rate_limit
from mirror.cache.tag.gone import GoneKeeper, GoneUpstream
from mirror.cache.tag.kept_list import KeptList
from mirror.cache.tags import MOST_REFRESHES, TagCache
from mirror.oci.digest import Digest
from mirror.oci.manifest import ManifestInvalid, referrers_tag
from mirror.oci.reference import Repository, Tag
from mirror.oci.referrers import array_of, index_of, texts_by_type, texts_of_index
from mirror.store.errors import StoreError
from mirror.store.metadata.index import NEVER, ReferrersEntry
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import FINAL, Failure, UpstreamError, too_many_requests
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.fairness.loop_turns import LoopTurns
from mirror.util.lru import LRUCache
from mirror.util.single_flight import SingleFlight
from mirror.util.tasks import off_loop
from mirror.util.ttl_cache import TTLCache

# The most tags on a page that is made of known tags.
MOST_TAGS = 10_000

# Memory for pages of tags, in bytes.
PAGES = 16 * 1024 * 1024

# Memory for referrers by their type, in bytes, and what a list takes, as a multiple of its length.
LISTS = 32 * 1024 * 1024
LIST_FACTOR = 3

# Memory for lists that many callers wait with, and for their answers, in bytes each.
TEXTS = 16 * 1024 * 1024

# Bytes of lists that become answers in one turn of the event loop: those that no client takes are ended
# between turns (mirror/web/connections/large_answers.py).
MADE = 8 * 1024 * 1024

# The list of a digest that has no referrers.
NO_REFERRERS = array_of(())

# How long, in seconds, an upstream is known to lack the referrers API, and for how many repositories.
API_SECONDS = 600.0
API_REPOSITORIES = 4096

BAD_REQUEST, NOT_IMPLEMENTED = 400, 501


class _Referrers(Struct, frozen=True):
    manifests: str
    outcome: Outcome
    staleness: Staleness | None = None


class _Page(Struct, frozen=True):
    answer: TagsAnswer
    confirmed: float


class _ReadList(Struct, frozen=True):
    manifests: str
    by_type: dict[str, list[tuple[int, str]]]


class _Made(Struct, frozen=True):
    manifests: str
    data: bytes


class ListingCache:
    """Lists that change: each is one upstream request for all its callers.

    Referrers are kept in the index, pages of tags in memory. Both are fresh as long as tags are.
    """

    def __init__(
        self, context: TransferContext, upstreams: UpstreamSet, tags: TagCache, gone: GoneKeeper
    ) -> None:
        self._context = context
        self._metadata = context.store.metadata
        self._upstreams = upstreams
        self._tags = tags
        self._kept = KeptList(context.store.metadata, gone)
        self._listing: SingleFlight[tuple[Repository, str], TagsAnswer] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._referring: SingleFlight[tuple[Repository, Digest], _Referrers] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._reading: SingleFlight[tuple[Digest, int], _ReadList] = SingleFlight(
            context.tasks, refusal=too_many_requests
        )
        self._making = LoopTurns(MADE)
        self._without_api: TTLCache[Repository, bool] = TTLCache(API_SECONDS, API_REPOSITORIES)
        self._pages: LRUCache[tuple[Repository, str], _Page] = LRUCache(PAGES)
        self._refreshes = 0
        self._lists: LRUCache[Digest, _ReadList] = LRUCache(LISTS)
        self._texts: LRUCache[Digest, str] = LRUCache(TEXTS)
        self._made: LRUCache[tuple[Digest, frozenset[str]], _Made] = LRUCache(TEXTS)

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        """Return one page of the upstream's tags, or of the known tags when the upstream cannot be asked.

        A page is used again while it is fresh: Helm lists the tags at each pull of a range of versions. The
        known tags are also used while the upstream's rate limit allows next to nothing, unless access to the
        repository is to be confirmed. Tags that are kept although they are gone upstream follow its last
        page. Raises UpstreamError or StoreError.
        """
        if (page := await self._kept.page(repository, query)) is not None:
            return page
        return await self._kept.complete(repository, query, await self._tags_page(repository, query))

    async def _tags_page(self, repository: Repository, query: str) -> TagsAnswer:
        """Return a page without the tags that are gone upstream, unless the upstream cannot be asked."""
        page = self._pages.get((repository, query))
        if page is not None and self._tags.validity.is_fresh(repository, page.confirmed):
            return replace(page.answer, outcome=Outcome.HIT)
        known = await self._metadata.known_tags(repository, "", 1)
        if (
            known
            and self._tags.validity.saves_budget(repository, 0.0)
            and await self._is_accessible(repository, known)
        ):
            return await self._known_tags(repository, query, saving_rate_limit(repository.upstream))
        listing = self._listing.do(
            (repository, query), partial(self._list_tags, repository, query), repository.upstream
        )
        if not known:
            return await listing
        try:
            return await self._tags.expired.wait_until_fallback(repository, listing)
        except UpstreamError as error:
            # The list of known tags has no age: with an account, no refusal is overlooked.
            if self._tags.validity.is_ended_by(error, repository, confirmed=0.0):
                raise
            return await self._known_tags(repository, query, str(error))

    async def referrers(
        self, repository: Repository, digest: Digest, artifact_types: Collection[str]
    ) -> ReferrersAnswer:
        """Return the referrers of a digest as an OCI index: all, or those of one of `artifact_types`.

        An upstream without referrers of it has an empty list, with and without the API. Raises UpstreamError.
        """
        found = await self._referrers(repository, digest)
        found = replace(found, manifests=self._shared_text(digest, found.manifests))
        data = await self._index(digest, found.manifests, frozenset(artifact_types))
        return ReferrersAnswer(data, bool(artifact_types), found.outcome, found.staleness)

    def _shared_text(self, digest: Digest, manifests: str) -> str:
        """Return a list, as the same object for all callers that wait with it."""
        known = self._texts.get(digest)
        if known is not None and known == manifests:
            return known
        self._texts.put(digest, manifests, len(manifests))
        return manifests

    async def _index(self, digest: Digest, manifests: str, artifact_types: frozenset[str]) -> bytes:
        """Return a list, or what is of the types in it, as an OCI index: the same object for all callers."""
        by_type = await self._by_type(digest, manifests) if artifact_types else {}
        # Callers that waited for one list resume in the same turn of the loop.
        await self._making.turn(len(manifests))
        made = self._made.get((digest, artifact_types))
        if made is not None and made.manifests == manifests:
            return made.data
        chosen = manifests
        if artifact_types:
            fitting = sorted(found for each in artifact_types for found in by_type.get(each, ()))
            chosen = array_of(text for _, text in fitting)
        made = _Made(manifests, index_of(chosen))
        size = len(manifests) + len(made.data) + sum(map(len, artifact_types))
        self._made.put((digest, artifact_types), made, size)
        return made.data

    async def _by_type(self, digest: Digest, manifests: str) -> dict[str, list[tuple[int, str]]]:
        """Return the descriptors of a list by their artifactType. A list is read once for many requests."""
        known = self._lists.get(digest)
        if known is None or known.manifests != manifests:
            known = await self._reading.do((digest, hash(manifests)), partial(self._read, digest, manifests))
        return known.by_type

    async def _read(self, digest: Digest, manifests: str) -> _ReadList:
        by_type = await off_loop(len(manifests), texts_by_type, manifests)
        found = _ReadList(manifests, by_type)
        self._lists.put(digest, found, LIST_FACTOR * len(manifests))
        return found

    async def catalog(self, upstream: str | None, after: str, limit: int) -> CatalogAnswer:
        """Return repositories that have cached content: of one upstream, or of all with its name in front."""
        prefix = f"{upstream}/" if upstream is not None else ""
        names = await self._metadata.repositories(prefix, f"{prefix}{after}", limit + 1)
        return CatalogAnswer([name.removeprefix(prefix) for name in names[:limit]], len(names) > limit)

    async def _is_accessible(self, repository: Repository, known: Sequence[str]) -> bool:
        """Return whether the upstream confirmed a known tag so lately that access need not be confirmed."""
        entry = await self._tags.entry(repository, Tag(known[0]))
        return entry is not None and self._tags.validity.access_ttl(repository, entry.confirmed) > 0

    async def _list_tags(self, repository: Repository, query: str) -> TagsAnswer:
        requested = self._context.clock()
        page = await self._upstreams[repository.upstream].tags(repository.path, query)
        answer = TagsAnswer(page.data, page.next_query)
        length = len(page.data) + len(query) + len(page.next_query or "")
        self._pages.put((repository, query), _Page(answer, requested), length)
        return answer

    async def _known_tags(self, repository: Repository, query: str, reason: str) -> TagsAnswer:
        """Return a page of the tags that were requested before: these can be served now."""
        parameters = dict(parse_qsl(query))
        limit = int(parameters["n"]) if parameters.get("n", "").isdigit() else MOST_TAGS
        limit = min(limit, MOST_TAGS)
        names = await self._metadata.known_tags(repository, parameters.get("last", ""), limit + 1)
        page, more = names[:limit], len(names) > limit > 0
        data = json.dumps({"name": repository.path, "tags": page}, separators=(",", ":")).encode()
        next_query = urlencode({"n": limit, "last": page[-1]}) if more else None
        return TagsAnswer(data, next_query, Outcome.STALE, Staleness(None, reason))

    async def _referrers(self, repository: Repository, digest: Digest) -> _Referrers:
        entry = await self._latest(repository, digest)
        if entry is None:
            return await self._ask_once(repository, digest)
        if self._tags.validity.is_fresh(repository, entry.confirmed):
            return _Referrers(entry.manifests, Outcome.HIT)
        if (reason := self._reason_not_to_ask(repository, entry)) is not None:
            if reason == REVALIDATING:
                self._start_refresh(repository, digest)
            return self._stale(entry, reason)
        try:
            answer = self._ask_once(repository, digest)
            return await self._tags.expired.wait_until_fallback(repository, answer)
        except UpstreamError as error:
            if self._tags.validity.is_ended_by(error, repository, entry.confirmed):
                raise
            return self._stale(entry, str(error))

    async def _latest(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        """Return the list, or that of another mirror where this one is not fresh and that one is newer."""
        entry, words = await self._metadata.referrers(repository, digest), self._context.shared_words
        if words is None or (entry is not None and self._tags.validity.is_fresh(repository, entry.confirmed)):
            return entry
        found = await words.find_referrers(repository, digest)
        if found is None or (entry is not None and found.confirmed <= entry.confirmed):
            return entry
        await self._metadata.put_referrers(repository, digest, found)
        return found

    def _reason_not_to_ask(self, repository: Repository, entry: ReferrersEntry) -> str | None:
        """Return why a list that is not fresh is served at once, if it is."""
        if self._tags.validity.access_ttl(repository, entry.confirmed) <= 0:
            return None
        age = self._context.clock() - entry.confirmed
        if self._tags.validity.saves_budget(repository, age):
            return saving_rate_limit(repository.upstream)
        return REVALIDATING if self._tags.validity.serves_while_revalidating(repository, age) else None

    def _stale(self, entry: ReferrersEntry, reason: str) -> _Referrers:
        age = None if entry.confirmed == NEVER else self._context.clock() - entry.confirmed
        return _Referrers(entry.manifests, Outcome.STALE, Staleness(age, reason))

    def _start_refresh(self, repository: Repository, digest: Digest) -> None:
        """Ask in the background, if there is room for one more request that no client waits for."""
        upstream = self._upstreams[repository.upstream]
        if (
            not self._referring.running((repository, digest))
            and self._refreshes < MOST_REFRESHES
            and upstream.health.allows_request
        ):
            self._refreshes += 1
            self._context.tasks.spawn(self._refresh(repository, digest), name=f"referrers {repository}")

    async def _refresh(self, repository: Repository, digest: Digest) -> None:
        try:
            with suppress(UpstreamError, StoreError):
                await self._ask_once(repository, digest)
        finally:
            self._refreshes -= 1

    async def _ask_once(self, repository: Repository, digest: Digest) -> _Referrers:
        return await self._referring.do(
            (repository, digest), partial(self._ask, repository, digest), repository.upstream
        )

    async def _ask(self, repository: Repository, digest: Digest) -> _Referrers:
        found = None
        if not self._without_api.get(repository):
            found = await self._by_api(repository, digest)
        if found is None:
            found = await self._by_tag(repository, digest)
        if found.manifests == NO_REFERRERS:
            await self._keep_referrers(repository, digest)
        # A list of a stale tag is as old as the tag; one that no upstream has confirmed is never fresh.
        age = 0.0 if found.staleness is None else found.staleness.age
        confirmed = NEVER if age is None else self._context.clock() - age
        entry = ReferrersEntry(found.manifests, confirmed)
        await self._metadata.put_referrers(repository, digest, entry)
        if (words := self._context.shared_words) is not None:
            words.add_referrers(repository, digest, entry)
        return found

    async def _keep_referrers(self, repository: Repository, digest: Digest) -> None:
        """Raise GoneUpstream if an upstream has no referrers any more, and tags of the repository are kept.

        Signatures go with their images: an image that is kept keeps them.
        """
        if (gone := await self._kept.latest_mark(repository)) is not None:
            known = await self._metadata.referrers(repository, digest)
            if known is not None and known.manifests != NO_REFERRERS:
                message = f"{repository} has no referrers of {digest} any more; the known ones are kept"
                raise GoneUpstream(UpstreamError(Failure.NOT_FOUND, message), gone)

    async def _by_api(self, repository: Repository, digest: Digest) -> _Referrers | None:
        """Return referrers by the API; None if the upstream lacks the API, or does not give it to clients."""
        try:
            found = await self._upstreams[repository.upstream].referrers(repository.path, digest)
            return _Referrers(found, Outcome.MISS)
        except UpstreamError as error:
            if error.failure not in FINAL and error.status != NOT_IMPLEMENTED:
                raise
            # 400 is about the digest: quay.io has the API. A refusal may soon be over.
            if error.failure is not Failure.DENIED and error.status != BAD_REQUEST:
                self._without_api.put(repository, True)
            return None

    async def _by_tag(self, repository: Repository, digest: Digest) -> _Referrers:
        """Return referrers by the tag schema, for upstreams without the API; none without such a tag.

        None is an answer: where one digest is found and another is not, oras fails.
        """
        try:
            found = await self._tags.get(repository, referrers_tag(digest))
            manifests = array_of(await off_loop(len(found.data), texts_of_index, found.data))
            outcome = Outcome.MISS if found.staleness is None else Outcome.STALE
            return _Referrers(manifests, outcome, found.staleness)
        except ManifestInvalid:
            return _Referrers(NO_REFERRERS, Outcome.MISS)  # an image that happens to have that tag
        except UpstreamError as error:
            if error.failure is not Failure.NOT_FOUND:
                raise
            return _Referrers(NO_REFERRERS, Outcome.MISS)
