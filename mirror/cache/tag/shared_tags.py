"""Tags by the word of other mirrors' upstreams: a tag that one mirror has confirmed is fresh for all."""

from collections.abc import Awaitable, Callable

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.metadata.index import Link, TagEntry
from mirror.transfer.context import OtherMirrors, TransferContext
from mirror.upstream.errors import Failure, UpstreamError

NOT_FOUND = 404

# Return a manifest with a link that is confirmed by these words; None if no other mirror has it.
Bring = Callable[[Repository, Digest, Link], Awaitable[object | None]]


class SharedTags:
    """The tag entries of the other mirrors; of none where nothing is shared."""

    def __init__(self, context: TransferContext, bring: Bring, missing: float) -> None:
        """`missing`: seconds for which a tag is missing that was not found."""
        self._words = context.shared_words
        self._clock = context.clock
        self._metadata = context.store.metadata
        self._bring = bring
        self._seconds = missing

    async def latest(self, repository: Repository, tag: Tag, entry: TagEntry | None) -> TagEntry | None:
        """Return the newer one of this mirror's entry and the others', which is this mirror's from now on.

        An entry is not taken whose manifest the tier does not have, if this mirror can serve its own one.
        Raises UpstreamError for a tag that is missing.
        """
        if self._words is None:
            return entry
        with self._words.waiting():
            return await self._latest(self._words, repository, tag, entry)

    async def _latest(
        self, words: OtherMirrors, repository: Repository, tag: Tag, entry: TagEntry | None
    ) -> TagEntry | None:
        found = await words.find_tag(repository, tag)
        if found is None:
            await self._raise_if_missing(repository, tag, entry)
            return entry
        if entry is not None and found.confirmed <= entry.confirmed:
            return entry
        if entry is None or found.digest != entry.digest:
            link = Link(found.media_type, found.size, found.confirmed)
            brought = await self._bring(repository, Digest.parse(found.digest), link)
            if brought is None and entry is not None:
                return entry
        await self._metadata.put_tag(repository, tag, found)
        return found

    def note_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Tell the other mirrors what this mirror's upstream has said."""
        if self._words is not None:
            self._words.add_tag(repository, tag, entry)

    def note_missing(self, repository: Repository, tag: Tag) -> None:
        """Tell the other mirrors that this mirror's upstream has no such tag."""
        if self._words is not None:
            self._words.add_missing(repository, tag, self._clock())

    async def _raise_if_missing(self, repository: Repository, tag: Tag, entry: TagEntry | None) -> None:
        if self._words is None or entry is not None:
            return
        since = await self._words.missing_since(repository, tag)
        if since is not None and self._clock() - since < self._seconds:
            message = f"{repository.upstream} has no {repository.path}:{tag.name}, as another mirror was told"
            raise UpstreamError(Failure.NOT_FOUND, message, status=NOT_FOUND)
