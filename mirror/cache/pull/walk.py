"""Walk over an image: its manifests are fetched, and its blobs are named.

The tag is resolved, an index is followed to the wanted platforms, and each manifest to its referrers, if they
are wanted: those of the referrers API, and the tags `sha256-<hex>`, with cosign's `.sig`, `.att` and `.sbom`.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

from msgspec import Struct, field

from mirror.cache.listings import ListingCache
from mirror.cache.manifests import ManifestCache
from mirror.cache.pull.budget import PullBudget
from mirror.cache.pull.contents import blob_descriptors, choose, platforms_in
from mirror.cache.results import ManifestAnswer, Outcome
from mirror.cache.tags import TagCache
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import Manifest, ManifestInvalid, descriptors_of, referrers_tag
from mirror.oci.reference import Repository, Tag
from mirror.oci.referrers import texts_of_index
from mirror.store.errors import StoreError
from mirror.store.parts.interfaces import StoreParts
from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.tasks import off_loop

T = TypeVar("T")

# Endings of the tags by which referrers are found without the API: OCI distribution-spec, "Referrers Tag
# Schema", and cosign's.
REFERRING_TAGS = ("", ".sig", ".att", ".sbom")

# Referrers that are followed: those of the image, and those of these, for instance a signature of an SBOM.
REFERRER_DEPTH = 2


class Wanted(Struct, frozen=True):
    """Parts of an image that are pulled: its `platforms`, all if there are none, and its referrers.

    `budget`: the pulls that may be used; None where that does not matter.
    """

    platforms: tuple[str, ...] = ()
    referrers: bool = False
    budget: PullBudget | None = None


class ImageContents(Struct):
    """Contents of an image, as far as they are known: sizes in bytes of manifests and blobs.

    `fetched`: manifests that are new here. `missing`: what cannot be had, and why. `unconfirmed`: why the
    upstream did not say that the tag points to this image.
    """

    root: Digest | None = None
    manifests: dict[Digest, int] = field(default_factory=dict)
    blobs: dict[Digest, int] = field(default_factory=dict)
    fetched: set[Digest] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    unconfirmed: str = ""


class Caches(Struct, frozen=True):
    """The caches that a walk asks, which ask the upstream for what is not here."""

    store: StoreParts
    tags: TagCache
    manifests: ManifestCache
    listings: ListingCache
    clock: Callable[[], float] = time.time


class _Found(Struct, frozen=True):
    """A manifest that is to be read, and the tag that led to it, which the upstream confirmed at `confirmed`.

    `depth`: 0 for those of the image, more for referrers. `moved`: the tag is new here, or pointed elsewhere.
    """

    digest: Digest
    depth: int = 0
    tag: Tag | None = None
    confirmed: float = 0.0
    moved: bool = False


class ImageWalk:
    """One walk; `contents` grows meanwhile."""

    def __init__(self, caches: Caches, repository: Repository, wanted: Wanted) -> None:
        self.contents = ImageContents()
        self._caches = caches
        self._repository = repository
        self._wanted = wanted

    async def run(self, reference: Tag | Digest) -> None:
        """Fetch all manifests. What fails is `missing`: nothing is raised but for the root.

        Raises UpstreamError or StoreError.
        """
        root = await self._resolve(reference, 0) if isinstance(reference, Tag) else _Found(reference)
        self.contents.root = root.digest
        await self._follow_all([root], root.digest)

    async def _follow_all(self, pending: list[_Found], root: Digest) -> None:
        seen: set[Digest] = set()
        while pending:
            found = pending.pop()
            if found.digest in seen:
                continue
            seen.add(found.digest)
            try:
                pending += await self._follow(found)
            except (UpstreamError, StoreError, RegistryError) as error:
                if found.digest == root:
                    raise
                self.contents.missing[str(found.digest)] = str(error)

    async def _resolve(self, tag: Tag, depth: int) -> _Found:
        """Return what a tag points to; what it pointed to last, if the upstream does not answer."""
        confirm = partial(self._caches.tags.confirm, self._repository, tag)
        known, now = await self._caches.tags.entry(self._repository, tag), self._caches.clock()
        try:
            # Of a tag that is known an upstream that counts pulls is asked by HEAD, which does not count.
            info = await (self._counted(tag, confirm) if known is None else confirm())
        except UpstreamError as error:
            if known is None or error.final:
                raise
            self.contents.unconfirmed = f"the tag {tag} is not confirmed: {error}"
            return _Found(Digest.parse(known.digest), depth)
        moved = known is None or known.digest != str(info.digest)
        return _Found(info.digest, depth, tag, now, moved)

    async def _follow(self, found: _Found) -> list[_Found]:
        """Fetch a manifest, note its blobs, and return the manifests that it leads to."""
        answer = await self._get(found.digest)
        if found.tag is not None:
            await self._caches.tags.keep(self._repository, found.tag, answer, found.confirmed)
        if found.moved:
            self.contents.fetched.add(found.digest)
        manifest = await self._caches.manifests.reader.read(answer.digest, answer.data, answer.media_type)
        if manifest is None:
            self.contents.missing[str(found.digest)] = "the manifest cannot be read: its blobs are not known"
            return []
        for blob in blob_descriptors(manifest):
            self.contents.blobs[blob.digest] = blob.size
        children = [_Found(each, found.depth) for each in self._chosen(manifest, found)]
        return [*children, *await self._referrers(found)]

    def _chosen(self, manifest: Manifest, found: _Found) -> Iterator[Digest]:
        """Yield the entries of an index that are wanted; note the platforms that it lacks."""
        platforms = () if found.depth else self._wanted.platforms
        chosen = choose(manifest.manifests, platforms, attached=self._wanted.referrers)
        for each in chosen.absent:
            there = ", ".join(platforms_in(manifest.manifests))
            self.contents.missing[each] = f"the image has no such platform, but {there}"
        yield from (each.digest for each in chosen.entries if not each.urls)

    async def _get(self, digest: Digest) -> ManifestAnswer:
        get = partial(self._caches.manifests.get, self._repository, digest)
        here = await self._caches.manifests.stored(self._repository, digest)
        answer = await (get() if here is not None else self._counted(digest, get))
        self.contents.manifests[digest] = len(answer.data)
        if answer.outcome not in (Outcome.HIT, Outcome.STALE):
            self.contents.fetched.add(digest)
        self._caches.store.content.touch(digest)
        return answer

    async def _counted(self, reference: Tag | Digest, request: Callable[[], Awaitable[T]]) -> T:
        """Return the answer to a request that may count as a pull."""
        budget = self._wanted.budget
        return await (request() if budget is None else budget.ask(self._repository, reference, request))

    async def _referrers(self, found: _Found) -> list[_Found]:
        """Return the manifests that refer to this one, if they are wanted."""
        if not self._wanted.referrers or found.depth >= REFERRER_DEPTH:
            return []
        listed = await self._listed(found.digest)
        tagged = await self._tagged(found.digest) if found.depth == 0 else []
        return [*(_Found(each, found.depth + 1) for each in listed), *tagged]

    async def _listed(self, digest: Digest) -> list[Digest]:
        """Return the referrers that the upstream lists by its API."""
        about = f"referrers of {digest}"
        try:
            answer = await self._caches.listings.referrers(self._repository, digest, ())
            texts = await off_loop(len(answer.data), texts_of_index, answer.data)
        except (UpstreamError, ManifestInvalid) as error:
            self.contents.missing[about] = str(error)
            return []
        if answer.staleness is not None:
            self.contents.missing[about] = answer.staleness.reason
        return [each.digest for each in descriptors_of(json_text.parse(text.encode()) for text in texts)]

    async def _tagged(self, digest: Digest) -> list[_Found]:
        """Return the referrers that tags made of the digest point to."""
        found = []
        for ending in REFERRING_TAGS:
            tag = Tag.parse(f"{referrers_tag(digest)}{ending}")
            try:
                found.append(await self._resolve(tag, 1))
            except UpstreamError as error:
                if error.failure is not Failure.NOT_FOUND:
                    self.contents.missing[str(tag)] = str(error)
        return found
