"""The links for the event loop: written, read past memory, withdrawn in all processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.config.schema import CacheSettings
from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.blobs.entries import Origin
from mirror.store.memory_cache import Content
from mirror.store.metadata.index import Link
from mirror.store.store import Store

X = Repository("docker.io", "library/x")
DATA = b"layer"
LAYER = Digest.of(DATA)
OLD, NEW = Link(size=5, confirmed=1.0, account=True), Link(size=5, confirmed=2.0, account=True)


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """Two stores on one folder, with memory, as two workers have them."""
    settings = CacheSettings(dir=tmp_path / "cache")
    first, second = [await Store.open(tmp_path / "cache", settings) for _ in range(2)]
    lease = await first.transfers.leases.acquire_blob(LAYER)
    assert lease is not None
    await first.metadata.links.add(X, LAYER, OLD)
    await first.transfers.put_small_blob(X, lease, Content(OLD, DATA), Origin.PRIVATE)
    yield first, second
    await first.close()
    await second.close()


async def test_link_of_another_process_is_read_past_memory(stores: tuple[Store, Store]) -> None:
    """Content in memory keeps its old link until the link is read again."""
    first, second = stores
    assert (await first.content.open_blob(X, LAYER)).link == OLD
    await second.metadata.links.add(X, LAYER, NEW)
    assert (await first.content.open_blob(X, LAYER)).link == OLD
    assert await first.metadata.links.read_again(X, LAYER) == NEW
    assert (await first.content.open_blob(X, LAYER)).link == NEW


async def test_withdrawn_link_is_gone_in_every_process(stores: tuple[Store, Store]) -> None:
    """The content stays, and no repository has it."""
    first, second = stores
    for each in stores:
        assert (await each.content.open_blob(X, LAYER)).data == DATA
    await second.metadata.links.withdraw(X, LAYER)
    for each in (first, second):
        local = await each.content.open_blob(X, LAYER)
        assert (local.link, local.present, local.data) == (None, True, None)
        assert await each.metadata.links.read_again(X, LAYER) is None
