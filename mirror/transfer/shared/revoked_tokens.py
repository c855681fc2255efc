"""Tokens that are revoked at one mirror of a tier are refused by all that have them.

Mirrors behind one name have the same tokens, by the same file. One that finds a revocation in the bucket
removes the token from its own file, which the access epoch tells to all its processes at once. So nothing is
asked while a request is answered, and what was removed stays so when the bucket is gone.
"""

from mirror.shared.tier import SharedTier
from mirror.shared.upkeep.revocations import Revocations
from mirror.store.executor import DiskExecutor
from mirror.store.tokens.token_store import TokenStore
from mirror.util.log import get_logger

log = get_logger(__name__)


class RevokedTokens:
    """The revocations of one cache folder and those of the others. For the elected process."""

    def __init__(self, tier: SharedTier, revocations: Revocations, tokens: TokenStore) -> None:
        self._tier = tier
        self._revocations = revocations
        self._tokens = tokens

    async def sync(self, executor: DiskExecutor) -> int:
        """Tell the own revocations, and remove what others have revoked. Raises TierError, OSError."""
        if not self._tier.usable:
            return 0
        tokens = [each.sha256 for each in await executor.run(self._tokens.all)]
        mine = await executor.run(self._tokens.revoked)
        if not tokens and not mine:
            return 0
        gone = await self._revocations.sync(mine, tokens)
        removed = await executor.run(self._tokens.remove_revoked, gone) if gone else 0
        if removed:
            log.warning("tokens removed that another mirror has revoked", tokens=removed)
        return removed
