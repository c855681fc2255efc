"""The hosted registries as an origin of content, beside the upstreams (`cache.origins`).

A blob opens only through a link of its repository (invariant 5), and a HEAD is answered by the same rule.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Collection
from functools import partial
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from mirror.cache.readers import BlobAnswer, BlobRequest, Fallback, SmallBlob, StoredReader
from mirror.cache.referring.clients import Requester
from mirror.cache.results import (
    FOREVER,
    BlobInfo,
    ManifestAnswer,
    ManifestInfo,
    Outcome,
    ReferrersAnswer,
    TagsAnswer,
)
from mirror.hosted.refusals import (
    answered,
    too_many_lists,
    unknown_blob,
    unknown_manifest,
    unknown_repository,
)
from mirror.oci.accept import ANYTHING, Accepted
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.oci.referrers import index_of
from mirror.store.hosted.hosted_store import HostedStore
from mirror.store.links.content import LocalContent
from mirror.store.store import Store
from mirror.util.single_flight import SingleFlight
from mirror.util.tasks import Tasks
from mirror.util.time_limit import TimeLimit

# Page size of tags without `n`, and the maximum; clients follow the Link.
MOST_TAGS = 10_000

# Pages of referrers that are read at a time: each has megabytes, and takes a hundredth of a second.
MOST_LISTINGS = 4


class _Part(Struct, frozen=True):
    """The part of a list of referrers that a client asks for: behind digest `after`, of types `kinds`."""

    repository: Repository
    subject: Digest
    after: str
    kinds: frozenset[str]


class HostedOrigin:
    """Content that was pushed: never asked of another machine, always fresh, there without any upstream.

    Raises RegistryError.
    """

    def __init__(self, store: Store, hosted: HostedStore, tasks: Tasks) -> None:
        self._store = store
        self._hosted = hosted
        self._tasks = tasks
        self._listing = asyncio.Semaphore(MOST_LISTINGS)
        # The read of a part that has not begun, by its number: it will see all that was pushed by now, so
        # that callers may wait for it together. One that runs may have missed a push.
        self._next_reads: dict[_Part, int] = {}
        self._numbers = itertools.count()
        self._reading: SingleFlight[tuple[_Part, int], tuple[bytes, str | None]] = SingleFlight(
            tasks, refusal=too_many_lists
        )
        self.on_pull: list[Callable[[Repository, Tag, Digest], object]] = []  # called for each pull by tag

    async def get_manifest(
        self,
        repository: Repository,
        reference: Tag | Digest,
        accepted: Accepted = ANYTHING,
        client: Requester | None = None,
    ) -> ManifestAnswer:
        """Return the manifest as it was pushed, whatever the client accepts."""
        with answered():
            if isinstance(reference, Digest):
                digest, ttl = reference, FOREVER
            else:
                entry = await self._hosted.tag(repository, reference)
                if entry is None:
                    raise unknown_manifest(repository, reference)
                digest, ttl = Digest.parse(entry.digest), 0.0
            found = await self._hosted.manifest(repository, digest)
        if found is None:
            raise unknown_manifest(repository, reference)
        if isinstance(reference, Tag):
            for call in self.on_pull:
                call(repository, reference, digest)
        return ManifestAnswer(found.data, found.digest, found.media_type, Outcome.HIT, ttl)

    async def head_manifest(
        self, repository: Repository, reference: Tag | Digest, accepted: Accepted = ANYTHING
    ) -> ManifestInfo:
        """Return digest, type and size of the manifest."""
        if isinstance(reference, Digest):
            found = await self.get_manifest(repository, reference)
            return ManifestInfo(found.digest, found.media_type, len(found.data), found.outcome, found.ttl)
        with answered():
            entry = await self._hosted.tag(repository, reference)
        if entry is None:
            raise unknown_manifest(repository, reference)
        return ManifestInfo(Digest.parse(entry.digest), entry.media_type, entry.size, Outcome.HIT)

    async def get_blob(
        self,
        repository: Repository,
        digest: Digest,
        limit: TimeLimit | None = None,
        request: BlobRequest | None = None,
    ) -> BlobAnswer:
        """Return the blob, open for reading."""
        with answered():
            local = await self._hosted.open_blob(repository, digest)
        if local.blob is None:
            if local.data is None:
                raise unknown_blob(repository, digest)
            return BlobAnswer(SmallBlob(local.data), Outcome.HIT, FOREVER)
        return BlobAnswer(self._reader(digest, local), Outcome.HIT, FOREVER)

    def _reader(self, digest: Digest, local: LocalContent) -> StoredReader:
        if local.blob is None:
            raise AssertionError("a reader of a blob that is not open")
        doubt = self._store.content.quarantine_if_unreadable
        fallback = Fallback(None, lambda: self._tasks.spawn(doubt(digest), name=f"doubt {digest}"))
        return StoredReader(
            local.blob, self._store.readers, fallback, self._store.content.begin_reading(digest)
        )

    async def head_blob(self, repository: Repository, digest: Digest) -> BlobInfo:
        """Return the blob's size; by the link of its own repository alone."""
        with answered():
            local = await self._hosted.open_blob(repository, digest)
        local.close()
        if not local.is_open:
            raise unknown_blob(repository, digest)
        return BlobInfo(len(local.data or b"") if local.blob is None else local.blob.size, Outcome.HIT)

    async def tags(self, repository: Repository, query: str) -> TagsAnswer:
        """Return a page of the tags, in ASCII order. `query` has `n` and `last`."""
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        text = parameters.get("n", "")
        limit = min(int(text), MOST_TAGS) if text.isascii() and text.isdigit() else MOST_TAGS
        with answered():
            names = await self._hosted.tags(repository, parameters.get("last", ""), limit + 1)
        if names is None:
            raise unknown_repository(repository)
        page, more = names[:limit], len(names) > limit > 0
        data = json.dumps({"name": repository.path, "tags": page}, separators=(",", ":")).encode()
        next_query = urlencode({"n": limit, "last": page[-1]}) if more else None
        return TagsAnswer(data, next_query, Outcome.HIT)

    async def referrers(
        self,
        repository: Repository,
        digest: Digest,
        artifact_types: Collection[str],
        client: Requester | None = None,
        after: str = "",
    ) -> ReferrersAnswer:
        """Return a page of the referrers of a digest, which need not be here: all, or those of some types.

        `after`: the digest where the page before ended.
        """
        start = str(Digest.parse(after)) if after else ""
        part = _Part(repository, digest, start, frozenset(artifact_types))
        number = self._next_reads.setdefault(part, next(self._numbers))
        try:
            data, end = await self._reading.do((part, number), partial(self._read_part, part, number))
        finally:
            if not self._reading.running((part, number)):
                self._begin_read(part, number)
        kinds = [("artifactType", each) for each in sorted(artifact_types)]
        next_query = None if end is None else urlencode([*kinds, ("last", end)])
        return ReferrersAnswer(data, bool(artifact_types), Outcome.HIT, next_query=next_query)

    async def _read_part(self, part: _Part, number: int) -> tuple[bytes, str | None]:
        """Return a part as an OCI index, one object for all callers, and the digest where it ends."""
        try:
            # Once it is read, a part is on its way at once, and counts among the answers in memory.
            async with self._listing:
                self._begin_read(part, number)
                with answered():
                    found, end = await self._hosted.referrers(
                        part.repository, part.subject, part.after, part.kinds
                    )
                return index_of(found), end
        finally:
            self._begin_read(part, number)

    def _begin_read(self, part: _Part, number: int) -> None:
        """Let no further caller join a read."""
        if self._next_reads.get(part) == number:
            del self._next_reads[part]
