"""Making of the shared tier from its configuration. Imported where a bucket is configured."""

from msgspec.structs import replace

from mirror.access.peer_proof import PeerProof
from mirror.config.tier.shared import SharedSettings
from mirror.shared import engines as shared_engines
from mirror.shared.record_book import RecordBook
from mirror.shared.tier import SharedTier
from mirror.shared.upkeep.keeper import TierKeeper
from mirror.shared.upkeep.ledger import UpkeepLedger
from mirror.shared.upkeep.plan import TierLimits
from mirror.shared.upkeep.revocations import Revocations
from mirror.shared.upkeep.sweeper import UploadSweeper
from mirror.shared.upstream_word import Seal
from mirror.store.store import Store
from mirror.store.tokens.token_store import TokenStore
from mirror.transfer.context import TransferContext
from mirror.transfer.shared.revoked_tokens import RevokedTokens
from mirror.transfer.shared.shared_fill import SharedTransfers
from mirror.transfer.shared.upkeep import TierUpkeep
from mirror.upstream.upstream_set import UpstreamSet


def open_shared(
    settings: SharedSettings, context: TransferContext, upstreams: UpstreamSet, store: Store
) -> tuple[SharedTransfers, TransferContext]:
    """Return the tier, which is probed in the background, and the context with it before the upstreams."""
    engines = shared_engines.open_engines(settings)
    tier = SharedTier(engines, settings.timeout, context.metrics)
    tier.start()
    book = proof = seal = None
    if settings.peers_secret is not None:
        secret = settings.peers_secret.get_secret_value()
        proof, seal = PeerProof(secret), Seal(secret)
        book = RecordBook(tier, engines, seal, context.tasks, context.clock)
    if engines.small is not None:
        ledger = UpkeepLedger(engines.small)
        sweeper = UploadSweeper(engines.uploads, engines.leases) if engines.uploads is not None else None
        keeper = TierKeeper(engines.objects, engines.small, ledger, context.clock, sweeper)
        limits = TierLimits(settings.max_size, settings.max_age)
        parts = (ledger, keeper)
        upkeep = TierUpkeep(tier, engines.leases, parts, limits, context.metrics, context.clock)
        revoked = None
        if seal is not None:
            tokens = TokenStore(store.folder.path, store.folder.epoch)
            revoked = RevokedTokens(tier, Revocations(engines.small, seal), tokens)
        context.tasks.spawn(upkeep.run(store, revoked), name="upkeep of the shared tier")
    shared = SharedTransfers(tier, context, upstreams, book, proof, settings.timeout)
    return shared, replace(context, shared_fills=shared, shared_words=shared.words)
