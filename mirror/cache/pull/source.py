"""Source of pulls: whole images, lists of tags, and what is missing, for those that fetch several images."""

from collections.abc import Sequence

from mirror.cache.listings import ListingCache
from mirror.cache.pull.puller import ImagePull, Puller
from mirror.cache.pull.walk import Wanted
from mirror.oci import json_text
from mirror.oci.digest import Digest
from mirror.oci.reference import TAG, Repository, Tag
from mirror.store.parts.interfaces import ContentStore
from mirror.upstream.errors import Failure, UpstreamError

# The most pages of a list of tags that are read: the largest repositories have some ten thousand tags.
MOST_PAGES = 2000

# The most tags that are taken of a list.
MOST_TAGS = 500_000


class PullSource:
    """Pulls of one kind: all of the same platforms, with or without referrers."""

    def __init__(self, puller: Puller, listings: ListingCache, content: ContentStore, wanted: Wanted) -> None:
        self._puller = puller
        self._listings = listings
        self._content = content
        self._wanted = wanted

    def pull(self, repository: Repository, reference: Tag | Digest) -> ImagePull:
        """Return the pull of an image, which begins when it is iterated over."""
        return self._puller.pull(repository, reference, self._wanted)

    async def tags(self, repository: Repository) -> list[str]:
        """Return all tags of a repository, as its upstream lists them. Raises UpstreamError or StoreError."""
        found: list[str] = []
        query: str | None = ""
        for _ in range(MOST_PAGES):
            page = await self._listings.tags(repository, query or "")
            if page.staleness is not None:
                raise UpstreamError(Failure.UNREACHABLE, f"no list of tags: {page.staleness.reason}")
            found += names_on(page.data)
            if len(found) > MOST_TAGS:
                raise UpstreamError(Failure.INVALID, f"the list of tags has more than {MOST_TAGS}")
            query = page.next_query
            if query is None:
                break
        return list(dict.fromkeys(found))

    async def absent(self, digests: Sequence[Digest]) -> list[Digest]:
        """Return those of `digests` that are not here."""
        return await self._content.missing_blobs(digests)


def names_on(data: bytes) -> list[str]:
    """Return the tags on a page, without what is no tag; none of a page that is no list."""
    try:
        document = json_text.parse(data, MOST_TAGS)
    except ValueError:
        return []
    names = document.get("tags") if isinstance(document, dict) else None
    found = names if isinstance(names, list) else []
    return [each for each in found if isinstance(each, str) and TAG.fullmatch(each)]
