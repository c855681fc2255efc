"""Search over the names of all images: rows of the index, a page at a time, whatever the number of images."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from mirror.oci.reference import Repository
from mirror.store.cache_dir import CacheDirectory
from mirror.store.metadata.closure import Closures, Part, digest_or_none
from mirror.store.metadata.index import Index, TagEntry
from mirror.store.metadata.listings import count_tags, matching_rows

# Rows that a query returns, at most.
MOST_ROWS = 500

# Words of a search, at most: each is compared with every name.
MOST_WORDS = 8

# Parts of an image that are looked at for a row of a list.
MOST_PARTS = 2000


class FoundTag(Struct, frozen=True):
    """A tag that matches. `key`: by which the next page continues."""

    key: str
    repository: Repository
    tag: str
    entry: TagEntry


class RepositoryRow(Struct, frozen=True):
    """A repository of a list. `tags`: the number of its tags; `more`: there may be others, not counted."""

    name: str
    tags: int
    more: bool = False


class TagRow(Struct, frozen=True, kw_only=True):
    """An image of a list. `size`: bytes that are here; `missing`: parts that would have to be fetched.

    `last_used`: None if its manifest is not here. `confirmed`: when its upstream last confirmed the tag, 0
    for never. Moments in seconds since the epoch.
    """

    reference: str
    repository: str
    tag: str
    digest: str
    size: int
    missing: int
    platforms: list[str]
    last_used: float | None
    confirmed: float
    pinned: bool
    gone: bool


def words_of(text: str) -> tuple[str, ...]:
    """Return the words to search for."""
    return tuple(text.lower().split()[:MOST_WORDS])


class NameSearch:
    """Search in the names of one index. For one thread."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def repositories(self, words: Sequence[str], after: str) -> list[str]:
        """Return repositories, `<upstream>/<repository>`, in order, that have all words; up to MOST_ROWS."""
        rows = matching_rows(self._index, "repository:", words, after, MOST_ROWS)
        return [key.removeprefix("repository:") for key, _ in rows]

    def tags(self, words: Sequence[str], after: str, name: str = "") -> list[FoundTag]:
        """Return tags in the order of their names that have all words; up to MOST_ROWS rows are read.

        `after`: the key of the last one before; `name`: of the only repository.
        """
        kind = f"tag:{name}:" if name else "tag:"
        found = []
        for key, value in matching_rows(self._index, kind, words, after, MOST_ROWS):
            upstream, _, rest = key.removeprefix("tag:").partition("/")
            path, _, tag = rest.rpartition(":")
            entry = TagEntry.from_json(value) if isinstance(value, str) else None
            if entry is not None and path:
                found.append(FoundTag(key, Repository(upstream, path), tag, entry))
        return found

    def count_tags(self, names: Iterable[str]) -> dict[str, int]:
        """Return the number of tags of each repository."""
        return count_tags(self._index, names)


class TagDescriber:
    """Describes the tags of a page. For one thread."""

    def __init__(self, folder: CacheDirectory) -> None:
        self._folder = folder
        self._closures = Closures(folder.index, folder.reader.read, {})

    def rows(self, found: Iterable[FoundTag]) -> list[TagRow]:
        """Return what a list shows of the tags."""
        return [self._row(each) for each in found]

    def _row(self, found: FoundTag) -> TagRow:
        digest, parts = digest_or_none(found.entry.digest), list[Part]()
        if digest is not None:
            root = Part(digest, found.entry.size, is_manifest=True)
            for part in self._closures.parts(found.repository, root):
                parts.append(part)
                if len(parts) >= MOST_PARTS:
                    break
        here = self._folder.blobs.table.sizes_and_last_use(str(each.digest) for each in parts)
        return TagRow(
            reference=f"{found.repository}:{found.tag}",
            repository=str(found.repository),
            tag=found.tag,
            digest=found.entry.digest,
            size=sum(size for size, _ in here.values()),
            missing=count_missing(parts, here),
            platforms=list(dict.fromkeys(str(each.platform) for each in parts if _is_here(each, here))),
            last_used=here[found.entry.digest][1] if found.entry.digest in here else None,
            confirmed=found.entry.confirmed,
            pinned=bool(self._folder.pins.matching(found.repository, found.tag, found.entry.digest)),
            gone=found.entry.gone is not None,
        )


def _is_here(part: Part, here: dict[str, tuple[int, float]]) -> bool:
    return part.platform is not None and not part.is_referrer and str(part.digest) in here


def count_missing(parts: Sequence[Part], here: dict[str, tuple[int, float]]) -> int:
    """Return how many parts would have to be fetched for the platforms that are here.

    The manifests of other platforms are not missing, unless there is not one.
    """
    own = [each for each in parts if not each.is_referrer]
    entries = [each for each in own[1:] if each.is_manifest]
    absent = [each for each in own if str(each.digest) not in here]
    no_platform = bool(entries) and all(each in absent for each in entries)
    return sum(no_platform or not each.is_manifest or each is own[0] for each in absent)
