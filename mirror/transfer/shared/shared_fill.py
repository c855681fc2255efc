"""A fill beside other mirrors: the object store first, then the upstream, for all of them if possible.

1. A link that this mirror's own upstream has confirmed, or confirms now, opens the blob (invariant 5): the
   object store has blobs by digest, and what a mirror may serve is decided by its own links alone.
2. If the object store has the blob, it comes from there, as from any source: by ranges, verified.
3. Else this mirror claims the blob. With the claim it fetches from the upstream, and writes the blob behind.
4. A failing object store or coordinator changes nothing but where the bytes come from.
"""

from msgspec.structs import replace

from mirror.shared.tier import FillClaim, SharedTier
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Link
from mirror.transfer.context import TransferContext
from mirror.transfer.fill import Fill
from mirror.transfer.shared.publisher import Publisher
from mirror.transfer.shared.tier_source import TieredUpstream, TierSource
from mirror.transfer.transfer import Transfer
from mirror.upstream.errors import UpstreamError
from mirror.upstream.upstream import Upstream
from mirror.util.log import get_logger
from mirror.util.slots import SlotPool

log = get_logger(__name__)


class SharedTransfers:
    """The shared tier for all fills; made once by the composition root."""

    def __init__(self, tier: SharedTier, context: TransferContext, total: SlotPool) -> None:
        self.tier = tier
        self.source = TierSource(tier, context.metrics, total)
        self.publisher = Publisher(tier, context.store, context.tasks, context.metrics)
        self._context = context

    def fill(self, upstream: Upstream, transfer: Transfer) -> "SharedFill":
        """Return the fill of a blob."""
        return SharedFill(self, self._context, upstream, transfer)


class SharedFill:
    """A fill that looks in the object store first; `run` is called once."""

    def __init__(
        self, shared: SharedTransfers, context: TransferContext, upstream: Upstream, transfer: Transfer
    ) -> None:
        self._shared = shared
        self._context = context
        self._upstream = upstream
        self._transfer = transfer
        self._repository = transfer.repository
        self._digest = transfer.digest
        self._claim: FillClaim | None = None
        self._left_to_another = False  # another mirror fetches the blob, and writes it behind

    async def run(self) -> None:
        """Fill the blob. Raises UpstreamError or StoreError."""
        in_tier = False
        try:
            in_tier = await self._find()
            upstream = self._tiered() if in_tier else self._upstream
            await Fill(self._context, upstream, self._transfer).run()
            self._settle(in_tier=in_tier)
        finally:
            if in_tier and self._shared.source.is_corrupt(self._digest):
                await self._shared.tier.remove(self._digest)
            if self._claim is not None:
                self._claim.release()

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
