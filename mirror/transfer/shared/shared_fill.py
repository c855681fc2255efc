"""A fill beside other mirrors: the shared tier first, then the upstream, for all of them if possible.

1. A link that this mirror's own upstream has confirmed, or confirms now, opens the blob (invariant 5): the
   tier has blobs by digest, and what a mirror may serve is decided by its own links alone.
2. If the object store has the blob, it comes from there, as from any source: by ranges, verified.
3. Else one mirror claims the blob. It fetches from the upstream, and writes the blob behind.
4. The others follow that mirror's file meanwhile. If it dies, one of them has the claim, and goes on.
5. Failing engines and peers change nothing but where the bytes come from.
"""

from contextlib import suppress

from msgspec.structs import asdict, replace

from mirror.access.peer_proof import PeerProof
from mirror.oci.digest import Digest
from mirror.shared.health import limited
from mirror.shared.record_book import RecordBook
from mirror.shared.tier import SharedTier
from mirror.store.errors import StoreError
from mirror.store.metadata.index import Link
from mirror.transfer.context import TransferContext
from mirror.transfer.fill import Fill
from mirror.transfer.shared.coordination import Coordination
from mirror.transfer.shared.lead_window import LeadLimits
from mirror.transfer.shared.leading import LeadingFills
from mirror.transfer.shared.peers import PeerClients
from mirror.transfer.shared.publisher import Publisher
from mirror.transfer.shared.shared_source import SharedSource, SharedUpstream, TierClient
from mirror.transfer.shared.shared_words import SharedWords
from mirror.transfer.shared.store_turns import StoreTurns, TurnWindow
from mirror.transfer.shared.store_urls import StoreURLs
from mirror.transfer.transfer import Transfer
from mirror.upstream.errors import UpstreamError
from mirror.upstream.peers.peer_client import PeerClient
from mirror.upstream.upstream import Upstream
from mirror.upstream.upstream_set import UpstreamSet
from mirror.util.log import get_logger
from mirror.util.ttl_cache import TTLCache

log = get_logger(__name__)

# How long a blob that was wrong in the tier is not read from there, in seconds.
CORRUPT_SECONDS = 3600.0
MAX_CORRUPT = 10_000

# Chunks of what other mirrors may follow are not longer, in bytes: several of them make the window by which
# the mirror that fetches is ahead of the others.
MOST_CHUNK = 1024 * 1024

# Seconds without a byte after which another mirror is taken for dead: longer than it takes for its lease to
# lapse, so that a new holder is there to follow.
PEER_SILENCE = 15.0


class SharedTransfers:
    """The shared tier for all fills; made once by the composition root."""

    def __init__(
        self,
        tier: SharedTier,
        context: TransferContext,
        upstreams: UpstreamSet,
        book: RecordBook | None = None,
        proof: PeerProof | None = None,
        limit: float = 2.0,
    ) -> None:
        """`proof`: of mirrors that follow each other; None where none does. `limit`: seconds to connect.

        `book`: the words of upstreams; None for mirrors without a secret.
        """
        self.tier = tier
        self.context = context
        self.total = upstreams.slots
        self.proof = proof
        self.leading = LeadingFills()
        self.turns = StoreTurns()
        self.client = TierClient(tier, context.metrics)
        self.publisher = Publisher(tier, context.store, context.tasks, context.metrics)
        is_private = lambda each: upstreams[each.upstream].uses_account(each.path)  # noqa: E731
        self.words = SharedWords(tier, book, self.publisher, is_private, context.tasks)
        self.urls = StoreURLs(tier, self.words, context, upstreams)
        self.peers: PeerClients | None = None
        self.corrupt: TTLCache[Digest, bool] = TTLCache(CORRUPT_SECONDS, MAX_CORRUPT)
        if proof is not None:
            metrics = context.metrics
            make = lambda url: PeerClient(url, proof, metrics, connect_timeout=limit, silence=PEER_SILENCE)  # noqa: E731
            self.peers = PeerClients(make, context.tasks)

    def fill(self, upstream: Upstream, transfer: Transfer) -> "SharedFill":
        """Return the fill of a blob."""
        return SharedFill(self, upstream, transfer)

    def trusts(self, digest: Digest) -> bool:
        """Return whether the blob may be read from the object store."""
        return self.tier.usable and self.corrupt.get(digest) is None

    async def close(self) -> None:
        """Close all connections."""
        if self.peers is not None:
            await self.peers.close()
        await self.client.close()
        await self.tier.close()


class SharedFill:
    """A fill that looks in the shared tier first; `run` is called once."""

    def __init__(self, shared: SharedTransfers, upstream: Upstream, transfer: Transfer) -> None:
        self._shared = shared
        settings = shared.context.settings
        settings = replace(settings, chunk_size=min(settings.chunk_size, MOST_CHUNK))
        limits = LeadLimits(
            **asdict(shared.context.limits),
            leads=lambda: self._coordination.claim,
            store_span=self._store_span,
            line=shared.client.line,
        )
        self._context = replace(shared.context, settings=settings, limits=limits)
        self._upstream = upstream
        self._transfer = transfer
        self._repository = transfer.repository
        self._digest = transfer.digest
        self._source: SharedSource | None = None
        follows = shared.peers is not None
        self._coordination = Coordination(shared.tier, self._digest, shared.trusts, follows=follows)

    async def run(self) -> None:
        """Fill the blob. Raises UpstreamError or StoreError."""
        try:
            self._shared.turns.add(self._transfer, self._may_read_store)
            with self._shared.leading.leading(self._transfer):
                origin = await self._origin()
                if self._coordination.claim is not None:
                    self._shared.publisher.follow(self._transfer)
                await Fill(self._context, origin, self._transfer).run()
            await self._settle()
        finally:
            self._shared.turns.remove(self._transfer)
            if self._source is not None and self._source.is_wrong:
                await self._remove_wrong()
            if self._coordination.claim is not None:
                self._coordination.claim.release()

    async def _origin(self) -> Upstream:
        """Return the upstream, with the tier in front of it if that has the blob and the link opens it."""
        with limited(self._shared.tier.waits()):
            place = await self._coordination.place()
            opens = place is not None and await self._opens()
        if place is not None and not opens:
            self._coordination.go_alone()
            place = None
        if place is None:
            return self._upstream
        shared = self._shared
        self._source = SharedSource(shared.client, self._coordination, shared.peers, shared.total)
        if place.peer is not None:
            self._source.follow()
        else:
            await self._take_turn()
        return SharedUpstream(self._upstream, self._source)

    async def _take_turn(self) -> None:
        turns, transfer = self._shared.turns, self._transfer
        transfer.window = TurnWindow(turns, transfer, transfer.window)
        await turns.wait(transfer)

    def _may_read_store(self) -> bool:
        return self._coordination.may_read_store and not (self._source is not None and self._source.is_wrong)

    def _store_span(self) -> float:
        return self._source.store_span if self._source is not None else 0.0

    async def _opens(self) -> bool:
        """Return whether the upstream has confirmed the link, lately or now."""
        store, upstream = self._context.store, self._upstream
        account = upstream.uses_account(self._repository.path)
        try:
            link = (await store.content.look_up(self._repository, self._digest)).link
            confirmed = link is not None and link.confirmed is not None and link.account == account
            if link is not None and confirmed and self._context.link_ttl(upstream, link) > 0:
                return True
            if (told := await self._shared.words.find_link(self._repository, self._digest)) is not None:
                await store.metadata.links.add(self._repository, self._digest, told)
                return True
            began, claimed = self._context.clock(), None if link is None else link.size
            size = await upstream.head_blob(self._repository.path, self._digest, claimed)
            known = replace(link, size=size) if link is not None else Link(size=size)
            found = self._context.confirmed(upstream, self._repository, known, began)
            await store.metadata.links.add(self._repository, self._digest, found)
        except (UpstreamError, StoreError) as error:
            log.debug("shared tier not used", digest=str(self._digest), reason=str(error))
            return False
        return True

    async def _remove_wrong(self) -> None:
        """Remove the blob from the object store, which has it wrong, or a mirror that was followed."""
        log.warning("blob wrong in the shared tier, removed", digest=str(self._digest))
        self._shared.corrupt.put(self._digest, True)
        await self._shared.tier.remove(self._digest)

    async def _settle(self) -> None:
        """Count the fill, and write the blob behind if no other mirror does, and the store has it not."""
        coordination, source = self._coordination, self._source
        shared = source is not None and not source.is_wrong and coordination.claim is None
        outcome = "alone" if coordination.claim is None else "upstream"
        if shared and source is not None:
            outcome = "peer" if source.was_followed else "tier"
        self._context.metrics.shared_fills.labels(outcome).inc()
        if not shared:
            await self._tell()
        if not shared and not coordination.left_to_another:
            claim, coordination.claim = coordination.claim, None
            self._shared.publisher.add(self._digest, claim)

    async def _tell(self) -> None:
        """Tell the other mirrors that the upstream has given the blob."""
        with suppress(StoreError):
            link = (await self._context.store.content.look_up(self._repository, self._digest)).link
            if link is not None:
                self._shared.words.add_link(self._repository, self._digest, link)
