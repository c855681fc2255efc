"""Access: whether a repository's link is still believed, and what its upstream says if it is asked again.

    link                            content here        decided by
    ------------------------------  ------------------  --------------------------------------------------
    none                            any                 the upstream, before a byte is given
    named by a manifest only        came without        the name
                                    an account
    named by a manifest only        came with an        the upstream, before a byte is given
                                    account
    confirmed without an account    any                 the link, for good
    confirmed with an account       any                 the link, for `recheck_access`; then the upstream.
                                                        While it gives no answer, the link: a stale answer

The first three rows are `ContentReader.open_blob`, which gives no content, and `BlobCache` and
`ManifestCache`, which then ask; the last two are here. Only an upstream's own word (FINAL) withdraws a link.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from msgspec.structs import replace

from mirror.cache.negative_cache import NegativeCache
from mirror.cache.results import Staleness
from mirror.cache.tag.gone import GoneKeeper, GoneUpstream
from mirror.oci.digest import Digest
from mirror.oci.manifest import ACCEPT
from mirror.oci.reference import Repository
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Gone, Link
from mirror.transfer.context import TransferContext
from mirror.upstream.errors import FINAL, Failure, UpstreamError, too_many_requests
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.log import get_logger
from mirror.util.single_flight import SingleFlight
from mirror.util.ttl_cache import TTLCache

log = get_logger(__name__)

# How long an upstream that gave no answer about a link is not asked about it again, in seconds.
UNANSWERED_SECONDS = 60.0
MAX_UNANSWERED = 10_000


class AccessChecker:
    """Asks upstreams about links: those that are old, and those that only a manifest names."""

    def __init__(
        self,
        context: TransferContext,
        upstreams: UpstreamSet,
        gone: GoneKeeper,
        *,
        fallback_after: float,
        missing: float,
    ) -> None:
        """`fallback_after`: seconds to wait for an answer; `missing`: seconds to remember a refusal."""
        self._gone = gone
        self._context = context
        self._upstreams = upstreams
        self._fallback_after = fallback_after
        self._asking: SingleFlight[tuple[Repository, Digest], None] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._confirming: SingleFlight[tuple[Repository, Digest], int | None] = SingleFlight(
            context.tasks, refusal=too_many_requests, turns=context.lookups
        )
        self._unanswered: TTLCache[tuple[Repository, Digest], str] = TTLCache(
            UNANSWERED_SECONDS, MAX_UNANSWERED
        )
        self._refused: NegativeCache[tuple[Repository, Digest]] = NegativeCache(missing, failures=FINAL)

    def ttl(self, repository: Repository, link: Link) -> float:
        """Return how much longer a link is believed unasked, in seconds; 0 or less: no longer."""
        if link.gone is not None:
            return 0.0
        if not link.account:
            return math.inf
        return self._context.link_ttl(self._upstreams[repository.upstream], link)

    async def check(self, repository: Repository, digest: Digest, link: Link) -> Staleness | None:
        """Ask the upstream about a link that is too old; return why the answer is stale, None if it is not.

        Raises UpstreamError if the upstream refuses; the link is then withdrawn.
        """
        if self.ttl(repository, link) > 0:
            return None
        try:
            if link.gone is not None and self._gone.asked_lately(repository, link.gone):
                return self._kept(repository, link, link.gone)
            reason = await self._reason_unasked(repository, digest, link)
        except GoneUpstream as error:
            return self._kept(repository, link, error.gone)
        return None if reason is None else self._staleness(link, reason)

    def _kept(self, repository: Repository, link: Link, gone: Gone) -> Staleness:
        self._gone.note_served(repository)
        return self._gone.staleness(gone, link.confirmed)

    def unanswered(self, repository: Repository, link: Link | None, reason: str | None) -> Staleness | None:
        """Return why an answer is stale, None if the link holds.

        `reason`: why the upstream gave no answer; None if it was not asked, or has answered.
        """
        if link is None or reason is None or self.ttl(repository, link) > 0:
            return None
        return self._staleness(link, reason)

    def _staleness(self, link: Link, reason: str) -> Staleness:
        if link.gone is not None:
            return self._gone.staleness(link.gone, link.confirmed, reason)
        return Staleness(self._context.clock() - link.confirmed if link.confirmed else None, reason)

    @asynccontextmanager
    async def withdrawing(self, repository: Repository, digest: Digest) -> AsyncGenerator[None]:
        """Withdraw the link if the upstream, asked in the block for the content itself, refuses it.

        By the registry's own word; once the access is to be checked, by any refusal. A link that was
        confirmed without an account holds for good.
        """
        try:
            yield
        except UpstreamError as error:
            if error.failure in FINAL:
                with suppress(StoreError):
                    await self._withdraw_refused(repository, digest, error)
            raise

    async def _withdraw_refused(self, repository: Repository, digest: Digest, error: UpstreamError) -> None:
        link = (await self._context.store.content.look_up(repository, digest)).link
        if link is None or not link.account or link.confirmed is None:
            return
        if error.final or self.ttl(repository, link) <= 0:
            await self._withdraw(repository, digest, error)

    async def _withdraw(self, repository: Repository, digest: Digest, error: UpstreamError) -> None:
        log.info("access withdrawn", repository=str(repository), digest=str(digest), reason=str(error))
        await self._context.store.metadata.links.withdraw(repository, digest)

    async def confirm_blob(
        self, repository: Repository, digest: Digest, expected: int | None = None
    ) -> int | None:
        """Ask the upstream with a HEAD whether the repository has the blob; return the size, if given.

        `expected`: as of `RegistryClient.head_blob`.
        """
        with self._refused.remembering((repository, digest)):
            ask = partial(self._confirm_blob, repository, digest, expected)
            return await self._confirming.do((repository, digest), ask, repository.upstream)

    async def _confirm_blob(self, repository: Repository, digest: Digest, expected: int | None) -> int | None:
        upstream, began = self._upstreams[repository.upstream], self._context.clock()
        size = await upstream.head_blob(repository.path, digest, expected)
        link = self._context.confirmed(upstream, repository, Link(size=size), began)
        await self._context.store.metadata.links.add(repository, digest, link)
        return size

    async def _reason_unasked(self, repository: Repository, digest: Digest, link: Link) -> str | None:
        """Ask about a link; return None once it is confirmed, and otherwise why there was no answer."""
        key, upstream = (repository, digest), self._upstreams[repository.upstream]
        ask = partial(self._ask, repository, digest, link)
        if not upstream.health.available:
            if upstream.health.allows_request and not self._asking.running(key):
                self._context.tasks.spawn(self._ask_quietly(key, ask), name=f"recheck {digest}")
            return f"{upstream.name} has not answered lately"
        if (reason := self._unanswered.get(key)) is not None:
            return reason
        try:
            async with asyncio.timeout(self._fallback_after):
                await self._asking.do(key, ask, upstream.name)
        except TimeoutError:
            reason = f"{upstream.name} did not answer within {self._fallback_after:g} s"
        except UpstreamError as error:
            if error.failure in FINAL:
                raise
            reason = str(error)
            self._unanswered.put(key, reason)
        return reason

    async def _ask_quietly(self, key: tuple[Repository, Digest], ask: Callable[[], Awaitable[None]]) -> None:
        """Ask for the next client; errors are ignored, because no client waits."""
        with suppress(UpstreamError, StoreError):
            await self._asking.do(key, ask, key[0].upstream)

    async def _ask(self, repository: Repository, digest: Digest, link: Link) -> None:
        """Ask the upstream, unless another process has just done so; withdraw a link that it refuses."""
        store, upstream = self._context.store, self._upstreams[repository.upstream]
        known = await store.metadata.links.read_again(repository, digest)
        if known is not None and known.confirmed is not None and self.ttl(repository, known) > 0:
            return
        began = self._context.clock()
        try:
            if link.media_type is None:
                await upstream.head_blob(repository.path, digest, link.size)
            else:
                also = () if link.media_type in ACCEPT else (link.media_type,)
                info = await upstream.head_manifest(repository.path, digest, also)
                if info.digest not in (None, digest):
                    raise UpstreamError(Failure.INVALID, f"{repository} answered {info.digest} for {digest}")
        except UpstreamError as error:
            await self._keep_or_withdraw(repository, digest, known or link, error)
            raise
        self._gone.note_back(repository, digest, None if known is None else known.gone)
        confirmed = self._context.confirmed(upstream, repository, replace(known or link, gone=None), began)
        await store.metadata.links.add(repository, digest, confirmed)

    async def _keep_or_withdraw(
        self, repository: Repository, digest: Digest, link: Link, error: UpstreamError
    ) -> None:
        """Withdraw a link that the upstream refuses; raise GoneUpstream if its content is kept."""
        if self._gone.is_gone(error) and (
            gone := await self._gone.keep_link(repository, digest, link, error)
        ):
            raise GoneUpstream(error, gone) from error
        if error.failure in FINAL:
            await self._withdraw(repository, digest, error)
