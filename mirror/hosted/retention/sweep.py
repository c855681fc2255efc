"""Removal of the tags that no rule keeps, and of the manifests that nothing else leads to.

A tag is removed in the state in which it was judged: a push meanwhile keeps it. Manifests that an expired tag
led to go with it, with what they name and what refers to them, unless another tag, or a manifest that was
pushed by its digest, leads to them, or a push has named them in the last hour. Their blobs are left to `gc`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from mirror.config.hosting.hosted import HostedSettings
from mirror.config.hosting.retention import RetentionSettings
from mirror.hosted.retention.rules import (
    ATTACHED,
    YOUNG_SECONDS,
    HeldTag,
    RetentionRule,
    TagVerdict,
    judge,
)
from mirror.oci.digest import Digest
from mirror.oci.errors import RegistryError
from mirror.oci.manifest import ManifestInvalid, parse_manifest
from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.hosted.hosted_index import HostedIndex
from mirror.store.metadata.index import TagEntry

# Rows that are read at a time.
ROWS = 1000


class Swept(Struct, frozen=True):
    """The result for one repository: all verdicts, removed tags with their digests, removed manifests."""

    repository: Repository
    verdicts: Sequence[TagVerdict]
    tags: Sequence[tuple[str, Digest]] = ()
    manifests: Sequence[Digest] = ()


class RetentionSweep:
    """The rules of one hosted registry on its repositories. Every method blocks."""

    def __init__(
        self, folder: CacheDirectory, settings: HostedSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._index = HostedIndex(folder, clock)
        self._settings = settings
        self._rules = [_rule(each) for each in settings.retention]
        self._clock = clock

    def repositories(self) -> Iterator[Repository]:
        """Yield the repositories of the registry."""
        prefix, after = f"{self._settings.name}/", ""
        while names := self._folder.index.repositories(prefix, after, ROWS):
            for name in names:
                yield Repository(self._settings.name, name.removeprefix(prefix))
            after = names[-1]

    def sweep(self, repository: Repository, *, dry_run: bool = False) -> Swept:
        """Remove what no rule keeps; with `dry_run` only tell what that would be."""
        now, entries = self._clock(), dict(self._entries(repository))
        verdicts = judge(self._rules, repository.path, self._held(entries), now, self._is_immutable)
        expired = {each.tag.name for each in verdicts if not each.stays}
        if not expired:
            return Swept(repository, verdicts)
        doomed, attached = self._doomed(repository, entries, expired)
        going = {name: entries[name] for name in sorted(expired | attached)}
        if dry_run:
            return Swept(repository, verdicts, _pairs(going), sorted(doomed, key=str))
        removed = self._index.expire_tags(repository, going)
        manifests = self._index.drop_unnamed(repository, sorted(doomed, key=str), now - YOUNG_SECONDS)
        return Swept(repository, verdicts, _pairs({name: going[name] for name in removed}), manifests)

    def _entries(self, repository: Repository) -> Iterator[tuple[str, TagEntry]]:
        after = ""
        while entries := self._index.queries.tag_entries(repository, after, ROWS):
            yield from entries
            after = entries[-1][0]

    def _held(self, entries: Mapping[str, TagEntry]) -> list[HeldTag]:
        used = self._folder.blobs.table.sizes_and_last_use({each.digest for each in entries.values()})
        return [
            HeldTag(name, each.digest, each.confirmed, used.get(each.digest, (0, 0.0))[1])
            for name, each in entries.items()
        ]

    def _is_immutable(self, tag: str) -> bool:
        return any(fnmatchcase(tag, each) for each in self._settings.immutable_tags)

    def _doomed(
        self, repository: Repository, entries: Mapping[str, TagEntry], expired: set[str]
    ) -> tuple[set[Digest], set[str]]:
        """Return the manifests that only expired tags lead to, and the tags that are attached to them."""
        attached = {name: each for name, each in entries.items() if ATTACHED.fullmatch(name)}
        family = _Family(self._folder, self._index, repository, attached)
        from_expired = family.of(entries[name].digest for name in expired)
        roots = [each.digest for name, each in entries.items() if name not in expired | attached.keys()]
        roots += [str(each) for each in self._manifests(repository) if each not in from_expired]
        doomed = from_expired - family.of(roots)
        fixed = {name for name in attached if self._is_immutable(name)}
        owners = {owner_of(each) for each in doomed}
        going = {name for name in attached if owner_in(name) in owners} - fixed
        held = {entries[name].digest for name in attached.keys() - going}
        return {each for each in doomed if str(each) not in held}, going

    def _manifests(self, repository: Repository) -> Iterator[Digest]:
        after = ""
        while links := self._folder.index.links(repository, after, ROWS):
            yield from (digest for digest, link, _ in links if link.media_type is not None)
            after = str(links[-1][0])


class _Family:
    """Graph of the manifests of one repository: children in indexes, referrers, and attached tags."""

    def __init__(
        self,
        folder: CacheDirectory,
        index: HostedIndex,
        repository: Repository,
        attached: Mapping[str, TagEntry],
    ) -> None:
        self._folder = folder
        self._index = index
        self._repository = repository
        self._attached: dict[str, list[str]] = {}
        self._known: dict[Digest, tuple[Digest, ...]] = {}
        for name, entry in attached.items():
            self._attached.setdefault(owner_in(name), []).append(entry.digest)

    def of(self, roots: Iterable[str]) -> set[Digest]:
        """Return the manifests that roots lead to, and the roots."""
        seen: set[Digest] = set()
        pending = [Digest.parse(each) for each in roots]
        while pending:
            digest = pending.pop()
            if digest not in seen:
                seen.add(digest)
                pending += self._next(digest)
        return seen

    def _next(self, digest: Digest) -> tuple[Digest, ...]:
        found = self._known.get(digest)
        if found is None:
            attached = [Digest.parse(each) for each in self._attached.get(owner_of(digest), ())]
            referring = self._index.queries.referring(self._repository, digest)
            found = self._known[digest] = (*self._named(digest), *attached, *referring)
        return found

    def _named(self, digest: Digest) -> tuple[Digest, ...]:
        link = self._folder.index.link(self._repository, digest)
        if link is None or link.media_type is None:
            return ()
        data = self._folder.blobs.read(digest, link.size or 0)
        try:
            manifest = None if data is None else parse_manifest(data, link.media_type)
        except (ManifestInvalid, RegistryError):
            return ()
        return () if manifest is None else tuple(each.digest for each in manifest.manifests)


def owner_in(tag: str) -> str:
    """Return the digest in an attached tag; of a long one the beginning."""
    found = ATTACHED.fullmatch(tag)
    return "" if found is None else f"{found[1]}:{found[2]}"


def owner_of(digest: Digest) -> str:
    """Return a digest as `owner_in` does."""
    return f"{digest.algorithm}:{digest.encoded[:64]}"


def _rule(settings: RetentionSettings) -> RetentionRule:
    return RetentionRule(
        settings.repositories, settings.tags, settings.keep_last, settings.keep_for, settings.keep_pulled
    )


def _pairs(entries: Mapping[str, TagEntry]) -> list[tuple[str, Digest]]:
    return [(name, Digest.parse(each.digest)) for name, each in entries.items()]
