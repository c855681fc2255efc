"""Manifests by digest: immutable, whole in memory, verified before the first byte is sent."""

from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from mirror.cache.access import AccessChecker
from mirror.cache.manifest_reader import ManifestReader
from mirror.cache.negative_cache import NegativeCache
from mirror.cache.results import ManifestAnswer, ManifestInfo, Outcome
from mirror.oci.digest import Digest
from mirror.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Manifest,
)
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import Origin
from mirror.store.links.content import StoredManifest
from mirror.store.lock import blob_key
from mirror.store.metadata.index import Link
from mirror.transfer.context import OtherMirrors, TransferContext
from mirror.transfer.exclusive import exclusive
from mirror.upstream.errors import UpstreamError, too_many_requests
from mirror.upstream.guests.current import asker
from mirror.upstream.registry_client import ManifestBody, RemoteManifest
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.single_flight import SingleFlight
from mirror.util.tracebacks import without_frames

# Media types.
Types = tuple[str, ...]

MANIFEST_TYPES = frozenset({DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST})


class FetchedManifest(Struct, frozen=True):
    """The result of a fetch for one repository."""

    result: StoredManifest | UpstreamError
    repository: Repository


class ManifestCache:
    """One fetch per digest, whichever repositories request it at the same time (invariant 2)."""

    def __init__(
        self, context: TransferContext, upstreams: UpstreamSet, access: AccessChecker, missing: float = 0.0
    ) -> None:
        """`missing`: seconds for which a manifest that was not found is not asked for again."""
        self._context = context
        self._access = access
        self._content = context.store.content
        self._metadata = context.store.metadata
        self._leases = context.store.transfers.leases
        self._upstreams = upstreams
        self.reader = ManifestReader()
        self._fetching: SingleFlight[tuple[Digest, Types], FetchedManifest] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._heading: SingleFlight[tuple[Repository, Digest, Types], RemoteManifest] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._missing: NegativeCache[tuple[Repository, Digest]] = NegativeCache(missing)
        self._bringing: SingleFlight[tuple[Repository, Digest], StoredManifest | None] = SingleFlight(
            context.tasks, refusal=too_many_requests
        )

    async def get(self, repository: Repository, digest: Digest, also: Types = ()) -> ManifestAnswer:
        """Return the manifest. Raises UpstreamError or StoreError.

        `also`: media types to ask the upstream for, besides those that it is always asked for.
        """
        stored = await self._content.manifest(repository, digest)
        if stored is not None and stored.link is not None:
            ttl = self._access.ttl(repository, stored.link)
            if ttl <= 0 and (staleness := await self._access.check(repository, digest, stored.link)):
                return replace(manifest_answer(stored, Outcome.STALE), staleness=staleness)
            return manifest_answer(stored, Outcome.HIT, ttl)
        if (brought := await self.bring(repository, digest)) is not None:
            return manifest_answer(brought, Outcome.MISS)
        outcome = Outcome.JOIN if self._fetching.running((digest, also)) else Outcome.MISS
        with self._missing.remembering((repository, digest), also):
            async with self._access.withdrawing(repository, digest):
                return manifest_answer(await self._fetch(repository, digest, also), outcome)

    async def head(self, repository: Repository, digest: Digest, also: Types = ()) -> ManifestInfo:
        """Return type and size, those of what a GET is answered with.

        Asks the upstream with a GET; with a HEAD where it counts GETs, if the HEAD gives a size. What a
        manifest says of another one is repeated only if that is here, and has been verified.
        """
        local = await self._content.look_up(repository, digest)
        link = None if local.unconfirmed else local.link
        if link is not None and link.confirmed is None and not local.present:
            link = None
        if link is not None and link.media_type is not None and link.size is not None:
            staleness = await self._access.check(repository, digest, link)
            if staleness is not None:
                return ManifestInfo(digest, link.media_type, link.size, Outcome.STALE, 0.0, staleness)
            outcome = Outcome.HIT if local.present else Outcome.MISS
            ttl = self._access.ttl(repository, link) if local.present else 0.0
            return ManifestInfo(digest, link.media_type, link.size, outcome, ttl)
        if (brought := await self.bring(repository, digest)) is not None:
            return info_of(manifest_answer(brought, Outcome.MISS))
        upstream, began = self._upstreams[repository.upstream], self._context.clock()
        info = None
        if upstream.accounts.counts_pulls:
            with self._missing.remembering((repository, digest), also):
                async with self._access.withdrawing(repository, digest):
                    ask = partial(upstream.head_manifest, repository.path, digest, also)
                    info = await self._heading.do((repository, digest, also), ask, repository.upstream)
        if info is None or info.size is None:
            found = await self.get(repository, digest, also)
            return info_of(found)
        link = self._context.confirmed(upstream, repository, Link(info.media_type, info.size), began)
        await self._metadata.links.add(repository, digest, link)
        return ManifestInfo(digest, info.media_type, info.size, Outcome.MISS)

    async def stored(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """Return the manifest if it is in the store; never ask the upstream."""
        return await self._content.manifest(repository, digest)

    async def bring(
        self, repository: Repository, digest: Digest, link: Link | None = None
    ) -> StoredManifest | None:
        """Return a manifest that other mirrors have, stored here from now on; None for none.

        `link`: a confirmation that the caller knows.
        """
        words = self._context.shared_words
        if words is None or asker():
            return None
        bring = partial(self._bring, words, repository, digest, link)
        return await self._bringing.do((repository, digest), bring, repository.upstream)

    async def _bring(
        self, words: OtherMirrors, repository: Repository, digest: Digest, link: Link | None
    ) -> StoredManifest | None:
        known = link or (await self._content.look_up(repository, digest)).link
        found = await words.read(repository, digest, known, MAX_MANIFEST_BYTES)
        if found is None or found[0].media_type is None:
            return None
        confirmed, data = found
        body = ManifestBody(data, confirmed.media_type or "", digest)
        return await self._keep(repository, body, confirmed.confirmed or 0.0)

    async def put(
        self, repository: Repository, body: ManifestBody, since: float, *, sent: bool = True
    ) -> StoredManifest:
        """Store a manifest that the upstream has confirmed, with links for all digests that it names.

        `since`: when the upstream was asked; `sent`: whether its bytes came from there.
        """
        manifest = await self._keep(repository, body, since, sent=sent)
        if (words := self._context.shared_words) is not None and manifest.link is not None:
            words.add_link(repository, manifest.digest, manifest.link)
            if sent:
                words.publish(manifest.digest)
        return manifest

    async def _keep(
        self, repository: Repository, body: ManifestBody, since: float, *, sent: bool = True
    ) -> StoredManifest:
        upstream = self._upstreams[repository.upstream]
        link = Link(body.media_type, len(body.data))
        link, origin = self._context.confirmed(upstream, repository, link, since), Origin.PRIVATE
        if sent and not link.account:
            origin = Origin.PUBLIC
        manifest = StoredManifest(body.data, body.digest, body.media_type, link, origin)
        links = links_of(await self.reader.read(body.digest, body.data, body.media_type))
        await self._content.put_manifest(repository, manifest, links)
        return manifest

    async def _fetch(self, repository: Repository, digest: Digest, also: Types) -> StoredManifest:
        # An error for another repository says nothing about ours: repeat until the fetch was for ours.
        while True:
            self._upstreams[repository.upstream].health.raise_if_unresponsive(digest)
            fetch = partial(self._fetch_or_error, repository, digest, also)
            fetched = await self._fetching.do((digest, also), fetch, repository.upstream)
            result, ours = fetched.result, fetched.repository == repository
            if isinstance(result, StoredManifest):
                return result if ours else await self._confirm(repository, digest, result.data, also)
            if ours:
                raise result.with_traceback(None)

    async def _fetch_or_error(self, repository: Repository, digest: Digest, also: Types) -> FetchedManifest:
        try:
            return FetchedManifest(await self._fill(repository, digest, also), repository)
        except UpstreamError as error:
            return FetchedManifest(without_frames(error), repository)

    async def _fill(self, repository: Repository, digest: Digest, also: Types) -> StoredManifest:
        async with exclusive(self._leases, blob_key(digest)):
            data = await self._content.read_blob(digest, MAX_MANIFEST_BYTES)
            began = self._context.clock()
            if data is None:
                body = await self._upstreams[repository.upstream].get_manifest(repository.path, digest, also)
                return await self.put(repository, body, began)
        return await self._confirm(repository, digest, data, also)

    async def _confirm(
        self, repository: Repository, digest: Digest, data: bytes, also: Types
    ) -> StoredManifest:
        """Ask with a HEAD whether this repository has stored bytes too, and under which media type."""
        began = self._context.clock()
        info = await self._upstreams[repository.upstream].head_manifest(repository.path, digest, also)
        if info.body is not None:
            return await self.put(repository, info.body, began)
        body = ManifestBody(data, info.media_type, digest)
        return await self.put(repository, body, began, sent=False)


def manifest_answer(manifest: StoredManifest, outcome: Outcome, ttl: float = 0.0) -> ManifestAnswer:
    """Return the answer to a GET that has this manifest."""
    return ManifestAnswer(manifest.data, manifest.digest, manifest.media_type, outcome, ttl)


def info_of(answer: ManifestAnswer) -> ManifestInfo:
    """Return the answer to a HEAD that took a GET's; the next HEAD may take another way."""
    size, staleness = len(answer.data), answer.staleness
    return ManifestInfo(answer.digest, answer.media_type, size, answer.outcome, staleness=staleness)


def links_of(manifest: Manifest | None) -> dict[Digest, Link]:
    """Return the links that a repository has because of its manifest; none if that could not be read.

    Children with `urls` are left out: a foreign layer need not be in the registry at all.
    """
    return {
        child.digest: Link(child.media_type if child.media_type in MANIFEST_TYPES else None, child.size)
        for child in (() if manifest is None else manifest.children())
        if not child.urls
    }
