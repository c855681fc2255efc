"""One suite for all engines of the shared tier: the twins in memory, and real programs."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.oci.reference import Repository, Tag
from mirror.shared.bucket_leases import BucketLeases
from mirror.shared.bucket_records import BucketRecords
from mirror.shared.content import verified
from mirror.shared.errors import ObjectMissing, TierError, TierFault
from mirror.shared.interfaces import ConditionalObjects, Leases, ObjectTier, Records, VerifiedContent
from mirror.shared.keys import tag_key
from mirror.shared.lease_text import new_holder
from mirror.shared.memory import MemoryLeases, MemoryObjects, MemoryRecords, MemoryTier
from mirror.shared.probe import probe
from mirror.shared.redis_leases import RedisLeases
from mirror.shared.s3 import S3Objects
from tests.engines import (
    Engine,
    EngineMissing,
    bucket_of,
    found,
    moto,
    redis_server,
    running,
    seaweedfs,
    settings_of,
    valkey,
)

pytestmark = pytest.mark.slow

# More than one part of an upload, each of 5 MiB.
LARGE = os.urandom(1024 * 1024) * 11

STORES = ("memory", "seaweedfs", "moto")
REDIS = pytest.param("redis", marks=pytest.mark.needs("redis-server"))
COORDINATORS = ("memory", "bucket in memory", "seaweedfs", "moto", REDIS, "valkey")

STARTERS = {"seaweedfs": seaweedfs, "moto": moto, "redis": redis_server, "valkey": valkey}


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """The started program of this name, one for all tests of the module; None for a twin in memory."""
    start = STARTERS.get(request.param)
    if start is None:
        yield request.param
        return
    required: bool = request.config.getoption("--require-e2e")
    with running(engine_or_skip(start, tmp_path_factory.mktemp(request.param), required=required)) as engine:
        yield engine


def engine_or_skip(start: Callable[[Path], Engine], folder: Path, *, required: bool) -> Engine:
    """Return the engine; skip the test, with the reason, where it is not installed."""
    try:
        return start(folder)
    except EngineMissing as missing:
        if required:
            raise
        pytest.skip(str(missing))


@pytest.fixture
async def objects(engine: Engine | str) -> AsyncIterator[ObjectTier]:
    """An empty object store."""
    store = MemoryTier() if isinstance(engine, str) else s3_of(engine)
    yield store
    await store.close()


@pytest.fixture
async def leases(engine: Engine | str) -> AsyncIterator[Leases]:
    """A coordinator whose keys are those of this test alone."""
    if isinstance(engine, str):
        coordinator: Leases = MemoryLeases() if engine == "memory" else BucketLeases(MemoryObjects())
    elif engine.scheme == "redis":
        coordinator = RedisLeases(settings_of(engine), os.urandom(4).hex())
    else:
        coordinator = BucketLeases(s3_of(engine))
    yield coordinator
    await coordinator.close()


def s3_of(engine: Engine) -> S3Objects:
    """A client below a prefix of its own."""
    settings = settings_of(engine, prefix=os.urandom(4).hex())
    return S3Objects(settings, bucket_of(settings))


def content(data: bytes, digest: Digest | None = None) -> VerifiedContent:
    """Content in pieces of 1 MiB."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1024 * 1024):
            yield data[start : start + 1024 * 1024]

    return verified(digest or Digest.of(data), len(data), chunks)


async def read(objects: ObjectTier, digest: Digest, span: Span) -> bytes:
    async with objects.open_range(digest, span) as part:
        data = b"".join([chunk async for chunk in part.chunks])
        assert part.span.length == len(data)
        return data


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_objects_are_read_by_ranges_as_written(objects: ObjectTier) -> None:
    """A blob of several parts comes back whole, by ranges, and cut at its end."""
    digest = Digest.of(LARGE)
    await objects.put(content(LARGE))
    found = await objects.stat(digest)
    assert found is not None
    assert (found.digest, found.size) == (digest, len(LARGE))
    assert await read(objects, digest, Span(0, len(LARGE))) == LARGE
    assert await read(objects, digest, Span(5, 1_200_000)) == LARGE[5:1_200_000]
    assert await read(objects, digest, Span(len(LARGE) - 3, 2**40)) == LARGE[-3:]
    async with objects.open_range(digest, Span(1, 2)) as part:
        assert part.total == len(LARGE)


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_objects_that_are_absent_say_so(objects: ObjectTier) -> None:
    """An absent blob is None, ObjectMissing when it is read, and nothing to remove."""
    digest = Digest.of(b"absent")
    assert await objects.stat(digest) is None
    with pytest.raises(ObjectMissing):
        await read(objects, digest, Span(0, 1))
    await objects.remove(digest)


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_objects_have_no_name_before_they_are_verified(objects: ObjectTier) -> None:
    """An upload of wrong bytes raises, is never visible, and leaves the name free."""
    digest = Digest.of(LARGE)
    with pytest.raises(TierError) as caught:
        await objects.put(content(LARGE[:-1] + b"!", digest))
    assert caught.value.fault is TierFault.WRONG
    assert await objects.stat(digest) is None
    assert [each async for each in objects.list()] == []


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_objects_are_listed_and_removed(objects: ObjectTier) -> None:
    """A list has each blob once, with its size; a removed one is gone."""
    datas = [b"one", b"two", b""]
    for data in datas:
        await objects.put(content(data))
    listed = {each.digest: each.size async for each in objects.list()}
    assert listed == {Digest.of(data): len(data) for data in datas}
    await objects.remove(Digest.of(b"one"))
    assert await objects.stat(Digest.of(b"one")) is None


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_objects_are_put_by_several_at_once(objects: ObjectTier) -> None:
    """Several mirrors may publish one digest: any winner is right."""
    await asyncio.gather(*(objects.put(content(LARGE)) for _ in range(3)))
    assert await read(objects, Digest.of(LARGE), Span(0, 10)) == LARGE[:10]


@pytest.fixture
async def records(engine: Engine | str) -> AsyncIterator[Records]:
    """Records whose keys are those of this test alone."""
    if isinstance(engine, str):
        yield MemoryRecords() if engine == "memory" else BucketRecords(MemoryObjects())
    elif engine.scheme == "redis":
        coordinator = RedisLeases(settings_of(engine), os.urandom(4).hex())
        yield coordinator.records()
        await coordinator.close()
    else:
        objects = s3_of(engine)
        yield BucketRecords(objects)
        await objects.close()


@pytest.mark.parametrize("engine", COORDINATORS, indirect=True)
async def test_records_are_read_as_last_written(records: Records) -> None:
    """Any bytes, under any key of ours; one that is not there is None."""
    key, data = tag_key(Repository("[::1]:5000", "a/b.c__d"), Tag("V1.0-x_y")), bytes(range(256)) * 1024
    assert await records.get(key) is None
    await records.put(key, b"first", 3600)
    await records.put(key, data, 3600)
    assert await records.get(key) == data
    assert await records.get(key[:-1]) is None


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_small_objects_are_listed_by_their_prefix(engine: Engine | str) -> None:
    """A prefix ends at a slash; an object is there once until it is deleted, however often it was written."""
    objects = MemoryObjects() if isinstance(engine, str) else s3_of(engine)
    for key in ("uses/1/a-0", "uses/1/a-0", "uses/2/b-0", "uses2/x", "pins/a-0"):
        await objects.write(key, b"12345678")
    assert sorted([each.key async for each in objects.names("uses")]) == ["uses/1/a-0", "uses/2/b-0"]
    await objects.delete("uses/1/a-0")
    assert [each.key async for each in objects.names("uses")] == ["uses/2/b-0"]
    assert [each async for each in objects.names("absent")] == []


@pytest.mark.parametrize("engine", STORES, indirect=True)
async def test_small_objects_are_written_on_conditions(engine: Engine | str) -> None:
    """One of several creators wins; an object is replaced by who knows its version, and by nobody else."""
    objects: ConditionalObjects = MemoryObjects() if isinstance(engine, str) else s3_of(engine)
    assert await objects.read("leases/a") is None
    texts = [f"{number}".encode() for number in range(3)]
    won = await asyncio.gather(*(objects.create("leases/a", each) for each in texts))
    first = await objects.read("leases/a")
    assert first is not None
    assert [text for text, mine in zip(texts, won, strict=True) if mine] == [first.data]
    assert await objects.replace("leases/a", b"next", first.version)
    assert not await objects.replace("leases/a", b"late", first.version)
    assert not await objects.replace("leases/b", b"none", first.version)
    assert await objects.read("leases/b") is None
    second = await objects.read("leases/a")
    assert second is not None
    assert (second.data, second.version == first.version) == (b"next", False)


def test_engine_that_is_not_installed_is_a_skip_with_a_reason(tmp_path: Path) -> None:
    """A missing engine is a failure with `--require-e2e`."""

    def absent(folder: Path) -> Engine:
        return Engine("absent", [found("no-such-engine")], 0, "s3")

    with pytest.raises(pytest.skip.Exception, match="no-such-engine is not installed"):
        engine_or_skip(absent, tmp_path, required=False)
    with pytest.raises(EngineMissing):
        engine_or_skip(absent, tmp_path, required=True)


@pytest.mark.parametrize("engine", COORDINATORS, indirect=True)
async def test_lease_has_one_holder(leases: Leases) -> None:
    """One of several claims at once wins, and all are told which."""
    claims = [new_holder(f"http://10.0.0.{number}:5000") for number in range(6)]
    told = await asyncio.gather(*(leases.acquire("blob", each, 30) for each in claims))
    winner = await leases.holder("blob")
    assert winner in claims
    assert [claim for claim, holder in zip(claims, told, strict=True) if holder == claim] == [winner]
    assert {each for each in told if each.owner} == {winner}


@pytest.mark.parametrize("engine", COORDINATORS, indirect=True)
async def test_lease_is_renewed_and_released_by_its_holder_alone(leases: Leases) -> None:
    """Another can neither renew nor release; released, the lease is free at once."""
    mine, other = new_holder(), new_holder("https://[::1]:5000")
    assert await leases.acquire("blob", mine, 30) == mine
    assert not await leases.renew("blob", other, 30)
    await leases.release("blob", other)
    assert await leases.acquire("blob", other, 30) == mine
    assert await leases.renew("blob", mine, 30)
    assert await leases.renew("blob", mine, 30)
    await leases.release("blob", mine)
    assert await leases.holder("blob") is None
    assert not await leases.renew("blob", mine, 30)
    assert await leases.acquire("blob", other, 30) == other
    assert await leases.acquire("another", mine, 30) == mine


@pytest.mark.parametrize("engine", COORDINATORS, indirect=True)
async def test_lease_lapses_without_renewal(leases: Leases) -> None:
    """A lease that is not renewed is free for others after its time, and its former holder learns of it."""
    mine, other = new_holder(), new_holder()
    assert await leases.acquire("blob", mine, 0.2) == mine
    await until(lambda: holds(leases, other))
    assert not await leases.renew("blob", mine, 30)
    await leases.release("blob", mine)
    assert await leases.holder("blob") == other


async def holds(leases: Leases, other: object) -> bool:
    return await leases.acquire("blob", other, 30) == other  # type: ignore[arg-type]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds that an engine's own clock decides."""
    while not await condition():  # noqa: ASYNC110  # the clock of another program
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("engine", ["seaweedfs", "moto"], indirect=True)
async def test_probe_finds_a_store_fit(engine: Engine) -> None:
    """The engines here can be used for blobs and leases, and the probe leaves nothing behind."""
    store = s3_of(engine)
    fitness = await probe(store, leases=True)
    assert (fitness.reads, fitness.leases) == (None, None)
    assert [each async for each in store.list()] == []
    await store.close()
