"""Limits of repositories for the event loop; tests/contract/test_cache_rules.py has whole mirrors."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.cache_rules import CacheRuleSettings
from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.store.blobs.entries import EvictedBlob, EvictionReason
from mirror.store.errors import NoRoom
from mirror.store.store import Store
from tests.fakes.cached import X, put_image

MIB = 1024 * 1024
LAYERS = [bytes([number]) * 900_000 for number in range(2)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    rule = CacheRuleSettings.model_validate({"repositories": str(X), "max_blob": MIB, "max_share": "1500KiB"})
    settings = CacheSettings.model_validate({"dir": tmp_path / "cache", "rules": (rule,)})
    store = await Store.open(tmp_path / "cache", settings)
    yield store
    await store.close()


async def test_shares_check_refuses_what_is_too_large(store: Store) -> None:
    """An unknown size is refused once it is known."""
    digest = Digest.of(b"x")
    await store.room.shares.check(X, digest, None)
    await store.room.shares.check(X, digest, MIB)
    with pytest.raises(NoRoom, match=r"max_blob is 1048576 in \[\[cache.rules\]\]"):
        await store.room.shares.check(X, digest, MIB + 1)


async def test_shares_report_what_they_evict(store: Store) -> None:
    """The metrics and the log of evictions hear of it, with the reason."""
    reported: list[EvictedBlob] = []
    store.room.on_evicted = reported.extend
    await asyncio.to_thread(put_image, store.folder, X, "1", LAYERS)
    await store.room.shares.evict_excess(X, Digest.of(LAYERS[1]))
    assert [(each.digest, each.reason) for each in reported] == [(Digest.of(LAYERS[0]), EvictionReason.SHARE)]
