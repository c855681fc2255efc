"""Tokens that another mirror of the tier has revoked."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from mirror.access.tokens import TokenEntry, digest_of
from mirror.shared.memory import MemoryObjects
from mirror.shared.tier import SharedTier
from mirror.shared.upkeep.revocations import Revocations
from mirror.shared.upstream_word import Seal
from mirror.store.executor import DiskExecutor
from mirror.store.invalidation import Epoch
from mirror.store.tokens.token_store import TokenStore
from mirror.transfer.shared.revoked_tokens import RevokedTokens

SEAL = Seal("a-secret-of-all-mirrors")


class Tier:
    """A tier that can be used, or not."""

    usable = True


class Disk:
    """Work on the disk, in a thread."""

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.to_thread(work, *args)


DISK = cast(DiskExecutor, Disk())


def opened(folder: Path, *names: str) -> tuple[TokenStore, Epoch]:
    """Open the tokens of a folder, and create some."""
    folder.mkdir(exist_ok=True)
    epoch = Epoch(folder / "generation")
    tokens = TokenStore(folder, epoch)
    for name in names:
        tokens.add(TokenEntry(name, digest_of(name), 1.0))
    return tokens, epoch


async def mirror(folder: Path, objects: MemoryObjects, tier: Tier) -> tuple[RevokedTokens, TokenStore, Epoch]:
    """A mirror with three tokens, of the same file as any other."""
    tokens, epoch = await asyncio.to_thread(opened, folder, "one", "two", "three")
    return RevokedTokens(cast(SharedTier, tier), Revocations(objects, SEAL), tokens), tokens, epoch


async def names(tokens: TokenStore) -> list[str]:
    return [each.name for each in await asyncio.to_thread(tokens.all)]


async def test_revoked_token_is_removed_by_all_mirrors(tmp_path: Path) -> None:
    """Processes are told by the epoch; a mirror that knows it tells it again to a bucket that has lost it."""
    objects, tier = MemoryObjects(), Tier()
    one, tokens, _ = await mirror(tmp_path / "a", objects, tier)
    two, others, epoch = await mirror(tmp_path / "b", objects, tier)
    seen = epoch.access_changes()
    assert await asyncio.to_thread(tokens.remove, "two")
    assert (await one.sync(DISK), await two.sync(DISK), await two.sync(DISK)) == (0, 1, 0)
    assert await names(others) == ["one", "three"]
    assert epoch.access_changes() != seen
    three, late, _ = await mirror(tmp_path / "c", emptied := MemoryObjects(), tier)
    again = RevokedTokens(cast(SharedTier, tier), Revocations(emptied, SEAL), others)
    assert (await again.sync(DISK), await three.sync(DISK)) == (0, 1)
    assert await names(late) == ["one", "three"]


async def test_revoked_token_waits_for_a_tier_that_is_away(tmp_path: Path) -> None:
    """Nothing is asked meanwhile, and nothing forgotten, a restart included."""
    objects, tier = MemoryObjects(), Tier()
    one, tokens, _ = await mirror(tmp_path / "a", objects, tier)
    tier.usable = False
    await asyncio.to_thread(tokens.remove, "one")
    assert await one.sync(DISK) == 0
    assert not objects._objects
    tier.usable = True
    restarted, _ = await asyncio.to_thread(opened, tmp_path / "a")
    assert await asyncio.to_thread(restarted.revoked) == [digest_of("one")]
    await RevokedTokens(cast(SharedTier, tier), Revocations(objects, SEAL), restarted).sync(DISK)
    assert len(objects._objects) == 1


async def test_revoked_tokens_of_a_mirror_without_any_ask_nothing(tmp_path: Path) -> None:
    """Most mirrors have no tokens, and list nothing every ten seconds."""
    tokens, _ = await asyncio.to_thread(opened, tmp_path / "a")
    failing = cast(Revocations, None)
    assert await RevokedTokens(cast(SharedTier, Tier()), failing, tokens).sync(DISK) == 0
