"""Downloads over several connections and from several sources, and ranges of blobs that are being filled."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.config.endpoints import SourceSettings
from mirror.oci.digest import Digest
from mirror.store.partial.growing import GrowingFile
from mirror.transfer import download
from mirror.transfer.plan import DEFAULT_LIMITS, PlanLimits
from mirror.upstream.health import SourceHealth
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, mirror_of
from tests.wire import Reply, Wire, get

pytestmark = pytest.mark.usefixtures("no_pauses")

BIG = LARGE_DATA
CHUNKS = LARGE // CHUNK
# All of a blob is fetched, whatever is asked for. Parts alone: tests/contract/test_rest_of_blobs.py
PARALLEL = {
    "chunk_size": CHUNK,
    "attempts": 3,
    "parallel": 4,
    "parallel_above": 0,
    "prefetch": 0,
    "rest": "always",
}
SHORT_FIRST_SPAN = PlanLimits(first_span=8 * CHUNK)


@pytest.fixture
async def fake() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        fake.piece = CHUNK
        yield fake


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    """A second source of the same upstream."""
    async with FakeRegistry() as fake:
        fake.piece = CHUNK
        yield fake


@asynccontextmanager
async def learnt(
    fake: FakeRegistry, cache: Path, level: int, limits: PlanLimits = DEFAULT_LIMITS, **fill: Any
) -> AsyncIterator[Running]:
    """A mirror that has learnt that `level` connections pay."""
    async with mirror_of(fake, cache, limits, fill={**PARALLEL, **fill}) as mirror:
        mirror.service._upstreams["docker.io"].own.concurrency = level
        yield mirror


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with learnt(fake, tmp_path / "cache", 4) as mirror:
        yield mirror


def path_of(digest: Digest) -> str:
    return f"/v2/library/x/blobs/{digest}"


def spans(fake: FakeRegistry, digest: Digest, *, cdn: bool = False) -> list[tuple[int, int]]:
    """Return the requested spans, in order of the requests; `stop` is exclusive."""
    asked = []
    for seen in fake.cdn_log if cdn else fake.log:
        if seen.method == "GET" and str(digest) in seen.path:
            first, _, last = seen.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            asked.append((int(first), int(last) + 1 if last else LARGE))
    return asked


async def pull(mirror: Running, fake: FakeRegistry, data: bytes = BIG) -> tuple[Digest, Reply]:
    """Fetch a layer as clients do: after the manifest that names its size."""
    image = fake.add_image("library/x", "t", [data])
    await get(mirror.address, "/v2/library/x/manifests/t")
    return image.layers[0], await get(mirror.address, path_of(image.layers[0]))


async def test_download_requests_each_byte_once(fake: FakeRegistry, mirror: Running) -> None:
    """The requested ranges cover the blob, and no two overlap."""
    digest, reply = await pull(mirror, fake)
    assert reply.body == BIG
    asked = sorted(spans(fake, digest))
    assert len(asked) > 4
    assert [start for start, _ in asked] == [0, *(stop for _, stop in asked[:-1])]
    assert asked[-1][1] == LARGE


async def test_download_does_not_take_a_slow_disk_for_a_slow_network(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that wait to be written are not requested again, however long the write takes."""
    async with learnt(
        fake, tmp_path / "cache", 4, PlanLimits(stall_seconds=0.1, recent_seconds=60.0)
    ) as mirror:
        digest = Digest.of(BIG)
        fake.hold(digest, after=CHUNK)  # a segment that has received a chunk, and then nothing
        write = os.pwritev
        slow: list[int] = []

        def wait_and_write(descriptor: int, parts: Sequence[bytes], offset: int) -> int:
            if not slow and offset > CHUNK and offset not in dict(spans(fake, digest)):
                slow.append(offset)
                time.sleep(0.5)
            return write(descriptor, parts, offset)

        monkeypatch.setattr(os, "pwritev", wait_and_write)
        _, reply = await pull(mirror, fake)
        assert reply.body == BIG
        assert sum(start <= slow[0] < stop for start, stop in spans(fake, digest)) == 1


async def test_resume_in_mid_chunk_uses_several_connections(fake: FakeRegistry, tmp_path: Path) -> None:
    """The first segment completes that chunk, the others begin chunks; no byte is requested twice."""
    image = fake.add_image("library/x", "t", [BIG])
    gate = fake.hold(image.layers[0], after=CHUNK + 100)
    async with learnt(fake, tmp_path / "cache", 1, parallel=1) as mirror:
        await get(mirror.address, "/v2/library/x/manifests/t")
        asking = asyncio.ensure_future(get(mirror.address, path_of(image.layers[0])))
        await gate.reached.wait()
        flight = mirror.service.cache._blobs._flights.get(image.layers[0])
        growing = await flight.wait_content() if flight else None
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


async def test_download_follows_a_redirect_once(fake: FakeRegistry, mirror: Running) -> None:
    """Further ranges go to the location of the first one, until that URL is no longer valid."""
    fake.cdn, fake.signature_uses = True, 5
    digest, reply = await pull(mirror, fake)
    assert reply.body == BIG
    used = len([seen for seen in fake.cdn_log if seen.status == 206])
    assert used > 5
    assert fake.requests("GET", digest) < used


async def test_download_of_unknown_size_starts_with_a_range(fake: FakeRegistry, tmp_path: Path) -> None:
    """The response to a range has the size, and other segments fetch the rest; no byte comes twice."""
    async with learnt(fake, tmp_path / "cache", 4, SHORT_FIRST_SPAN) as mirror:
        digest = fake.add_blob("library/x", BIG)
        assert (await get(mirror.address, path_of(digest))).body == BIG
        assert spans(fake, digest)[0] == (0, 8 * CHUNK)
        assert sum(stop - start for start, stop in spans(fake, digest)) == LARGE


async def test_empty_blob_of_unknown_size_is_requested_whole(fake: FakeRegistry, mirror: Running) -> None:
    """An empty blob has no range, so a second request asks for the whole."""
    digest = fake.add_blob("library/x", b"")
    reply = await get(mirror.address, path_of(digest))
    assert (reply.status, reply.body) == (200, b"")
    assert fake.requests("GET", digest) == 2


async def test_source_without_ranges_is_asked_for_the_whole_blob(fake: FakeRegistry, mirror: Running) -> None:
    """One request per blob; that the source has no ranges is remembered."""
    fake.ranges = False
    for data in (BIG, BIG[::-1]):
        digest, reply = await pull(mirror, fake, data)
        assert reply.body == data
        assert fake.requests("GET", digest) == 1
    assert spans(fake, digest) == [(0, LARGE)]


async def test_range_is_served_before_the_bytes_in_front_of_it(fake: FakeRegistry, mirror: Running) -> None:
    """A 206 with exactly the requested bytes, though the beginning of the blob has not arrived."""
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


async def test_open_ranges_of_a_client_that_hangs_up(fake: FakeRegistry, mirror: Running) -> None:
    """containerd requests open ranges, and hangs up after a part of each. The blob is fetched once."""
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


async def test_open_ranges_in_parallel(fake: FakeRegistry, mirror: Running) -> None:
    """containerd's parallel fetch: open ranges at the same time, each closed after its piece, each a 206."""
    image = fake.add_image("library/x", "t", [BIG])
    digest = image.layers[0]
    await get(mirror.address, "/v2/library/x/manifests/t")
    pieces = [(start, min(start + 16 * CHUNK, LARGE)) for start in range(0, LARGE, 16 * CHUNK)]

    async def fetch(start: int, stop: int) -> bytes:
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path_of(digest), [f"Range: bytes={start}-"])
            head = await wire.head()
            assert (head.status, head.headers["content-range"]) == (206, f"bytes {start}-{LARGE - 1}/{LARGE}")
            return await wire.reader.readexactly(stop - start)

    assert b"".join(await asyncio.gather(*(fetch(*piece) for piece in pieces))) == BIG
    await mirror.landed(digest)
    assert sum(stop - start for start, stop in spans(fake, digest)) == LARGE


async def test_range_of_the_holdback_waits_for_verification(fake: FakeRegistry, mirror: Running) -> None:
    """The last bytes are here, but no client receives them before the blob is verified (invariant 4)."""
    image = fake.add_image("library/x", "t", [BIG])
    digest = image.layers[0]
    await get(mirror.address, "/v2/library/x/manifests/t")
    gate = fake.hold(digest, after=0)
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest), [f"Range: bytes={LARGE - 2 * CHUNK}-"])
        assert (await wire.head()).status == 206
        assert await wire.reader.readexactly(CHUNK) == BIG[-2 * CHUNK : -CHUNK]
        growing = await mirror.service.cache._blobs._flights._running[digest].wait_content()
        assert isinstance(growing, GrowingFile)
        assert growing.readable(LARGE - CHUNK) == LARGE - CHUNK
        gate.release()
        assert await wire.reader.readexactly(CHUNK) == BIG[-CHUNK:]


async def test_range_far_ahead_in_a_blob_of_unknown_size(fake: FakeRegistry, tmp_path: Path) -> None:
    """The size comes with the first response, and the range over a connection of its own."""
    async with learnt(fake, tmp_path / "cache", 1, SHORT_FIRST_SPAN) as mirror:
        digest = fake.add_blob("library/x", BIG)
        gate = fake.hold(digest, after=CHUNK)
        start = 40 * CHUNK
        reply = await get(mirror.address, path_of(digest), f"Range: bytes={start}-{start + 9}")
        assert (reply.status, reply.body) == (206, BIG[start : start + 10])
        gate.release()
        assert (await get(mirror.address, path_of(digest))).body == BIG


async def test_several_ranges_of_a_missing_blob(fake: FakeRegistry, mirror: Running) -> None:
    """Podman requests several ranges for zstd:chunked; they are served in the requested order."""
    image = fake.add_image("library/x", "t", [BIG])
    await get(mirror.address, "/v2/library/x/manifests/t")
    header = f"Range: bytes={50 * CHUNK}-{50 * CHUNK + 9},0-4"
    reply = await get(mirror.address, path_of(image.layers[0]), header)
    assert reply.status == 206
    first, second = reply.body.index(BIG[50 * CHUNK : 50 * CHUNK + 10]), reply.body.index(BIG[:5] + b"\r\n")
    assert first < second


async def test_verify_first_sends_nothing_before_the_last_byte(fake: FakeRegistry, tmp_path: Path) -> None:
    """No byte is sent before the last byte has arrived."""
    async with learnt(fake, tmp_path / "cache", 1, verify_first=True) as mirror:
        digest = fake.add_blob("library/x", BIG)
        gate = fake.hold(digest, after=LARGE - 1)
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", path_of(digest))
            await gate.reached.wait()
            growing = await mirror.service.cache._blobs._flights._running[digest].wait_content()
            assert isinstance(growing, GrowingFile)
            assert growing.readable() == 0
            gate.release()
            assert (await wire.reply()).body == BIG


@asynccontextmanager
async def with_sources(
    fake: FakeRegistry, others: Sequence[FakeRegistry], cache: Path, **fill: Any
) -> AsyncIterator[Running]:
    """A mirror that has `others` beside `fake` for the same upstream, and uses four connections at once."""
    sources = tuple(SourceSettings(url=other.url, prefix="hub", attempts=1) for other in others)
    sections: dict[str, Any] = {"fill": {**PARALLEL, **fill}, "upstream": {"sources": sources}}
    async with mirror_of(fake, cache, **sections) as mirror:
        mirror.service._upstreams["docker.io"].own.concurrency = 4
        yield mirror


def wrong_bytes_metric(fake: FakeRegistry) -> str:
    """Return the name of the metric that counts wrong bytes of this source."""
    name = fake.url.partition("://")[2]
    return f'registry_mirror_source_wrong_bytes_total{{source="{name}",upstream="docker.io"}}'


async def test_two_sources_share_one_blob(fake: FakeRegistry, other: FakeRegistry, tmp_path: Path) -> None:
    """Both sources send chunks, and no byte comes twice."""
    other.add_blob("hub/library/x", BIG)
    async with with_sources(fake, [other], tmp_path) as mirror:
        digest, reply = await pull(mirror, fake)
        assert reply.body == BIG
        asked = spans(fake, digest) + spans(other, digest)
        assert sum(stop - start for start, stop in asked) == LARGE
        assert spans(other, digest)


async def test_source_without_the_blob_is_passed_over(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """The client does not see the source's 404."""
    async with with_sources(fake, [other], tmp_path) as mirror:
        digest, reply = await pull(mirror, fake)
        assert reply.body == BIG
        assert other.requests("GET", digest) < 4


async def test_stalled_source_gives_its_bytes_to_another(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """The other source is asked for the rest, without waiting for the timeout of the first."""
    other.add_blob("hub/library/x", BIG)
    async with with_sources(fake, [other], tmp_path) as mirror:
        gates = [other.hold("blobs", after=CHUNK) for _ in range(20)]
        _, reply = await pull(mirror, fake)
        assert reply.body == BIG
        assert any(gate.reached.is_set() for gate in gates)
        for gate in gates:
            gate.release()


async def test_new_source_gets_one_connection_until_it_answers(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """A source that is slow to begin delays no client, however many connections there may be."""
    other.add_blob("hub/library/x", BIG)
    async with with_sources(fake, [other], tmp_path) as mirror:
        gates = [other.hold("blobs", after=-1) for _ in range(4)]
        _, reply = await pull(mirror, fake)
        assert reply.body == BIG
        assert sum(gate.reached.is_set() for gate in gates) == 1
        for gate in gates:
            gate.release()


async def test_corrupt_source_is_detected(fake: FakeRegistry, other: FakeRegistry, tmp_path: Path) -> None:
    """The client gets a short body or the right one; afterwards the source is not asked for a while."""
    data = bytes(byte ^ 0xFF for byte in BIG)
    async with with_sources(fake, [other], tmp_path) as mirror:
        other.repository("hub/library/x").blobs[str(Digest.of(BIG))] = data
        digest, reply = await pull(mirror, fake)
        assert spans(other, digest)
        assert not reply.complete or reply.body == BIG
        await mirror.landed(digest)
        asked = other.requests()
        again = await get(mirror.address, path_of(digest))
        assert (again.body, again.complete) == (BIG, True)
        await mirror.landed(digest)
        assert other.requests() == asked
        assert await mirror.metric(wrong_bytes_metric(other)) == 1
        assert await mirror.metric(wrong_bytes_metric(fake)) == 0


async def test_corrupt_source_among_two_is_identified(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """Both sent parts of the corrupt blob; once the right blob is here, the honest source is used again."""
    async with FakeRegistry() as third, with_sources(fake, [other, third], tmp_path) as mirror:
        other.add_blob("hub/library/x", BIG)
        third.piece = CHUNK
        third.repository("hub/library/x").blobs[str(Digest.of(BIG))] = bytes(byte ^ 0xFF for byte in BIG)
        _, good, bad = mirror.service._upstreams["docker.io"].sources
        digest, _ = await pull(mirror, fake)
        await mirror.landed(digest)
        assert spans(other, digest)
        assert spans(third, digest)
        assert (await get(mirror.address, path_of(digest))).body == BIG
        await mirror.landed(digest)
        now = time.monotonic()
        assert (good.health.usable(now), bad.health.usable(now)) == (True, False)
        assert (
            await mirror.metric(wrong_bytes_metric(other)),
            await mirror.metric(wrong_bytes_metric(third)),
        ) == (0, 1)


async def test_corrupt_own_endpoint_is_identified(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """The mirror also sent a part of the corrupt blob, and stays in use: that part was right."""
    other.add_blob("hub/library/x", BIG)
    async with with_sources(fake, [other], tmp_path) as mirror:
        image = fake.add_image("library/x", "t", [BIG])
        fake.fault(Fault(data=bytes(byte ^ 0xFF for byte in BIG)), "blobs", "GET", times=99)
        digest, reply = await pull(mirror, fake)
        assert digest == image.layers[0]
        assert not reply.complete or reply.body == BIG
        await mirror.landed(digest)
        assert (await get(mirror.address, path_of(digest))).body == BIG
        await mirror.landed(digest)
        own, source = mirror.service._upstreams["docker.io"].sources
        now = time.monotonic()
        assert (own.health.trusted(now), source.health.trusted(now)) == (False, True)
        assert (
            await mirror.metric(wrong_bytes_metric(fake)),
            await mirror.metric(wrong_bytes_metric(other)),
        ) == (1, 0)


async def test_unresponsive_source_is_replaced_by_another(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another source is asked when an answer is later than usual, and the client has its blob."""
    async with with_sources(fake, [other], tmp_path) as mirror:
        monkeypatch.setattr(SourceHealth, "hedge_delay", lambda _: 0.05)
        other.add_blob("hub/library/x", BIG)
        mirror.service._upstreams["docker.io"].sources[1].weight = 100
        gate = other.hold("blobs", after=-1)
        _, reply = await pull(mirror, fake)
        assert gate.reached.is_set()
        assert reply.body == BIG
        gate.release()


async def test_retry_after_in_mid_blob_is_respected(
    fake: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 in mid-blob: no request is made for the time of Retry-After, up to a limit."""
    monkeypatch.setattr(download, "LONGEST_THROTTLE", 0.1)
    async with learnt(fake, tmp_path / "cache", 1) as mirror:
        image = fake.add_image("library/x", "t", [BIG])
        digest = image.layers[0]
        await get(mirror.address, "/v2/library/x/manifests/t")
        fake.fault(Fault(cut_at=8 * CHUNK), digest)
        fake.fault(Fault(status=429, headers={"Retry-After": "30"}), digest)
        began = time.monotonic()
        assert (await get(mirror.address, path_of(digest))).body == BIG
        assert time.monotonic() - began >= 0.1
        assert fake.requests("GET", digest) == 3


async def test_connection_limit_is_shared_by_all_blobs(fake: FakeRegistry, tmp_path: Path) -> None:
    """Two blobs that would each use four connections share two, and both arrive."""
    async with learnt(fake, tmp_path / "cache", 4, connections=2) as mirror:
        image = fake.add_image("library/x", "t", [BIG, BIG[::-1]])
        await get(mirror.address, "/v2/library/x/manifests/t")
        gates = [fake.hold("blobs", after=0) for _ in range(3)]
        fetching = [asyncio.create_task(get(mirror.address, path_of(each))) for each in image.layers]
        await asyncio.gather(*(gate.reached.wait() for gate in gates[:2]))
        own = mirror.service._upstreams["docker.io"].own
        assert (own.slots.active, own.slots.saturated, gates[2].reached.is_set()) == (2, True, False)
        for gate in gates:
            gate.release()
        assert [reply.body for reply in await asyncio.gather(*fetching)] == [BIG, BIG[::-1]]


async def test_mirror_serves_while_the_own_endpoint_is_down(
    fake: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    """Blobs that a manifest names come from the mirror alone then."""
    other.add_blob("hub/library/x", BIG)
    async with with_sources(fake, [other], tmp_path) as mirror:
        image = fake.add_image("library/x", "t", [BIG])
        await get(mirror.address, "/v2/library/x/manifests/t")
        fake.fault(Fault(status=503), times=99)
        assert (await get(mirror.address, path_of(image.layers[0]))).body == BIG


async def test_download_adds_connections_while_they_pay(fake: FakeRegistry, tmp_path: Path) -> None:
    """One connection begins where nothing has been learnt, and others follow while they pay."""
    async with learnt(fake, tmp_path / "cache", 1, SHORT_FIRST_SPAN) as mirror:
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
