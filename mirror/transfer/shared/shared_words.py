"""Words of upstreams to the other mirrors, and small content that these have: asked on a miss alone.

Only what needs no account passes between mirrors. A repository that this mirror, or the other one, asks for
with an account is private: neither writes its words, nor believes those of others, so that each mirror's own
upstream decides who may have it (invariant 5). Words that were given to a guest are the guest's.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.shared.health import limited
from mirror.shared.keys import link_key, referrers_key, tag_key
from mirror.shared.record_book import RecordBook
from mirror.shared.tier import SharedTier
from mirror.shared.upstream_word import UpstreamWord
from mirror.store.metadata.index import NEVER, Link, ReferrersEntry, TagEntry
from mirror.transfer.shared.publisher import Publisher
from mirror.upstream.guests.current import asker
from mirror.util.tasks import Tasks
from mirror.util.ttl_cache import TTLCache

# How long, in seconds, an answer about one name is used for all requests: what a herd costs the engines.
ASKED_SECONDS = 1.0
MAX_ASKED = 10_000

# The most blobs of an image that are looked for at once, while its upstream cannot be asked.
MOST_LOOKED_FOR = 256


class SharedWords:
    """The tier for tags, manifests, small blobs and lists of referrers. Nothing here raises."""

    def __init__(
        self,
        tier: SharedTier,
        book: RecordBook | None,
        publisher: Publisher,
        is_private: Callable[[Repository], bool],
        tasks: Tasks,
    ) -> None:
        """`book`: None for mirrors without a secret, which believe each other's content alone."""
        self._tier = tier
        self._book = book
        self._publisher = publisher
        self._is_private = is_private
        self._tasks = tasks
        self._asked: TTLCache[str, asyncio.Task[UpstreamWord | None]] = TTLCache(ASKED_SECONDS, MAX_ASKED)

    def waiting(self) -> AbstractContextManager[None]:
        """Have all that is asked in the block wait no longer than one question to each engine."""
        return limited(self._tier.waits())

    async def find_tag(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return what the tag is by the newest word; None for none, or one that it is missing."""
        word = None if tag.also else await self._find(repository, tag_key(repository, tag))
        if word is None or word.digest is None or word.media_type is None or word.size is None:
            return None
        return TagEntry(str(word.digest), word.media_type, word.size, word.confirmed)

    async def missing_since(self, repository: Repository, tag: Tag) -> float | None:
        """Return when an upstream said that there is no such tag; None if that is not its newest word."""
        word = None if tag.also else await self._find(repository, tag_key(repository, tag))
        return word.confirmed if word is not None and word.digest is None else None

    async def find_link(self, repository: Repository, digest: Digest) -> Link | None:
        """Return the link of a repository, as an upstream has confirmed it to another mirror."""
        word = await self._find(repository, link_key(repository, digest))
        return None if word is None or word.digest != digest else _link(word)

    async def find_referrers(self, repository: Repository, digest: Digest) -> ReferrersEntry | None:
        """Return the list of referrers by the newest word."""
        word = await self._find(repository, referrers_key(repository, digest))
        return None if word is None or not word.listing else ReferrersEntry(word.listing, word.confirmed)

    async def read(
        self, repository: Repository, digest: Digest, known: Link | None, limit: int
    ) -> tuple[Link, bytes] | None:
        """Return small content of the tier, with the confirmed link that opens it; None for none.

        `known`: the mirror's own link, which is enough if it was confirmed without an account.
        """
        if not self._tier.usable or self._is_mine(repository):
            return None
        own = known is not None and known.confirmed is not None and not known.account and known.gone is None
        with self.waiting():
            link = known if own else await self.find_link(repository, digest)
            data = None if link is None else await self._tier.read(digest, limit)
        return None if link is None or data is None else (link, data)

    async def missing_blobs(self, repository: Repository, digests: Sequence[Digest]) -> list[Digest]:
        """Return those blobs that the tier does not have, or does not open."""
        if self._book is None or self._is_mine(repository) or len(digests) > MOST_LOOKED_FOR:
            return list(digests)
        with self.waiting():
            found = await asyncio.gather(*(self._is_there(repository, each) for each in digests))
        return [each for each, there in zip(digests, found, strict=True) if not there]

    async def _is_there(self, repository: Repository, digest: Digest) -> bool:
        link = await self.find_link(repository, digest)
        return link is not None and await self._tier.find(digest) is not None

    def add_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Tell the other mirrors what the upstream has just said of a tag."""
        if entry.provenance is None and entry.gone is None and not tag.also:
            word = UpstreamWord(entry.confirmed, Digest.parse(entry.digest), entry.size, entry.media_type)
            self._add(repository, tag_key(repository, tag), word)

    def add_missing(self, repository: Repository, tag: Tag, now: float) -> None:
        """Tell the other mirrors that the upstream has no such tag."""
        if not tag.also:
            self._add(repository, tag_key(repository, tag), UpstreamWord(now))

    def add_link(self, repository: Repository, digest: Digest, link: Link) -> None:
        """Tell the other mirrors that the upstream has given the content, or has confirmed the link."""
        if not link.account and link.confirmed is not None and link.gone is None:
            word = UpstreamWord(link.confirmed, digest, link.size, link.media_type)
            self._add(repository, link_key(repository, digest), word)

    def add_referrers(self, repository: Repository, digest: Digest, entry: ReferrersEntry) -> None:
        """Tell the other mirrors the list of referrers that the upstream has given."""
        if entry.confirmed != NEVER:
            word = UpstreamWord(entry.confirmed, digest, listing=entry.manifests)
            self._add(repository, referrers_key(repository, digest), word)

    def publish(self, digest: Digest) -> None:
        """Write a small blob of this mirror to the object store, soon: whatever repository it is of."""
        self._publisher.add(digest, None)

    def _is_mine(self, repository: Repository) -> bool:
        """Return whether what is said of the repository is for this mirror alone, or for a guest of it."""
        return bool(asker()) or self._is_private(repository)

    def _add(self, repository: Repository, key: str, word: UpstreamWord) -> None:
        if self._book is not None and not self._is_mine(repository):
            self._book.add(key, word)

    async def _find(self, repository: Repository, key: str) -> UpstreamWord | None:
        if self._book is None or self._is_mine(repository):
            return None
        answer = self._asked.get(key)
        if answer is None:
            with self.waiting():
                answer = self._tasks.spawn(self._book.find(key), name="ask the shared tier")
            self._asked.put(key, answer)
        return await asyncio.shield(answer)


def _link(word: UpstreamWord) -> Link:
    return Link(word.media_type, word.size, word.confirmed, account=False)
