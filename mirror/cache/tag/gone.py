"""Content that is gone upstream: kept and labelled where `tags.on_gone` is "keep", else dropped.

    the registry answers 404 or 410    content here    on_gone
    -------------------------------    ------------    ---------------------------------------------------
    about a tag                        yes             keep: served as stale, with the date; listed
    about a manifest or blob by its    yes             keep: likewise. Only what came with an account is
    digest                                             asked about again; all else is served unlabelled
    either                             no              gone: 404
    either                             any             drop: 404, the tag entry or the link is removed

The label ends when the upstream has the content again. Only the registry's own word says that something is
gone: a refusal, or a 404 of something in front of the registry, is an outage.
"""

import time
from contextlib import suppress

from msgspec.structs import replace

from mirror.cache.freshness import Freshness
from mirror.cache.results import Staleness
from mirror.config.schema import TagSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Gone, Link, TagEntry
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import Failure, UpstreamError
from mirror.util.log import get_logger

log = get_logger(__name__)


class GoneUpstream(UpstreamError):
    """The registry does not have the content any more, and this mirror keeps it."""

    def __init__(self, error: UpstreamError, gone: Gone) -> None:
        super().__init__(error.failure, error.message, status=error.status)
        self.gone = gone


class GoneKeeper:
    """The decision about content that is gone upstream, and the marks in the index."""

    def __init__(self, context: TransferContext, settings: TagSettings) -> None:
        self._context = context
        self._content = context.store.content
        self._metadata = context.store.metadata
        self._freshness = Freshness(settings)

    def keeps(self, repository: Repository) -> bool:
        """Return whether content of the repository is kept."""
        return self._freshness.keeps_gone(repository)

    def is_gone(self, error: UpstreamError) -> bool:
        """Return whether an error is the registry's own word that it does not have the content."""
        return error.failure is Failure.NOT_FOUND and error.final

    def asked_lately(self, repository: Repository, gone: Gone | None) -> bool:
        """Return whether marked content is served unasked: while the answer is as fresh as a tag."""
        if gone is None or not self.keeps(repository):
            return False
        return self._freshness.terms(repository).ttl(self._context.clock() - gone.asked) > 0

    def staleness(self, gone: Gone, confirmed: float | None, reason: str = "kept here") -> Staleness:
        """Return the label of an answer; `confirmed`: when the upstream last had the content, if known."""
        age = self._context.clock() - confirmed if confirmed else None
        return Staleness(age, f"{gone_since(gone)}; {reason}", gone=True)

    def note_served(self, repository: Repository) -> None:
        """Count an answer that has the label."""
        self._context.metrics.gone_served.labels(repository.upstream).inc()

    async def keep_tag(self, repository: Repository, tag: Tag, error: UpstreamError) -> Gone | None:
        """Mark the entry of a tag that is gone upstream; None if it is to be dropped."""
        entry = await self._entry(repository, tag) if self.keeps(repository) else None
        if entry is None or not await self._is_here(repository, Digest.parse(entry.digest)):
            return None
        gone = self._mark(entry.gone)
        await self._metadata.put_tag(repository, tag, replace(entry, gone=gone))
        if entry.gone is None:
            log.warning(
                "tag gone upstream, kept",
                repository=str(repository),
                tag=str(tag),
                digest=entry.digest,
                reason=str(error),
            )
        return gone

    async def keep_link(
        self, repository: Repository, digest: Digest, link: Link, error: UpstreamError
    ) -> Gone | None:
        """Mark the link to content that is gone upstream; None if it is to be withdrawn."""
        if not self.keeps(repository) or not await self._is_here(repository, digest):
            return None
        gone = self._mark(link.gone)
        await self._metadata.links.add(repository, digest, replace(link, gone=gone))
        if link.gone is None:
            log.warning(
                "content gone upstream, kept",
                repository=str(repository),
                digest=str(digest),
                reason=str(error),
            )
        return gone

    def note_back(self, repository: Repository, name: Tag | Digest, known: Gone | None) -> None:
        """Say that the upstream has marked content again, or something new under the name."""
        if known is not None:
            log.info("back upstream, no longer kept", repository=str(repository), reference=str(name))

    async def _entry(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the entry as it is on the disk, where another process may have marked it before."""
        with suppress(StoreError):
            return await self._metadata.read_tag_again(repository, tag)
        return await self._metadata.tag(repository, tag)

    async def _is_here(self, repository: Repository, digest: Digest) -> bool:
        return (await self._content.look_up(repository, digest)).present

    def _mark(self, known: Gone | None) -> Gone:
        now = self._context.clock()
        return Gone(now if known is None else known.since, now)


def gone_since(gone: Gone) -> str:
    """Return the label: `gone upstream since 2026-11-28`."""
    return f"gone upstream since {time.strftime('%Y-%m-%d', time.gmtime(gone.since))}"
