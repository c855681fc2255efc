"""A fill beside other mirrors: the object store first, then the upstream, for all of them if possible.

1. A link that this mirror's own upstream has confirmed, or confirms now, opens the blob (invariant 5): the
   object store has blobs by digest, and what a mirror may serve is decided by its own links alone.
2. If the object store has the blob, it comes from there, as from any source: by ranges, verified.
3. Else this mirror claims the blob. With the claim it fetches from the upstream, and writes the blob behind.
4. A failing object store or coordinator changes nothing but where the bytes come from.
"""

from collections.abc import Callable

from msgspec.structs import replace

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.shared.tier import FillClaim, SharedTier
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Link
from mirror.transfer.context import TransferContext
from mirror.transfer.fill import Fill, Publish
from mirror.transfer.shared.publisher import Publisher
from mirror.transfer.shared.tier_source import TieredUpstream, TierSource
from mirror.upstream.errors import UpstreamError
from mirror.upstream.upstream import Upstream
from mirror.util.callbacks import ignore
from mirror.util.log import get_logger
from mirror.util.slots import SlotPool

log = get_logger(__name__)

MakeFill = Callable[[Upstream], Fill]


class SharedTransfers:
    """The shared tier for all fills; made once by the composition root."""

    def __init__(self, tier: SharedTier, context: TransferContext, total: SlotPool) -> None:
        self.tier = tier
        self.source = TierSource(tier, context.metrics, total)
        self.publisher = Publisher(tier, context.store, context.tasks, context.metrics)
        self._context = context

    def fill(
        self, upstream: Upstream, repository: Repository, digest: Digest, make: Callable[[Upstream], Fill]
    ) -> "SharedFill":
        """Return the fill of a blob; `make` makes one that fetches from an upstream."""
        return SharedFill(self, self._context, upstream, (repository, digest), make)


class SharedFill:
    """A fill that looks in the object store first; `run` is called once."""

    def __init__(
        self,
        shared: SharedTransfers,
        context: TransferContext,
        upstream: Upstream,
        about: tuple[Repository, Digest],
        make_fill: MakeFill,
    ) -> None:
        self._shared = shared
        self._context = context
        self._upstream = upstream
        self._repository, self._digest = about
        self._make_fill = make_fill
        self._fill: Fill | None = None
        self._claim: FillClaim | None = None
        self._left_to_another = False  # another mirror fetches the blob, and writes it behind
        self.on_queue: Callable[[bool], object] = ignore

    async def run(self, publish: Publish) -> None:
        """Fill the blob. Raises UpstreamError or StoreError."""
        in_tier = False
        try:
            in_tier = await self._find()
            self._fill = self._make_fill(self._tiered() if in_tier else self._upstream)
            self._fill.on_queue = self.on_queue
            await self._fill.run(publish)
            self._settle(in_tier=in_tier)
        finally:
            if in_tier and self._shared.source.is_corrupt(self._digest):
                await self._shared.tier.remove(self._digest)
            if self._claim is not None:
                self._claim.release()

    @property
    def unanswered(self) -> str | None:
        return None if self._fill is None else self._fill.unanswered

    @property
    def brief(self) -> bool:
        return False

    @property
    def urgent(self) -> bool:
        return self._fill is not None and self._fill.urgent

    @property
    def parked(self) -> bool:
        return self._fill is not None and self._fill.parked

    def hurry(self) -> None:
        """Hurry the fill; one that is made later knows by itself that a client waits."""
        if self._fill is not None:
            self._fill.hurry()

    def defer(self) -> None:
        if self._fill is not None:
            self._fill.defer()

    async def _find(self) -> bool:
        """Return whether the object store has the blob for this repository; else claim it, if possible."""
        tier = self._shared.tier
        if await self._has():
            return True
        claim = await tier.claim(self._digest)
        if not isinstance(claim, FillClaim):
            self._left_to_another = claim is not None
            return False
        self._claim = claim
        # The holder before this one may have written it since.
        return await self._has()

    async def _has(self) -> bool:
        if not self._shared.source.trusts(self._digest):
            return False
        return await self._shared.tier.find(self._digest) is not None and await self._opens()

    async def _opens(self) -> bool:
        """Return whether the upstream has confirmed the link, lately or now."""
        store, upstream = self._context.store, self._upstream
        account = upstream.uses_account(self._repository.path)
        try:
            link = (await store.look_up(self._repository, self._digest)).link
            confirmed = link is not None and link.confirmed is not None and link.account == account
            if link is not None and confirmed and self._context.link_ttl(upstream, link) > 0:
                return True
            began, claimed = self._context.clock(), None if link is None else link.size
            size = await upstream.head_blob(self._repository.path, self._digest, claimed)
            known = replace(link, size=size) if link is not None else Link(size=size)
            found = self._context.confirmed(upstream, self._repository, known, began)
            await store.links.add(self._repository, self._digest, found)
        except (UpstreamError, StoreError) as error:
            log.debug("shared tier not used", digest=str(self._digest), reason=str(error))
            return False
        return True

    def _tiered(self) -> TieredUpstream:
        return TieredUpstream(self._upstream, self._shared.source, self._digest)

    def _settle(self, *, in_tier: bool) -> None:
        """Count the fill, and write the blob behind if the object store has not got it, or has it wrong."""
        if in_tier and not self._shared.source.is_corrupt(self._digest):
            self._context.metrics.shared_fills.labels("tier").inc()
            return
        alone = self._claim is None
        self._context.metrics.shared_fills.labels("alone" if alone else "upstream").inc()
        if not self._left_to_another:
            claim, self._claim = self._claim, None
            self._shared.publisher.add(self._digest, claim)
