"""The index of hosted repositories: each push and each deletion is one transaction.

Rows besides those of every repository (`store.metadata.index`), and those of `metadata.pushed_referrers`:

    held:<registry>/<repository>, held:<registry>   -> bytes that are linked, each blob once
    pushes                                          -> number of the last transaction (`push_journal`)

Order, so that a crash at any line leaves nothing wrong (invariant 8): the blob is retained, then linked; the
link goes, then the blob is released. The classes are in the database of the blobs, and are written while the
transaction of the index is open: of two processes, one that links a blob and one that drops its last link,
the second sees what the first has done.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import diskcache
from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.errors import (
    BlobLost,
    ContentMissing,
    PushRefused,
    TagImmutable,
    TypeFixed,
)
from mirror.store.hosted.hosted_quotas import HostedQuotas
from mirror.store.hosted.push_journal import PushBatch
from mirror.store.hosted.pushes import NO_QUOTAS, PushedManifest, Quotas
from mirror.store.metadata.hosted_names import HostedNames
from mirror.store.metadata.hosted_queries import HostedQueries
from mirror.store.metadata.index import Link, TagEntry
from mirror.store.metadata.pushed_referrers import PushedReferrers

# Digests in one statement.
ROWS = 500

# Key of the number of the last transaction.
NUMBER = "pushes"

# Has manifests on the disk: number and time of their transaction, and the pushes (`PushJournal.add`).
Journal = Callable[[int, float, Sequence[PushedManifest]], object]


class Removed(Struct, frozen=True):
    """The result of a deletion: tags by their names, and links."""

    tags: tuple[str, ...] = ()
    digests: tuple[Digest, ...] = ()


class HostedIndex:
    """Pushes and deletions of one cache folder. Every method blocks. Raises OSError and sqlite3.Error."""

    def __init__(self, folder: CacheDirectory, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._index = folder.index
        self._retention = folder.blobs.retention
        self._clock = clock
        self._referrers = PushedReferrers(folder.index)
        self.names = HostedNames(folder.index)
        self.queries = HostedQueries(folder.index)
        self.quotas = HostedQuotas(folder.index, self.queries)

    @property
    def _cache(self) -> diskcache.Cache:
        return self._index.database.cache

    def link_blob(
        self, repository: Repository, digest: Digest, size: int, quotas: Quotas = NO_QUOTAS
    ) -> None:
        """Link a blob that is here. Raises BlobLost and QuotaExceeded."""
        with self._transaction():
            self.quotas.check_coming(repository, {digest: size}, quotas)
            if self._retention.retain([str(digest)]):
                raise BlobLost(digest)
            grown: dict[str, int] = {}
            known = self._index.link(repository, digest)
            self._link(repository, digest, Link(None, size, confirmed=self._clock()), known, grown)
            self.quotas.count(grown)
        self._sync()

    def put_manifest(self, push: PushedManifest) -> list[tuple[Tag, TagEntry | None]]:
        """Link a manifest that is here; return its tags, each with its entry before. Raises PushRefused."""
        found = self.put_manifests([push])[0]
        if isinstance(found, PushRefused):
            raise found
        return found

    def put_manifests(
        self, pushes: Sequence[PushedManifest], journal: Journal | None = None
    ) -> list[list[tuple[Tag, TagEntry | None]] | PushRefused]:
        """Link manifests, in one transaction; a refused one changes nothing.

        `journal` has the accepted ones on the disk before the transaction ends.
        """
        found: list[list[tuple[Tag, TagEntry | None]] | PushRefused] = []
        if not pushes:
            return found
        accepted, now = [], self._clock()
        grown: dict[str, int] = {}
        with self._transaction() as number:
            known = self.links_of(pushes)
            for push in pushes:
                links = known[push.repository]
                if push.quotas != NO_QUOTAS:
                    self.quotas.count(grown)
                try:
                    self._check(push, links)
                except PushRefused as refused:
                    found.append(refused)
                else:
                    found.append(self._put(push, now, links, grown))
                    accepted.append(push)
            self.quotas.count(grown)
            if journal is not None and accepted:
                journal(number, now, accepted)
        if any(entry is not None for tags in found if isinstance(tags, list) for _, entry in tags):
            self._folder.epoch.note_push()
        if journal is None:
            self._sync()
        for repository in {each.repository for each in pushes}:
            self._folder.pins.note_change(repository)
        return found

    def put_again(self, batches: Sequence[PushBatch]) -> None:
        """Put the manifests of transactions that are lost: of those with a number that was not given yet."""
        with self._cache.transact():
            last = self._last_number()
            grown: dict[str, int] = {}
            for batch in batches:
                if batch.number > last:
                    self._cache.set(NUMBER, str(batch.number))
                    for push in batch.pushes:
                        self.names.add(push.repository.upstream)
                        links = self.queries.links_among(push.repository, (push.digest,))
                        self._put(push, batch.moment, links, grown)
            self.quotas.count(grown)
        self._folder.epoch.note_push()

    def links_of(self, pushes: Iterable[PushedManifest]) -> dict[Repository, dict[Digest, Link]]:
        """Return the links to manifests and to what they name."""
        wanted: dict[Repository, set[Digest]] = {}
        for push in pushes:
            wanted.setdefault(push.repository, set()).update((push.digest, *push.blobs, *push.manifests))
        return {each: self.queries.links_among(each, digests) for each, digests in wanted.items()}

    def check(self, push: PushedManifest, links: Mapping[Digest, Link]) -> None:
        """Raise PushRefused if the manifest would be refused now. `links`: those of its repository."""
        self._check(push, links, stored=False)

    def delete_tag(self, repository: Repository, tag: Tag, immutable: bool = False) -> bool:
        """Remove a tag; return whether it was there. Raises TagImmutable."""
        with self._transaction():
            entry = self._index.tag(repository, tag)
            if entry is None:
                return False
            if immutable:
                raise TagImmutable(tag.name, entry.digest)
            self._index.drop(repository, [tag.name], ())
        self._note_removal(repository)
        return True

    def delete_manifest(
        self, repository: Repository, digest: Digest, is_fixed: Callable[[str], bool] = lambda _: False
    ) -> Removed | None:
        """Remove a manifest and its tags; None if it was not there. Raises TagImmutable."""
        with self._transaction():
            link = self._index.link(repository, digest)
            if link is None or link.media_type is None:
                return None
            tags = self.queries.tags_of(repository, digest)
            if fixed := next(filter(is_fixed, tags), None):
                raise TagImmutable(fixed, str(digest))
            self._unlink(repository, [digest], tags)
        self._end_removal(repository, [digest])
        return Removed(tuple(tags), (digest,))

    def delete_blob(self, repository: Repository, digest: Digest) -> bool:
        """Remove the link to a blob; return whether it was there."""
        with self._transaction():
            link = self._index.link(repository, digest)
            if link is None or link.media_type is not None:
                return False
            self._unlink(repository, [digest], ())
        self._end_removal(repository, [digest])
        return True

    def remove(self, repository: Repository, tags: Collection[str], digests: Collection[Digest]) -> None:
        """Remove tags and links of a repository, and with its last one the repository."""
        with self._transaction():
            self._unlink(repository, digests, tags)
        self._end_removal(repository, digests)

    def point(self, repository: Repository, tag: Tag, entry: TagEntry) -> bool:
        """Let a tag point to a manifest; return False if the repository does not have it."""
        with self._transaction():
            link = self._index.link(repository, Digest.parse(entry.digest))
            if link is None or link.media_type is None:
                return False
            self._index.put_tag(repository, tag, entry)
        self._note_removal(repository)
        return True

    def drop_unnamed(self, repository: Repository, digests: Sequence[Digest], before: float) -> list[Digest]:
        """Remove links to blobs that were last named, or pushed, before a moment; return those that went.

        A push that names a blob meanwhile writes that down (`_name_again`), so that the link stays.
        """
        with self._transaction():
            old = [digest for digest in digests if self.queries.was_named_before(repository, digest, before)]
            self._unlink(repository, old, ())
        if old:
            self._end_removal(repository, old)
        return old

    def expire_tags(self, repository: Repository, entries: Mapping[str, TagEntry]) -> list[str]:
        """Remove tags that are as they were in `entries`; return them. A push since then keeps its tag."""
        with self._transaction():
            same = [
                name for name, entry in entries.items() if self._index.tag(repository, Tag(name)) == entry
            ]
            self._index.drop(repository, same, ())
        if same:
            self._note_removal(repository)
        return same

    def note_pull(self, repository: Repository, tag: Tag, digest: Digest) -> bool:
        """Note that a tag was pulled; return whether it was the first time since it points to the digest."""
        key = f"pulled:{repository}:{tag.name}"
        with self._cache.transact():
            first = bool(self._cache.get(key) != str(digest))
            if first:
                self._cache.set(key, str(digest))
        return first

    def release(self, digests: Iterable[Digest]) -> None:
        """Let evictions have blobs that no hosted repository links."""
        texts = sorted({str(each) for each in digests})
        for start in range(0, len(texts), ROWS):
            some = texts[start : start + ROWS]
            with self._cache.transact():
                self._retention.release(set(some) - self.names.linked_among(some))

    def _check(self, push: PushedManifest, links: Mapping[Digest, Link], *, stored: bool = True) -> None:
        """Raise PushRefused if a manifest may not be linked."""
        named = (*push.blobs, *push.manifests)
        missing = [each for each in push.blobs if each not in links]
        missing += [each for each in push.manifests if each not in links or links[each].media_type is None]
        here = set(map(str, named)).difference(map(str, missing))
        lost = self._retention.retain(here) if stored else set()
        missing += [each for each in named if str(each) in lost]
        if missing:
            raise ContentMissing(tuple(dict.fromkeys(missing)))
        for tag in push.fixed_tags:
            entry = self._index.tag(push.repository, tag)
            if entry is not None and entry.digest != str(push.digest):
                raise TagImmutable(tag.name, entry.digest)
        known = links.get(push.digest)
        if push.fixed_type and known is not None and known.media_type not in (None, push.media_type):
            raise TypeFixed(push.digest, str(known.media_type))
        self.quotas.check_coming(push.repository, {push.digest: len(push.data)}, push.quotas)
        if stored and self._retention.retain([str(push.digest)]):
            raise BlobLost(push.digest)

    def _put(
        self, push: PushedManifest, now: float, links: dict[Digest, Link], grown: dict[str, int]
    ) -> list[tuple[Tag, TagEntry | None]]:
        repository, known = push.repository, links.get(push.digest)
        link = Link(push.media_type, len(push.data), confirmed=now)
        links[push.digest] = self._link(repository, push.digest, link, known, grown)
        if known is not None and known.media_type != push.media_type:
            self._folder.epoch.note_removal()  # copies in memory have the other type
        self._name_again(repository, (*push.blobs, *push.manifests), now)
        if push.subject is not None:
            self._referrers.add(repository, push.digest, push.subject, push.descriptor)
        entry = TagEntry(str(push.digest), push.media_type, len(push.data), now)
        before = [(tag, self._index.tag(repository, tag)) for tag in push.tags]
        for tag in push.tags:
            self._index.put_tag(repository, tag, entry)
        return before

    @contextmanager
    def _transaction(self) -> Iterator[int]:
        """Begin a transaction of a hosted repository; yield its number (`push_journal`)."""
        with self._cache.transact():
            number = self._last_number() + 1
            self._cache.set(NUMBER, str(number))
            yield number

    def _last_number(self) -> int:
        text = self._cache.get(NUMBER)
        return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() else 0

    def _link(
        self, repository: Repository, digest: Digest, link: Link, known: Link | None, grown: dict[str, int]
    ) -> Link:
        """Write a link over the known one, and return it; its blob is counted in `grown` where it is new."""
        for scope in self.quotas.lacking(repository, digest) if known is None else ():
            grown[scope] = grown.get(scope, 0) + (link.size or 0)
        written = link.over(known)
        self._index.put_link(repository, digest, written, link.confirmed or self._clock())
        self._index.database.add_text(f"repository:{repository}", "")
        return written

    def _unlink(self, repository: Repository, digests: Collection[Digest], tags: Collection[str]) -> None:
        """Remove tags, links and what is known by them; count the blobs that are new to nobody else."""
        for digest in digests:
            link = self._index.link(repository, digest)
            if link is None:
                continue
            self._referrers.drop(repository, digest)
            self._index.drop_link(repository, digest)
            self._cache.delete(f"seen:{repository}@{digest}")
            for scope in self.quotas.new_to(repository, digest):
                self._cache.set(f"held:{scope}", str(max(0, self.queries.held(scope) - (link.size or 0))))
        self._index.drop(repository, tags, ())
        if not self.queries.exists(repository):
            self._cache.delete(f"held:{repository}")

    def _name_again(self, repository: Repository, digests: Iterable[Digest], now: float) -> None:
        """Write down that a manifest names contents of its repository now: `drop_unnamed` goes by that."""
        self.queries.note_named(repository, digests, now)

    def _end_removal(self, repository: Repository, digests: Iterable[Digest]) -> None:
        """Tell all processes, and release what no hosted repository links any more."""
        self._note_removal(repository)
        self.release(digests)

    def _note_removal(self, repository: Repository) -> None:
        self._folder.epoch.note_removal()
        self._folder.pins.note_change(repository)
        self._sync()

    def _sync(self) -> None:
        if self._folder.durable:
            self._index.database.sync_log()
