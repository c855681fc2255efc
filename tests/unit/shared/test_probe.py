"""The probe of a bucket, with stores that leave something out."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.errors import TierError
from mirror.shared.interfaces import TierRange
from mirror.shared.memory import MemoryObjects, MemoryTier
from mirror.shared.probe import probe
from mirror.shared.s3 import S3Objects
from tests.engines import Engine, bucket_of, rclone, running, settings_of


class Bucket(MemoryTier, MemoryObjects):
    """A store in memory that does what the test says."""

    def __init__(self) -> None:
        MemoryTier.__init__(self)
        MemoryObjects.__init__(self)
        self.left_out: set[str] = set()
        self.quoted = True

    def unquote_versions(self) -> None:
        self.quoted = False

    async def create(self, key: str, data: bytes) -> bool:
        if "If-None-Match" in self.left_out:
            await self.delete(key)
        return await super().create(key, data)

    async def replace(self, key: str, data: bytes, version: str) -> bool:
        if "quotes" in self.left_out and self.quoted:
            return False
        if "If-Match" in self.left_out:
            return True
        return await super().replace(key, data, version)

    @asynccontextmanager
    async def open_range(self, digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        span = Span(0, 2**40) if "ranges" in self.left_out else span
        async with super().open_range(digest, span) as part:
            yield part


async def test_probe_of_a_whole_store() -> None:
    """Nothing is missing, and nothing is left behind."""
    store = Bucket()
    fitness = await probe(store, leases=True)
    assert (fitness.reads, fitness.leases) == (None, None)
    assert [each async for each in store.list()] == []


@pytest.mark.parametrize("left_out", ["If-None-Match", "If-Match"])
async def test_probe_of_a_store_without_conditions(left_out: str) -> None:
    """Blobs can be shared, leases need a Redis; who has one is told nothing."""
    store = Bucket()
    store.left_out.add(left_out)
    fitness = await probe(store, leases=True)
    assert fitness.reads is None
    assert f"ignores {left_out}," in str(fitness.leases)
    assert "Redis" in str(fitness.leases)
    assert (await probe(store, leases=False)).leases is None


async def test_probe_of_a_store_that_compares_bare_etags() -> None:
    """Ceph's radosgw wants If-Match without the quotes that it sends: it gets that."""
    store = Bucket()
    store.left_out.add("quotes")
    assert (await probe(store, leases=True)).leases is None
    assert not store.quoted


async def test_probe_of_a_store_without_ranges() -> None:
    """The whole blob in place of a range is no range."""
    store = Bucket()
    store.left_out.add("ranges")
    assert "status 206" in str((await probe(store, leases=True)).reads)


@pytest.fixture(scope="module")
def unfit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(rclone(tmp_path_factory.mktemp("rclone"))) as engine:
        yield engine


async def test_probe_refuses_rclone(unfit: Engine) -> None:
    """The real program: neither ranges nor conditions, each with a message that says what to do."""
    settings = settings_of(unfit)
    store = S3Objects(settings, bucket_of(settings))
    fitness = await probe(store, leases=True)
    await store.close()
    assert "use another one" in str(fitness.reads)
    assert "set coordinator" in str(fitness.leases)


async def test_probe_of_a_store_that_is_away_raises() -> None:
    """An answer that is missing says nothing about what the store can do."""
    settings = settings_of(Engine("nobody", [], 9, "s3"), timeout=1)
    store = S3Objects(settings, bucket_of(settings))
    with pytest.raises(TierError):
        await probe(store, leases=True)
    await store.close()
