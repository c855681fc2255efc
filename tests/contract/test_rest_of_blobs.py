"""Lazy clients: what of a blob is downloaded of which they read a few parts (`fill.rest`)."""

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mirror.oci.digest import Digest
from mirror.transfer.download import TICK
from mirror.transfer.sources import rest
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, Running, configured, mirror_of, serving
from tests.wire import Reply, Wire, get

CHUNKS = 160
BLOB = random.Random("rest").randbytes(CHUNKS * CHUNK - 1000)
SIZE = len(BLOB)
FOOTER = 51


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as hub:
        yield hub


def lazy(way: str, **fill: Any) -> dict[str, Any]:
    return {"fill": {"rest": way, "parallel_above": 1024 * 1024, **fill}}


async def layer_of(hub: FakeRegistry, mirror: Running) -> Digest:
    """Return the digest of the large layer of an image whose manifest the mirror has."""
    image = hub.add_image("library/x", "t", [BLOB])
    assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
    return image.layers[0]


async def read(mirror: Running, digest: Digest, ranges: str) -> Reply:
    return await get(mirror.address, f"/v2/library/x/blobs/{digest}", f"Range: bytes={ranges}")


def chunks_of(*spans: tuple[int, int]) -> int:
    """Return the bytes of the chunks that spans, each (start, stop), lie in."""
    touched = {index for start, stop in spans for index in range(start // CHUNK, -(-stop // CHUNK))}
    return sum(min(SIZE, (index + 1) * CHUNK) - index * CHUNK for index in touched)


def asked_of(hub: FakeRegistry, digest: Digest) -> int:
    """Return the bytes of the blob that the mirror has asked for."""
    asked = 0
    for seen in hub.log:
        if seen.method == "GET" and str(digest) in seen.path:
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("Range", "bytes=0-"))
            assert found is not None
            asked += (int(found[2]) + 1 if found[2] else SIZE) - int(found[1])
    return asked


async def stored(mirror: Running, digest: Digest) -> bool:
    return await asyncio.to_thread(mirror.service.folder.reader.has, digest)


async def test_rest_never_fetches_what_was_asked_for(hub: FakeRegistry, tmp_path: Path) -> None:
    """A probe, a footer and a range cost their chunks, and no byte more; each is right, and there at once."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        spans = [(0, 2), (SIZE - FOOTER, SIZE), (50 * CHUNK + 7, 53 * CHUNK + 9)]
        for start, stop in spans:
            reply = await read(mirror, digest, f"{start}-{stop - 1}")
            assert (reply.status, reply.body) == (206, BLOB[start:stop])
            assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert asked_of(hub, digest) == chunks_of(*spans)
        before = hub.requests()
        for start, stop in spans:  # again: nothing is asked for
            assert (await read(mirror, digest, f"{start}-{stop - 1}")).body == BLOB[start:stop]
        assert hub.requests() == before
        assert not await stored(mirror, digest)


@pytest.mark.parametrize("count", [20, 50])
async def test_rest_never_with_many_ranges_in_a_header(hub: FakeRegistry, tmp_path: Path, count: int) -> None:
    """stargz asks for many chunks of 50,000 bytes with one request; the response is multipart."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        starts = sorted(random.Random(count).sample(range(0, SIZE - 60_000, 60_000), count))
        spans = [(start, start + 50_000) for start in starts]
        reply = await read(mirror, digest, ",".join(f"{start}-{stop - 1}" for start, stop in spans))
        assert reply.status == 206
        for start, stop in spans:
            assert BLOB[start:stop] in reply.body
        assert asked_of(hub, digest) == chunks_of(*spans)


async def test_rest_never_is_completed_by_later_requests(hub: FakeRegistry, tmp_path: Path) -> None:
    """A plain GET fetches only what is missing; then the blob is verified and kept."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        await read(mirror, digest, f"{40 * CHUNK}-{60 * CHUNK - 1}")
        reply = await get(mirror.address, f"/v2/library/x/blobs/{digest}")
        assert (reply.status, reply.body) == (200, BLOB)
        assert asked_of(hub, digest) == SIZE
        await mirror.landed(digest)
        assert await stored(mirror, digest)


async def test_rest_never_is_completed_by_ranges(hub: FakeRegistry, tmp_path: Path) -> None:
    """All parts, in any order: each byte once, the blob is verified before the last chunk is sent."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        starts = list(range(0, SIZE, 10 * CHUNK))
        random.Random(3).shuffle(starts)
        for start in starts:
            stop = min(start + 10 * CHUNK, SIZE)
            assert (await read(mirror, digest, f"{start}-{stop - 1}")).body == BLOB[start:stop]
        await mirror.landed(digest)
        assert await stored(mirror, digest)
        assert asked_of(hub, digest) == SIZE


async def test_rest_never_sends_no_complete_wrong_blob(hub: FakeRegistry, tmp_path: Path) -> None:
    """Corrupt bytes: a client that reads every part, the end first, lacks one of them (invariant 4)."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        wrong = bytearray(BLOB)
        wrong[70 * CHUNK] ^= 1
        hub.repository("library/x").blobs[str(digest)] = bytes(wrong)
        have = 0
        for start in [*range(10 * CHUNK * 15, -1, -10 * CHUNK)]:
            stop = min(start + 10 * CHUNK, SIZE)
            reply = await read(mirror, digest, f"{start}-{stop - 1}")
            have += len(reply.body) if reply.status == 206 else 0
        assert have < SIZE
        assert not await stored(mirror, digest)


async def test_rest_always_fetches_all_at_once(hub: FakeRegistry, tmp_path: Path) -> None:
    """One part asks for everything, which is then here for the next client."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("always")) as mirror:
        digest = await layer_of(hub, mirror)
        await read(mirror, digest, "0-1")
        await mirror.landed(digest)
        assert await stored(mirror, digest)
        assert asked_of(hub, digest) == SIZE


@pytest.mark.slow
async def test_rest_idle_waits_for_clients_of_other_blobs(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a client waits for its blob the rest of another one is not fetched; afterwards it is."""
    monkeypatch.setattr(rest, "IDLE_SECONDS", TICK)
    async with mirror_of(hub, tmp_path / "cache", **lazy("idle")) as mirror:
        digest = await layer_of(hub, mirror)
        other = hub.add_image("library/x", "u", [BLOB[::-1]]).layers[0]
        await get(mirror.address, "/v2/library/x/manifests/u")
        gate = hub.hold(other, after=10 * CHUNK)
        async with await Wire.open(mirror.address) as wire:
            wire.send("GET", f"/v2/library/x/blobs/{other}")
            await gate.reached.wait()
            assert (await read(mirror, digest, f"{CHUNK}-{CHUNK + 9}")).body == BLOB[CHUNK : CHUNK + 10]
            for _ in range(10):  # looks of the fill, of which each could begin with the rest
                await asyncio.sleep(TICK)
            assert asked_of(hub, digest) == CHUNK
            gate.release()
            assert (await wire.reply()).body == BLOB[::-1]
        await mirror.landed(digest)
        assert await stored(mirror, digest)
        assert asked_of(hub, digest) == SIZE


async def test_rest_idle_follows_an_eager_client(hub: FakeRegistry, tmp_path: Path) -> None:
    """Half of a blob by ranges is a pull: the rest is fetched as for a plain request."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("idle")) as mirror:
        digest = await layer_of(hub, mirror)
        assert (await read(mirror, digest, f"0-{SIZE // 2 + CHUNK}")).status == 206
        await mirror.landed(digest)
        assert await stored(mirror, digest)


async def test_rest_never_keeps_a_partial_over_a_restart(hub: FakeRegistry, tmp_path: Path) -> None:
    """Fetched parts are here after it, the end too; only missing ones are asked for."""
    config = configured(tmp_path / "cache", {"docker.io": hub.url}, **lazy("never"))
    spans = [(SIZE - FOOTER, SIZE), (30 * CHUNK, 33 * CHUNK)]
    async with serving(config) as mirror:
        digest = await layer_of(hub, mirror)
        for start, stop in spans:
            await read(mirror, digest, f"{start}-{stop - 1}")
    async with serving(config) as mirror:
        for start, stop in spans:
            assert (await read(mirror, digest, f"{start}-{stop - 1}")).body == BLOB[start:stop]
        assert asked_of(hub, digest) == chunks_of(*spans)
        reply = await get(mirror.address, f"/v2/library/x/blobs/{digest}")
        assert reply.body == BLOB
        assert asked_of(hub, digest) == SIZE
        await mirror.landed(digest)
        assert await stored(mirror, digest)


async def test_rest_never_ends_the_fill_after_its_last_client(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock and the turn are free then; the next range continues the partial."""
    monkeypatch.setattr(rest, "LINGER_SECONDS", 0.0)
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        for start in (0, 20 * CHUNK, 0):
            assert (await read(mirror, digest, f"{start}-{start + 9}")).body == BLOB[start : start + 10]
            await mirror.landed(digest)
        assert asked_of(hub, digest) == 2 * CHUNK
        assert await asyncio.to_thread(os.listdir, tmp_path / "cache" / "partial")
        assert not await stored(mirror, digest)


async def test_rest_never_leaves_its_turn_to_others(hub: FakeRegistry, tmp_path: Path) -> None:
    """A client that keeps a range open, all of which is here, costs no other client a turn."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("never", connections=1)) as mirror:
        digest = await layer_of(hub, mirror)
        other = hub.add_image("library/x", "u", [BLOB[::-1]]).layers[0]
        await get(mirror.address, "/v2/library/x/manifests/u")
        await read(mirror, digest, "0-1")
        assert (await get(mirror.address, f"/v2/library/x/blobs/{other}")).body == BLOB[::-1]
        assert (await read(mirror, digest, "9-12")).body == BLOB[9:13]
        assert asked_of(hub, digest) == CHUNK


async def test_rest_never_counts_partials_in_the_quota(hub: FakeRegistry, tmp_path: Path) -> None:
    """The bytes that came are used room; those that did not come are not."""
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        before = await asyncio.to_thread(mirror.service.folder.evictor.room)
        await read(mirror, digest, f"{30 * CHUNK}-{60 * CHUNK - 1}")
        after = await asyncio.to_thread(mirror.service.folder.evictor.room)
        assert 30 * CHUNK <= after.used - before.used < 40 * CHUNK


async def test_rest_never_from_a_source_without_ranges(hub: FakeRegistry, tmp_path: Path) -> None:
    """All of it comes, once, and is kept."""
    hub.ranges = False
    async with mirror_of(hub, tmp_path / "cache", **lazy("never")) as mirror:
        digest = await layer_of(hub, mirror)
        for start in (40 * CHUNK, 3):
            assert (await read(mirror, digest, f"{start}-{start + 9}")).body == BLOB[start : start + 10]
        await mirror.landed(digest)
        assert await stored(mirror, digest)
        assert hub.requests("GET", digest) <= 2
