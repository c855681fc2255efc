"""Writing behind: what is here goes to the object store, once, and later if the store fails now."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.config.types import Amount
from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.shared.memory import MemoryLeases, MemoryTier
from mirror.shared.tier import FillClaim
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link
from mirror.store.store import Store
from mirror.transfer.shared.publisher import Publisher
from mirror.util.tasks import Tasks
from tests.unit.shared.test_tier import started, tier_of

DATA = b"published" * 1000
DIGEST = Digest.of(DATA)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with one blob."""
    settings = CacheSettings(dir=tmp_path, min_free=Amount())
    store = await Store.open(tmp_path, settings)
    lease = await store.transfers.leases.acquire_blob(DIGEST)
    assert lease is not None
    await store.transfers.put_small_blob(Repository("u", "x"), lease, Content(Link(size=len(DATA)), DATA))
    yield store
    await store.close()


async def test_publisher_writes_what_is_here_and_frees_the_claim(store: Store, tasks: Tasks) -> None:
    """The claim holds until the blob is there; a digest that is not here is dropped."""
    objects = MemoryTier()
    tier = await started(tier_of(objects, MemoryLeases(), limit=5))
    publisher = Publisher(tier, store, tasks, Metrics())
    claim = await tier.claim(DIGEST)
    assert isinstance(claim, FillClaim)
    publisher.add(DIGEST, claim)
    publisher.add(Digest.of(b"absent"), None)
    while await tier.holder(DIGEST) is not None:  # noqa: ASYNC110  # written behind
        await asyncio.sleep(0)
    found = await objects.stat(DIGEST)
    assert found is not None
    assert found.size == len(DATA)
    await tier.close()


async def test_publisher_waits_for_a_store_that_fails(
    store: Store, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim is freed at once, so that others may fetch; the blob is written once the store answers."""
    monkeypatch.setattr("mirror.transfer.shared.publisher.RETRY_SECONDS", 0.01)
    objects = MemoryTier()
    tier = await started(tier_of(objects, limit=5))
    tier.objects.record_failure("away")
    publisher = Publisher(tier, store, tasks, Metrics())
    claim = await tier.claim(DIGEST)
    assert isinstance(claim, FillClaim)
    publisher.add(DIGEST, claim)
    while await tier.holder(DIGEST) is not None:  # noqa: ASYNC110  # freed in the background
        await asyncio.sleep(0)
    assert await objects.stat(DIGEST) is None
    tier.objects.record_success()
    while await objects.stat(DIGEST) is None:  # noqa: ASYNC110  # written behind
        await asyncio.sleep(0.01)
    await tier.close()
