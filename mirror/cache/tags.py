"""Tags: fresh for a while, then revalidated with a HEAD, and stale when the upstream cannot be asked."""

import contextlib
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from mirror.cache.manifests import ManifestCache, info_of, manifest_answer
from mirror.cache.negative_cache import NegativeCache
from mirror.cache.results import ManifestAnswer, ManifestInfo, Outcome, Staleness
from mirror.cache.tag.expired import Answers, ExpiredEntries, log_decision
from mirror.cache.tag.gone import GoneKeeper, GoneUpstream
from mirror.cache.tag.shared_tags import SharedTags
from mirror.cache.tag.validity import TagValidity
from mirror.config.schema import TagSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository, Tag
from mirror.store.errors import StoreError
from mirror.store.lock import name_key
from mirror.store.metadata.index import Link, TagEntry
from mirror.transfer.context import TransferContext
from mirror.transfer.exclusive import exclusive
from mirror.upstream.errors import UpstreamError, too_many_requests
from mirror.upstream.rate_limit import PLENTY
from mirror.upstream.registry_client import ManifestBody
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.single_flight import SingleFlight

# Refreshes of stale tags of one upstream that run in the background at a time. No client waits for them: they
# leave most connections of the upstream free.
MOST_REFRESHES = 16


class _Revalidated(Struct, frozen=True):
    """Result of asking what a tag points to.

    `proven` is true if the tag is unchanged, or a GET told. Otherwise `entry` is what a HEAD claims, which a
    GET may contradict; None if the HEAD claims nothing.
    """

    entry: TagEntry | None
    proven: bool = True


class TagCache:
    """Tag entries, and the manifests that they point to."""

    def __init__(
        self,
        context: TransferContext,
        upstreams: UpstreamSet,
        manifests: ManifestCache,
        settings: TagSettings,
        gone: GoneKeeper,
    ) -> None:
        self._gone = gone
        self._context = context
        self._content = context.store.content
        self._metadata = context.store.metadata
        self._leases = context.store.transfers.leases
        self._upstreams = upstreams
        self._manifests = manifests
        self.validity = TagValidity(context, upstreams, settings)
        self.expired = ExpiredEntries(upstreams, self.validity, gone, settings.fallback_after)
        self._missing: NegativeCache[tuple[Repository, str]] = NegativeCache(settings.missing)
        self._shared = SharedTags(context, manifests.bring, settings.missing)
        self._revalidating: SingleFlight[tuple[Repository, Tag], _Revalidated] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._getting: SingleFlight[tuple[Repository, Tag], ManifestAnswer] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._refreshing: SingleFlight[tuple[Repository, Tag], None] = SingleFlight(
            context.tasks, MOST_REFRESHES, too_many_requests
        )

    async def get(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        """Return the manifest that a tag points to. Raises UpstreamError or StoreError."""
        requested = self._context.clock()
        entry = await self._latest(repository, tag)
        if entry is None:
            # A HEAD first saves the GET of a manifest that is here by its digest, but costs a round trip.
            save_gets = (
                self._upstreams[repository.upstream].accounts.budget_level(repository.path) is not PLENTY
            )
            get = partial(self._get_by_tag, repository, tag, requested)
            refresh = partial(self._refresh, repository, tag)
            with self._missing.remembering((repository, tag.name), tag.also):
                self._upstreams[repository.upstream].health.raise_if_unresponsive(tag)
                return await self._getting.do(
                    (repository, tag), refresh if save_gets else get, repository.upstream
                )
        ttl = self.validity.ttl(repository, tag, entry)
        if ttl > 0:
            log_decision("tag fresh", repository, tag, fresh_seconds=round(ttl, 1))
            return await self._manifest(repository, tag, entry, ttl)
        answers = Answers(
            partial(self._refresh, repository, tag),
            partial(self._stale_manifest, repository, entry),
            partial(self._start_refresh, repository, tag, entry),
        )
        return await self.expired.answer(repository, tag, entry, answers)

    async def head(self, repository: Repository, tag: Tag) -> ManifestInfo:
        """Return what a tag points to: what a GET is answered with.

        Where the upstream counts GETs, it is asked with a HEAD at most.
        """
        requested = self._context.clock()
        entry = await self._latest(repository, tag)
        if entry is None:
            with self._missing.remembering((repository, tag.name), tag.also):
                self._upstreams[repository.upstream].health.raise_if_unresponsive(tag)
                return await self._head(repository, tag, requested, Outcome.MISS)
        ttl = self.validity.ttl(repository, tag, entry)
        if ttl > 0:
            log_decision("tag fresh", repository, tag, fresh_seconds=round(ttl, 1))
            return _info(entry, Outcome.HIT, ttl)

        async def revalidated() -> ManifestInfo:
            return await self._head(repository, tag, requested, Outcome.HIT)

        async def stale(staleness: Staleness) -> ManifestInfo | None:
            local = await self._content.look_up(repository, Digest.parse(entry.digest))
            return replace(_info(entry, Outcome.STALE), staleness=staleness) if local.present else None

        refresh = partial(self._start_refresh, repository, tag, entry)
        return await self.expired.answer(repository, tag, entry, Answers(revalidated, stale, refresh))

    async def confirm(self, repository: Repository, tag: Tag) -> ManifestInfo:
        """Return what a tag points to by the upstream's word, or while it is fresh; never a stale answer.

        Asks as `head`. A tag that has moved is only noted with its manifest, by `keep`. Raises UpstreamError
        or StoreError.
        """
        requested = self._context.clock()
        entry = await self._latest(repository, tag)
        if entry is not None and (ttl := self.validity.ttl(repository, tag, entry)) > 0:
            return _info(entry, Outcome.HIT, ttl)
        with self._missing.remembering((repository, tag.name), tag.also):
            return await self._head(repository, tag, requested, Outcome.MISS)

    async def keep(self, repository: Repository, tag: Tag, found: ManifestAnswer, confirmed: float) -> None:
        """Note that a tag points to a manifest, which `confirm` told at `confirmed` and which is here now."""
        known = await self.entry(repository, tag)
        if known is None or known.digest != str(found.digest):
            entry = TagEntry(str(found.digest), found.media_type, len(found.data), confirmed)
            await self._put_tag(repository, tag, entry)

    async def _head(
        self, repository: Repository, tag: Tag, requested: float, outcome: Outcome
    ) -> ManifestInfo:
        """Return what a tag points to now."""
        upstream = self._upstreams[repository.upstream]
        known = await self.entry(repository, tag)
        if known is not None or upstream.accounts.counts_pulls:
            found = await self._revalidate(repository, tag)
            if found.entry is not None and (found.proven or upstream.accounts.counts_pulls):
                return _info(found.entry, outcome)
        get = partial(self._get_by_tag, repository, tag, requested)
        manifest = await self._getting.do((repository, tag), get, repository.upstream)
        return replace(info_of(manifest), outcome=outcome if manifest.staleness is None else Outcome.STALE)

    async def entry(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return what is known of a tag; with further types, only if it is of one of those."""
        entry = await self._metadata.tag(repository, tag)
        return None if entry is not None and tag.also and entry.media_type not in tag.also else entry

    async def _latest(self, repository: Repository, tag: Tag) -> TagEntry | None:
        """Return the entry, or that of another mirror where this one is not fresh and that one is newer.

        Raises UpstreamError if there is none, and the upstream has lately told another mirror so.
        """
        entry = await self.entry(repository, tag)
        if entry is not None and self.validity.ttl(repository, tag, entry) > 0:
            return entry
        return await self._shared.latest(repository, tag, entry)

    async def _put_tag(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Note what the upstream has said of a tag, for the other mirrors too."""
        await self._metadata.put_tag(repository, tag, entry)
        self._shared.note_tag(repository, tag, entry)

    async def _stale_manifest(
        self, repository: Repository, entry: TagEntry, staleness: Staleness
    ) -> ManifestAnswer | None:
        stored = await self._manifests.stored(repository, Digest.parse(entry.digest))
        return (
            None if stored is None else replace(manifest_answer(stored, Outcome.STALE), staleness=staleness)
        )

    def _start_refresh(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Refresh a stale entry in the background for the next request, if no refresh of it is running.

        Not while MOST_REFRESHES of the upstream run: a later request starts it.
        """
        if not self._refreshing.running((repository, tag)) and not self._refreshing.full(repository.upstream):
            refreshing = self._refresh_quietly(repository, tag, entry)
            self._context.tasks.spawn(refreshing, name=f"refresh {repository}:{tag}")

    async def _refresh_quietly(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Refresh a stale entry; errors are ignored, because no client waits."""
        with contextlib.suppress(UpstreamError, StoreError):
            refresh = partial(self._refresh_once, repository, tag, entry)
            await self._refreshing.do((repository, tag), refresh, repository.upstream)

    async def _refresh_once(self, repository: Repository, tag: Tag, entry: TagEntry) -> None:
        """Refresh, unless a refresh that has just ended did so: `entry` is then an old entry."""
        if await self.entry(repository, tag) == entry:
            await self._refresh(repository, tag)

    async def _refresh(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        """Revalidate the tag, and fetch the manifest if it is a new one."""
        requested = self._context.clock()
        found = await self._revalidate(repository, tag)
        if found.entry is None or not found.proven:
            return await self._get_by_tag(repository, tag, requested)
        manifest = await self._manifest(repository, tag, found.entry)
        await self._put_tag(repository, tag, found.entry)
        return manifest

    async def _manifest(
        self, repository: Repository, tag: Tag, entry: TagEntry, ttl: float | None = None
    ) -> ManifestAnswer:
        """Return the manifest of an entry, as the answer for the tag: for no longer than that is fresh.

        `ttl`: that of the entry, if the caller knows it.
        """
        found = await self._manifests.get(repository, Digest.parse(entry.digest), tag.also)
        ttl = self.validity.ttl(repository, tag, entry) if ttl is None else ttl
        return replace(found, ttl=max(0.0, min(found.ttl, ttl)))

    async def _revalidate(self, repository: Repository, tag: Tag) -> _Revalidated:
        """Ask the upstream what the tag points to; one request for all callers."""
        head = partial(self._head_upstream, repository, tag)
        return await self._revalidating.do((repository, tag), head, repository.upstream)

    async def _head_upstream(self, repository: Repository, tag: Tag) -> _Revalidated:
        """Ask with a HEAD, which is free at Docker Hub.

        Its word counts if it says that nothing has changed. At an upstream that counts GETs it also counts
        for a manifest that is here: that saves a GET.
        """
        requested, upstream = self._context.clock(), self._upstreams[repository.upstream]
        try:
            info = await upstream.head_manifest(repository.path, tag, tag.also)
        except UpstreamError as error:
            await self._drop_missing(repository, tag, error)
            raise
        if info.body is not None:
            return _Revalidated(await self._keep(repository, tag, info.body, requested))
        known = await self.entry(repository, tag)
        unchanged = known is not None and known.digest == str(info.digest)
        log_decision("tag revalidated", repository, tag, moved=not unchanged, digest=str(info.digest))
        if known is not None and unchanged:
            entry = replace(known, confirmed=self._context.clock(), provenance=None, gone=None)
        elif info.digest is None or info.size is None:
            return _Revalidated(None, proven=False)
        else:
            entry = TagEntry(str(info.digest), info.media_type, info.size, self._context.clock())
            if not upstream.accounts.counts_pulls:
                return _Revalidated(entry, proven=False)
            local = await self._content.look_up(repository, info.digest)
            if not local.present:
                if known is None:
                    # Containerd gets the manifest by its digest next: no GET would tell of the tag.
                    await self._put_tag(repository, tag, entry)
                return _Revalidated(entry, proven=False)
        link = Link(entry.media_type, entry.size)
        link = self._context.confirmed(upstream, repository, link, requested)
        await self._metadata.links.add(repository, Digest.parse(entry.digest), link)
        await self._put_tag(repository, tag, entry)
        self._gone.note_back(repository, tag, None if known is None else known.gone)
        return _Revalidated(entry)

    async def _drop_missing(self, repository: Repository, tag: Tag, error: UpstreamError) -> None:
        """Forget a tag that the registry says does not exist; raise GoneUpstream if it is kept."""
        if self._gone.is_gone(error):
            gone = await self._gone.keep_tag(repository, tag, error)
            if gone is not None:
                raise GoneUpstream(error, gone) from error
            await self._metadata.drop_tag(repository, tag)
            self._shared.note_missing(repository, tag)

    async def _get_by_tag(self, repository: Repository, tag: Tag, requested: float) -> ManifestAnswer:
        """Fetch digest and manifest with one GET; one process at a time, because GETs are rate limited.

        The answer that another process received since `requested` is used instead.
        """
        async with exclusive(self._leases, name_key(f"{repository}:{tag}{' '.join(tag.also)}")):
            entry = await self.entry(repository, tag)
            if entry is None or entry.confirmed < requested:
                return await self._get_upstream(repository, tag)
        return await self._manifest(repository, tag, entry)

    async def _get_upstream(self, repository: Repository, tag: Tag) -> ManifestAnswer:
        began, upstream = self._context.clock(), self._upstreams[repository.upstream]
        try:
            body = await upstream.get_manifest(repository.path, tag, tag.also)
        except UpstreamError as error:
            await self._drop_missing(repository, tag, error)
            raise
        await self._keep(repository, tag, body, began)
        return ManifestAnswer(body.data, body.digest, body.media_type, Outcome.MISS)

    async def _keep(self, repository: Repository, tag: Tag, body: ManifestBody, began: float) -> TagEntry:
        """Store a tag and the manifest that the upstream sent for it."""
        await self._manifests.put(repository, body, began)
        entry = TagEntry(str(body.digest), body.media_type, len(body.data), self._context.clock())
        known = await self._metadata.tag(repository, tag)
        await self._put_tag(repository, tag, entry)
        self._gone.note_back(repository, tag, None if known is None else known.gone)
        return entry


def _info(entry: TagEntry, outcome: Outcome, ttl: float = 0.0) -> ManifestInfo:
    return ManifestInfo(Digest.parse(entry.digest), entry.media_type, entry.size, outcome, ttl)
