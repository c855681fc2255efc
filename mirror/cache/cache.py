"""The cache: one object that answers for every kind of content, from disk or by way of an upstream."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TypeVar

from msgspec.structs import replace

from mirror.cache.access import AccessChecker
from mirror.cache.blobs import BlobCache
from mirror.cache.completeness import Completeness
from mirror.cache.freshness import Freshness
from mirror.cache.listings import ListingCache
from mirror.cache.manifests import ManifestCache, Types
from mirror.cache.prefetch import Prefetch
from mirror.cache.private.private_content import PrivateContent
from mirror.cache.pull.budget import Pause, PullBudget
from mirror.cache.pull.created import CreationDates
from mirror.cache.pull.puller import ImagePull, Puller
from mirror.cache.pull.source import PullSource
from mirror.cache.pull.walk import Caches, Wanted
from mirror.cache.readers import BlobAnswer, BlobRequest
from mirror.cache.referring.absent import AbsentSignatures
from mirror.cache.referring.clients import Requester
from mirror.cache.referring.prefetch import ReferrersPrefetch
from mirror.cache.results import (
    Birth,
    BlobInfo,
    CatalogAnswer,
    ManifestAnswer,
    ManifestInfo,
    ReferrersAnswer,
    TagsAnswer,
)
from mirror.cache.single_platform import SinglePlatform
from mirror.cache.tag.gone import GoneKeeper
from mirror.cache.tags import TagCache
from mirror.config.schema import TagSettings
from mirror.oci.accept import ANYTHING, Accepted
from mirror.oci.digest import Digest
from mirror.oci.manifest import Manifest
from mirror.oci.reference import Repository, Tag
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import UpstreamError
from mirror.upstream.guests.current import current_guest
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.callbacks import ignore
from mirror.util.time_limit import TimeLimit

T = TypeVar("T", ManifestAnswer, ManifestInfo)

# Statuses with which upstreams refuse a manifest whose type was not asked for.
NOT_ACCEPTABLE = frozenset({400, 404, 406, 415})

# All platforms of an image, without its referrers.
EVERYTHING = Wanted()


class Cache:
    """All content of all upstreams.

    Methods that fetch raise UpstreamError or StoreError; `web.client_errors` turns these into responses.
    """

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, tags: TagSettings) -> None:
        self._store = context.store
        self.clock = context.clock
        self._upstreams = upstreams
        self._fallback_after = tags.fallback_after
        gone = GoneKeeper(context, tags)
        access = AccessChecker(
            context, upstreams, gone, fallback_after=tags.fallback_after, missing=tags.missing
        )
        self.private = PrivateContent(
            context, upstreams, fallback_after=tags.fallback_after, missing=tags.missing
        )
        self._blobs = BlobCache(context, upstreams, access)
        self._manifests = ManifestCache(context, upstreams, access, tags.missing)
        self._tags = TagCache(context, upstreams, self._manifests, tags, gone)
        self._created = CreationDates(self._manifests, self._blobs)
        self._single = SinglePlatform(self._manifests, tags.single_platform)
        self._listings = ListingCache(context, upstreams, self._tags, gone)
        self._prefetch = Prefetch(context, upstreams, self._blobs, self._manifests.reader)
        caches = Caches(context.store, self._tags, self._manifests, self._listings, context.clock)
        self._puller = Puller(context, caches, self._blobs, access)
        self._referring = ReferrersPrefetch(context, self._listings, self._manifests, self._prefetch)
        self._absent = AbsentSignatures(context.store, Freshness(tags), context.clock)
        self._completeness = Completeness(
            context.store, upstreams, self._manifests, enforced=not tags.serve_incomplete
        )

    async def get_manifest(
        self,
        repository: Repository,
        reference: Tag | Digest,
        accepted: Accepted = ANYTHING,
        client: Requester | None = None,
    ) -> ManifestAnswer:
        """Return the manifest; what it names is prefetched, at once or with its first layer.

        `accepted`: the types that the client takes. `client`: None where the mirror itself reads.
        """
        answer = await self._as_accepted(self._get, repository, reference, accepted)
        if isinstance(reference, Tag) and accepted.takes_single_only(answer.media_type):
            answer = await self._single.get(repository, answer)
        await self._completeness.ensure(repository, answer.digest, answer.staleness)
        if current_guest() is None:  # what is prefetched is asked for without a guest's credentials
            self._prefetch.enqueue(repository, answer)
            if client is not None:
                self._referring.enqueue(repository, answer, client)
        return answer

    async def head_manifest(
        self, repository: Repository, reference: Tag | Digest, accepted: Accepted = ANYTHING
    ) -> ManifestInfo:
        """Return digest, type and size of what `get_manifest` returns."""
        info = await self._as_accepted(self._head, repository, reference, accepted)
        if isinstance(reference, Tag) and accepted.takes_single_only(info.media_type):
            info = await self._single.head(repository, info)
        await self._completeness.ensure(repository, info.digest, info.staleness)
        return info

    async def _get(self, repository: Repository, reference: Tag | Digest, also: Types) -> ManifestAnswer:
        if isinstance(reference, Tag):
            return await self._tags.get(repository, replace(reference, also=also))
        return await self._manifests.get(repository, reference, also)

    async def _head(self, repository: Repository, reference: Tag | Digest, also: Types) -> ManifestInfo:
        if isinstance(reference, Tag):
            return await self._tags.head(repository, replace(reference, also=also))
        return await self._manifests.head(repository, reference, also)

    async def _as_accepted(
        self,
        ask: Callable[[Repository, Tag | Digest, Types], Awaitable[T]],
        repository: Repository,
        reference: Tag | Digest,
        accepted: Accepted,
    ) -> T:
        """Ask as for every client; if that finds nothing, ask with the further types that this client takes.

        What a tag is with further types is kept apart, and is no answer to a client that does not take them.
        """
        others = accepted.others()
        if others and isinstance(reference, Tag):
            known = await self._tags.entry(repository, replace(reference, also=others))
            if known is not None:
                return await ask(repository, reference, others)
        try:
            answer = await ask(repository, reference, ())
            if others and answer.staleness is not None and answer.staleness.gone:
                # Perhaps the upstream has something else there now, of a type that it was not asked for.
                with suppress(UpstreamError):
                    return await ask(repository, reference, others)
            return answer
        except UpstreamError as error:
            if not others or error.status not in NOT_ACCEPTABLE:
                raise await self._judged(repository, reference, error) from None
        try:
            return await ask(repository, reference, others)
        except UpstreamError as error:
            raise await self._judged(repository, reference, error) from None

    async def _judged(
        self, repository: Repository, reference: Tag | Digest, error: UpstreamError
    ) -> UpstreamError:
        """Return the error, or another one where a tag is known not to exist."""
        return (
            error if isinstance(reference, Digest) else await self._absent.judge(repository, reference, error)
        )

    async def birth(self, repository: Repository, digest: Digest, *, by_author: bool = False) -> Birth:
        """Return since when an image exists: when a manifest was first known here.

        `by_author`: or when its author says that it was created, if that was before.
        """
        now = self.clock()
        seen = await self._store.links.first_seen(repository, digest, now)
        created = await self._created.of(repository, digest) if by_author else None
        if created is not None and created < seen:
            return Birth(created, now, by_author=True)
        return Birth(seen, now)

    async def read_manifest(self, answer: ManifestAnswer) -> Manifest | None:
        """Return what a manifest names; None for one that cannot be read."""
        return await self._manifests.reader.read(answer.digest, answer.data, answer.media_type)

    async def count_missing(self, repository: Repository, digest: Digest) -> int:
        """Return how many blobs of an image are not here, as of a moment ago."""
        return await self._completeness.missing(repository, digest)

    async def get_blob(
        self,
        repository: Repository,
        digest: Digest,
        limit: TimeLimit | None = None,
        request: BlobRequest | None = None,
    ) -> BlobAnswer:
        return await self._blobs.get(repository, digest, limit, request)

    def note_layer(self, repository: Repository, digest: Digest) -> None:
        """Record that a client reads a blob from its beginning: the other layers of its image follow."""
        self._prefetch.note_layer(repository, digest)

    async def head_blob(self, repository: Repository, digest: Digest) -> BlobInfo:
        return await self._blobs.head(repository, digest)

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        return await self._listings.tags(repository, query)

    async def referrers(
        self,
        repository: Repository,
        digest: Digest,
        artifact_types: Collection[str],
        client: Requester | None = None,
    ) -> ReferrersAnswer:
        """Return the list of referrers; `client` as in `get_manifest`."""
        if client is not None:
            self._referring.clients.note(client)
        return await self._listings.referrers(repository, digest, artifact_types)

    async def catalog(self, upstream: str | None, after: str, limit: int) -> CatalogAnswer:
        return await self._listings.catalog(upstream, after, limit)

    def pull(self, repository: Repository, reference: Tag | Digest, wanted: Wanted = EVERYTHING) -> ImagePull:
        """Return a pull of a whole image, with priority below clients; it begins when it is iterated over."""
        return self._puller.pull(repository, reference, wanted)

    def pull_source(self, wanted: Wanted) -> PullSource:
        """Return a source of several such pulls."""
        return PullSource(self._puller, self._listings, self._store, wanted)

    def pull_budget(self, leave: int, on_pause: Callable[[Pause], object] = ignore) -> PullBudget:
        """Return a budget for pulls, which leaves `leave` pulls of each upstream that counts them."""
        return PullBudget(self._upstreams, leave, on_pause)

    def time_limit(self, repository: Repository, seconds: float) -> float:
        """Return the seconds to wait for an answer: `seconds`, or less if the upstream is unresponsive.

        The request to the upstream goes on after the limit, so a later client may find it answered.
        """
        unresponsive = self._upstreams[repository.upstream].unresponsive
        return min(seconds, self._fallback_after) if unresponsive else seconds

    def report_timeout(self, repository: Repository, seconds: float) -> bool:
        """Record that a client has waited for `seconds`; return whether it waited for the upstream."""
        return self._upstreams[repository.upstream].report_timeout(seconds)

    def pause_prefetch(self) -> None:
        """Prefetch nothing for a while: recently used blobs had to be evicted."""
        self._prefetch.pause()

    def stop_prefetch(self) -> None:
        """Prefetch nothing any more, and end the prefetches that no client has joined."""
        self._prefetch.stop()
