"""The mirrored upstreams as one origin: content from the cache, or by way of its upstream."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from mirror.cache.blobs import BlobCache
from mirror.cache.completeness import Completeness
from mirror.cache.listings import ListingCache
from mirror.cache.manifests import ManifestCache, Types
from mirror.cache.prefetch import Prefetch
from mirror.cache.readers import BlobAnswer, BlobRequest
from mirror.cache.referring.absent import AbsentSignatures
from mirror.cache.referring.clients import Requester
from mirror.cache.referring.prefetch import ReferrersPrefetch
from mirror.cache.results import BlobInfo, ManifestAnswer, ManifestInfo, ReferrersAnswer, TagsAnswer
from mirror.cache.single_platform import SinglePlatform
from mirror.cache.tags import TagCache
from mirror.oci.accept import ANYTHING, Accepted
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.upstream.errors import UpstreamError
from mirror.upstream.guests.current import current_guest
from mirror.util.time_limit import TimeLimit

T = TypeVar("T", ManifestAnswer, ManifestInfo)

# Statuses with which upstreams refuse a manifest whose type was not asked for.
NOT_ACCEPTABLE = frozenset({400, 404, 406, 415})


class MirroredParts(Struct, frozen=True):
    """The caches, and what goes with an answer, that a MirroredOrigin is made of."""

    blobs: BlobCache
    manifests: ManifestCache
    tags: TagCache
    listings: ListingCache
    single: SinglePlatform
    completeness: Completeness
    prefetch: Prefetch
    referring: ReferrersPrefetch
    absent: AbsentSignatures


class MirroredOrigin:
    """All content of all upstreams. Raises UpstreamError or StoreError."""

    def __init__(self, parts: MirroredParts) -> None:
        self._blobs = parts.blobs
        self._manifests = parts.manifests
        self._tags = parts.tags
        self._listings = parts.listings
        self._single = parts.single
        self._completeness = parts.completeness
        self._prefetch = parts.prefetch
        self._referring = parts.referring
        self._absent = parts.absent

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

    async def get_blob(
        self,
        repository: Repository,
        digest: Digest,
        limit: TimeLimit | None = None,
        request: BlobRequest | None = None,
    ) -> BlobAnswer:
        return await self._blobs.get(repository, digest, limit, request)

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
        after: str = "",
    ) -> ReferrersAnswer:
        """Return the list of referrers, whole; `client` as in `get_manifest`."""
        if client is not None:
            self._referring.clients.note(client)
        return await self._listings.referrers(repository, digest, artifact_types)
