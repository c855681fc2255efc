"""Manifests by digest: immutable, whole in memory, verified before the first byte is sent."""

from functools import partial

from msgspec import Struct

from mirror.cache.manifest_reader import ManifestReader
from mirror.cache.negative_cache import NegativeCache
from mirror.cache.results import FOREVER, ManifestAnswer, ManifestInfo, Outcome
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
from mirror.store.cache_dir import StoredManifest
from mirror.store.lock import blob_key
from mirror.store.metadata.index import Link
from mirror.transfer.context import TransferContext
from mirror.transfer.exclusive import exclusive
from mirror.upstream.errors import Failure, UpstreamError, too_many_requests
from mirror.upstream.registry_client import ManifestBody
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

    def __init__(self, context: TransferContext, upstreams: UpstreamSet, missing: float = 0.0) -> None:
        """`missing`: seconds for which a manifest that was not found is not asked for again."""
        self._store = context.store
        self._upstreams = upstreams
        self.reader = ManifestReader()
        self._fetching: SingleFlight[tuple[Digest, Types], FetchedManifest] = SingleFlight(
            context.tasks, refusal=too_many_requests
        )
        self._missing: NegativeCache[tuple[Repository, Digest, Types]] = NegativeCache(missing)

    async def get(self, repository: Repository, digest: Digest, also: Types = ()) -> ManifestAnswer:
        """Return the manifest. Raises UpstreamError or StoreError.

        `also`: media types to ask the upstream for, besides those that it is always asked for.
        """
        stored = await self._store.manifest(repository, digest)
        if stored is not None:
            return manifest_answer(stored, Outcome.HIT, FOREVER)
        outcome = Outcome.JOIN if self._fetching.running((digest, also)) else Outcome.MISS
        with self._missing.remembering((repository, digest, also)):
            return manifest_answer(await self._fetch(repository, digest, also), outcome)

    async def head(self, repository: Repository, digest: Digest, also: Types = ()) -> ManifestInfo:
        """Return type and size; asks the upstream with a HEAD, or with a GET if the HEAD gives no size."""
        local = await self._store.look_up(repository, digest)
        link = local.link
        if link is not None and link.media_type is not None and link.size is not None:
            outcome, ttl = (Outcome.HIT, FOREVER) if local.present else (Outcome.MISS, 0.0)
            return ManifestInfo(digest, link.media_type, link.size, outcome, ttl)
        with self._missing.remembering((repository, digest, also)):
            info = await self._upstreams[repository.upstream].head_manifest(repository.path, digest, also)
        if info.size is None:
            found = await self.get(repository, digest, also)
            return ManifestInfo(digest, found.media_type, len(found.data), found.outcome)
        await self._store.add_link(repository, digest, Link(info.media_type, info.size))
        return ManifestInfo(digest, info.media_type, info.size, Outcome.MISS)

    async def stored(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """Return the manifest if it is in the store; never ask the upstream."""
        return await self._store.manifest(repository, digest)

    async def put(self, repository: Repository, body: ManifestBody) -> StoredManifest:
        """Store a manifest that the upstream sent, with links for all digests that it names."""
        manifest = StoredManifest(body.data, body.digest, body.media_type)
        links = links_of(await self.reader.read(body.digest, body.data, body.media_type))
        await self._store.put_manifest(repository, manifest, links)
        return manifest

    async def _fetch(self, repository: Repository, digest: Digest, also: Types) -> StoredManifest:
        # An error for another repository says nothing about ours: repeat until the fetch was for ours.
        while True:
            self._upstreams[repository.upstream].raise_if_unresponsive(digest)
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
        async with exclusive(self._store, blob_key(digest)):
            data = await self._store.read_blob(digest, MAX_MANIFEST_BYTES)
            if data is None:
                body = await self._upstreams[repository.upstream].get_manifest(repository.path, digest, also)
                return await self.put(repository, body)
        return await self._confirm(repository, digest, data, also)

    async def _confirm(
        self, repository: Repository, digest: Digest, data: bytes, also: Types
    ) -> StoredManifest:
        """Ask with a HEAD whether this repository has stored bytes too, and under which media type."""
        info = await self._upstreams[repository.upstream].head_manifest(repository.path, digest, also)
        if info.digest not in (None, digest):
            raise UpstreamError(Failure.INVALID, f"{repository} answered {info.digest} for {digest}")
        return await self.put(repository, ManifestBody(data, info.media_type, digest))


def manifest_answer(manifest: StoredManifest, outcome: Outcome, ttl: float = 0.0) -> ManifestAnswer:
    """Return the answer to a GET that has this manifest."""
    return ManifestAnswer(manifest.data, manifest.digest, manifest.media_type, outcome, ttl)


def links_of(manifest: Manifest | None) -> dict[Digest, Link]:
    """Return the links that a repository has because of its manifest; none if that could not be read.

    Children with `urls` are left out: a foreign layer need not be in the registry at all.
    """
    return {
        child.digest: Link(child.media_type if child.media_type in MANIFEST_TYPES else None, child.size)
        for child in (() if manifest is None else manifest.children())
        if not child.urls
    }
