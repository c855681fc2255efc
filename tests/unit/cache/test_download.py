"""Downloads over several connections and from several sources, and ranges of what is not here yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.cache import download, plan
from mirror.config import SourceSettings
from mirror.oci.digest import Digest
from mirror.store.growing import GrowingFile
from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, Running, mirror_of
from tests.wire import Reply, Wire, get

BIG = bytes(range(256)) * (LARGE // 256)
CHUNKS = LARGE // CHUNK
PARALLEL = {"chunk_size": CHUNK, "attempts": 3, "parallel": 4, "parallel_above": 0, "prefetch": 0}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(download, "PAUSES", (0.0,))


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        fake.piece = CHUNK
        yield fake


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """Another mirror of the same upstream."""
    async with FakeRegistry() as fake:
        fake.piece = CHUNK
        yield fake


@asynccontextmanager
async def learnt(fake: FakeRegistry, cache: Path, level: int, **fill: Any) -> AsyncIterator[Running]:
    """A mirror that has learnt that so many connections pay."""
    async with mirror_of(fake, cache, fill={**PARALLEL, **fill}) as mirror:
        mirror.service._upstreams["docker.io"].own.level = level
        yield mirror


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with learnt(fake, tmp_path / "cache", 4) as mirror:
        yield mirror


def path_of(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


def spans(fake: FakeRegistry, digest: Digest, *, cdn: bool = False) -> list[tuple[int, int]]:
    """The bytes that were asked for, in order of the requests; stop is exclusive."""
    asked = []
    for seen in fake.cdn_log if cdn else fake.log:
        if seen.method == "GET" and str(digest) in seen.path:
            first, _, last = seen.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            asked.append((int(first), int(last) + 1 if last else LARGE))
    return asked


async def pull(mirror: Running, fake: FakeRegistry, data: bytes = BIG) -> tuple[Digest, Reply]:
    """A layer as clients get it: after the manifest that tells its size."""
    image = fake.add_image("library/x", "t", [data])
    await get(mirror.address, "/v2/library/x/manifests/t")
    return image.layers[0], await get(mirror.address, path_of(image.layers[0]))


async def test_several_connections_bring_each_byte_once(fake: FakeRegistry, mirror: Running) -> None:
    """The ranges asked cover the blob, and no two overlap."""
    digest, reply = await pull(mirror, fake)
    assert reply.body == BIG
    asked = sorted(spans(fake, digest))
    assert len(asked) > 4
    assert [start for start, _ in asked] == [0, *(stop for _, stop in asked[:-1])]
    assert asked[-1][1] == LARGE


async def test_what_broke_in_the_middle_of_a_chunk_goes_on_over_several(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    """The first of them completes that chunk, the others begin where chunks do; no byte is asked twice."""
    image = fake.add_image("library/x", "t", [BIG])
    gate = fake.hold(image.layers[0], after=CHUNK + 100)
    async with learnt(fake, tmp_path / "cache", 1, parallel=1) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t")
        asking = asyncio.ensure_future(get(mirror.address, path_of(image.layers[0])))
        await gate.reached.wait()
        flight = mirror.service.cache._blobs._flights.get(image.layers[0])
        growing = await flight.board() if flight else None
        assert isinstance(growing, GrowingFile)
        while growing.received() < CHUNK + 100:
            await get(mirror.address, "/v2/")
        await mirror.service._tasks.close()
        await asking
    async with learnt(fake, tmp_path / "cache", 4) as mirror:
        assert (await get(mirror.address, path_of(image.layers[0]))).body == BIG
    asked = sorted(spans(fake, image.layers[0])[1:])
    assert len(asked) > 4
    assert [start for start, _ in asked] == [CHUNK + 100, *(stop for _, stop in asked[:-1])]


async def test_redirects_are_followed_once(fake: FakeRegistry, mirror: Running) -> None:
    """Further ranges go where the first one was led, until that URL is no longer good."""
    fake.cdn, fake.signature_uses = True, 5
    digest, reply = await pull(mirror, fake)
    assert reply.body == BIG
    used = len([seen for seen in fake.cdn_log if seen.status == 206])
    assert used > 5
    assert fake.requests("GET", digest) < used


async def test_without_a_manifest_the_first_answer_tells_the_size(
    fake: FakeRegistry, mirror: Running
) -> None:
    """The first request is for everything; it ends earlier when others help."""
    digest = fake.add_blob("library/x", BIG)
    assert (await get(mirror.address, path_of(digest))).body == BIG
    assert spans(fake, digest)[0] == (0, LARGE)


async def test_a_source_without_ranges_is_asked_for_the_whole(fake: FakeRegistry, mirror: Running) -> None:
    """Once; and that it has none is remembered."""
    fake.ranges = False
    for data in (BIG, BIG[::-1]):
        digest, reply = await pull(mirror, fake, data)
        assert reply.body == data
        assert fake.requests("GET", digest) == 1
    assert spans(fake, digest) == [(0, LARGE)]


async def test_a_range_is_served_while_the_rest_is_on_its_way(fake: FakeRegistry, mirror: Running) -> None:
    """206, with exactly these bytes, though the beginning of the blob has not come."""
    image = fake.add_image("library/x", "t", [BIG])
    digest = image.layers[0]
    await get(mirror.address, "/v2/library/x/manifests/t")
    gate = fake.hold(digest, after=0)
    start = 40 * CHUNK + 7
    header = f"Range: bytes={start}-{start + 2 * CHUNK}"
    reply = await get(mirror.address, path_of(digest), header)
    assert gate.reached.is_set()
    assert (reply.status, reply.body) == (206, BIG[start : start + 2 * CHUNK + 1])
    assert reply.headers["content-range"] == f"bytes {start}-{start + 2 * CHUNK}/{LARGE}"
    gate.release()
    assert (await get(mirror.address, path_of(digest))).body == BIG
    await mirror.landed(digest)
    assert sum(stop - start for start, stop in spans(fake, digest)) == LARGE


async def test_an_open_range_and_a_client_that_hangs_up(fake: FakeRegistry, mirror: Running) -> None:
    """As containerd asks: each piece open-ended, and gone after some of it. The blob is fetched once."""
    image = fake.add_image("library/x", "t", [BIG])
    digest = image.layers[0]
    await get(mirror.address, "/v2/library/x/manifests/t")
    for start in range(0, LARGE, 16 * CHUNK):
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path_of(digest), [f"Range: bytes={start}-"])
            head = await wire.head()
            assert (head.status, head.headers["content-range"]) == (206, f"bytes {start}-{LARGE - 1}/{LARGE}")
            length = min(16 * CHUNK, LARGE - start)
            assert await wire.reader.readexactly(length) == BIG[start : start + length]
    await mirror.landed(digest)
    assert sum(stop - start for start, stop in spans(fake, digest)) == LARGE


async def test_several_ranges_of_what_is_not_here(fake: FakeRegistry, mirror: Running) -> None:
    """As Podman asks for zstd:chunked: in the order asked."""
    image = fake.add_image("library/x", "t", [BIG])
    await get(mirror.address, "/v2/library/x/manifests/t")
    header = f"Range: bytes={50 * CHUNK}-{50 * CHUNK + 9},0-4"
    reply = await get(mirror.address, path_of(image.layers[0]), header)
    assert reply.status == 206
    first, second = reply.body.index(BIG[50 * CHUNK : 50 * CHUNK + 10]), reply.body.index(BIG[:5] + b"\r\n")
    assert first < second


async def test_nothing_unverified_if_so_wished(fake: FakeRegistry, tmp_path: Path) -> None:
    """With verify_first not one byte leaves before the last one came."""
    async with learnt(fake, tmp_path / "cache", 1, verify_first=True) as mirror:
        digest = fake.add_blob("library/x", BIG)
        gate = fake.hold(digest, after=LARGE - 1)
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path_of(digest))
            await gate.reached.wait()
            growing = await mirror.service.cache._blobs._flights._running[digest].board()
            assert isinstance(growing, GrowingFile)
            assert growing.readable() == 0
            gate.release()
            assert (await wire.reply()).body == BIG


@asynccontextmanager
async def with_source(
    fake: FakeRegistry, other: FakeRegistry, cache: Path, level: int = 4
) -> AsyncIterator[Running]:
    """A mirror that has `other` beside `fake` for the same upstream."""
    source = SourceSettings(url=other.url, prefix="hub", attempts=1)
    sections: dict[str, Any] = {"fill": PARALLEL, "upstream": {"sources": (source,)}}
    async with mirror_of(fake, cache, **sections) as mirror:
        mirror.service._upstreams["docker.io"].own.level = level
        yield mirror


async def test_two_sources_share_one_blob(fake: FakeRegistry, other: FakeRegistry, tmp_path: Path) -> None:
    """Both bring chunks, no byte comes twice."""
    other.add_blob("hub/library/x", BIG)
    async with with_source(fake, other, tmp_path) as mirror:
        digest, reply = await pull(mirror, fake)
        assert reply.body == BIG
        asked = spans(fake, digest) + spans(other, digest)
        assert sum(stop - start for start, stop in asked) == LARGE
        assert spans(other, digest)


async def test_a_source_that_lacks_the_blob_is_passed_over(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """Its 404 is no news to the client."""
    async with with_source(fake, other, tmp_path) as mirror:
        digest, reply = await pull(mirror, fake)
        assert reply.body == BIG
        assert other.requests("GET", digest) < 4


async def test_a_stalled_source_does_not_keep_the_blob(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """What it had to bring is asked of the other one, without waiting for its timeout."""
    other.add_blob("hub/library/x", BIG)
    async with with_source(fake, other, tmp_path) as mirror:
        gates = [other.hold("blobs", after=CHUNK) for _ in range(20)]
        _, reply = await pull(mirror, fake)
        assert reply.body == BIG
        assert any(gate.reached.is_set() for gate in gates)
        for gate in gates:
            gate.release()


async def test_a_source_that_lies_is_found_out(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """The client gets a short body or the right one; then the source is not asked for a while."""
    data = flipped(BIG, LARGE - 10 * CHUNK)
    data = bytes(byte ^ 0xFF for byte in BIG)
    async with with_source(fake, other, tmp_path) as mirror:
        other.repository("hub/library/x").blobs[str(Digest.of(BIG))] = data
        digest, reply = await pull(mirror, fake)
        assert spans(other, digest)
        assert not reply.complete or reply.body == BIG
        await mirror.landed(digest)
        asked = other.requests()
        again = await get(mirror.address, path_of(digest))
        assert (again.body, again.complete) == (BIG, True)
        assert other.requests() == asked
        lies = 'registry_mirror_source_wrong_bytes_total{source="%s",upstream="docker.io"}'
        assert await mirror.metric(lies % f"{other.url.partition('://')[2]}") == 1


async def test_the_upstream_itself_may_be_down(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """What a manifest names comes from the mirror alone then."""
    other.add_blob("hub/library/x", BIG)
    async with with_source(fake, other, tmp_path) as mirror:
        image = fake.add_image("library/x", "t", [BIG])
        await get(mirror.address, "/v2/library/x/manifests/t")
        fake.fault(Fault(status=503), times=99)
        assert (await get(mirror.address, path_of(image.layers[0]))).body == BIG


async def test_a_slow_start_asks_for_more(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing has been learnt, one connection begins, and others follow while they pay."""
    monkeypatch.setattr(plan, "FIRST_SPAN", 8 * CHUNK)
    async with learnt(fake, tmp_path / "cache", 1) as mirror:
        image = fake.add_image("library/x", "t", [BIG])
        digest = image.layers[0]
        await get(mirror.address, "/v2/library/x/manifests/t")
        gates = [fake.hold(digest, after=CHUNK) for _ in range(2)]
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path_of(digest))
            await gates[0].reached.wait()
            await asyncio.wait_for(gates[1].reached.wait(), 10)
            for gate in gates:
                gate.release()
            assert (await wire.reply()).body == BIG
