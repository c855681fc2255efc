"""Room for what is pushed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.reference import Repository
from mirror.store.errors import NoRoom
from mirror.store.hosted.hosted_store import HostedStore
from mirror.store.hosted.pushes import NO_QUOTAS
from mirror.store.store import Store

APP, OTHER = Repository("office", "app"), Repository("office", "other")
UPSTREAM = Repository("docker.io", "library/x")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "cache")
    yield store
    await store.close()


@pytest.fixture
async def hosted(store: Store) -> HostedStore:
    found = HostedStore(store)
    await found.read(found.index.names.register, ["office"], [])
    return found


async def test_room_is_refused_before_the_body(hosted: HostedStore) -> None:
    await hosted.room.check(APP, 1000, NO_QUOTAS)
    with pytest.raises(NoRoom):
        await hosted.room.check(APP, 2**62, NO_QUOTAS)
