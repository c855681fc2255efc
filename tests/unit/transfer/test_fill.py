"""The fill: resumed, verified, independent of every client (invariants 1 to 4, 10)."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.partial.partial import Partial
from mirror.store.store import Store
from mirror.transfer import follow
from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, Running, mirror_of
from tests.wire import Wire, get

pytestmark = pytest.mark.usefixtures("no_pauses")

BIG = bytes(range(256)) * (LARGE // 256)
SMALL = b"a small layer"
HELD = LARGE - CHUNK  # the last chunk of BIG is the holdback


@pytest.fixture
async def mirror(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


def path_of(digest: Digest) -> str:
    return f"/v2/docker.io/library/x/blobs/{digest}"


def ranges_asked(fake: FakeRegistry, digest: Digest) -> list[str | None]:
    return [
        seen.headers.get("Range") for seen in fake.log if seen.method == "GET" and str(digest) in seen.path
    ]


async def partials(mirror: Running) -> list[str]:
    return await asyncio.to_thread(os.listdir, mirror.config.cache.dir / "partial")


@pytest.mark.parametrize("data", [b"", b"1", SMALL, BIG], ids=["empty", "byte", "small", "large"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_blobs_of_every_size_arrive_whole(
    fake: FakeRegistry, mirror: Running, data: bytes, algorithm: str
) -> None:
    """First from the fill, then from the store; the partial is gone and the store consistent."""
    digest = fake.add_blob("library/x", data, algorithm)
    for _ in range(2):
        reply = await get(mirror.address, path_of(digest))
        assert (reply.status, reply.body, reply.complete) == (200, data, True)
        await mirror.landed(digest)
    # Nobody has told the size of it: what is empty is asked for a range first, and that it has none.
    assert fake.requests("GET", digest) == (1 if data else 2)
    assert await partials(mirror) == []
    assert await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="miss"}') == 1
    assert await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="hit"}') == 1


async def test_a_connection_that_is_reset_is_unnoticed(fake: FakeRegistry, mirror: Running) -> None:
    """An RST may take bytes with it that had arrived; the client has them all the same."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(reset_at=LARGE // 2), digest, "GET")
    assert (await get(mirror.address, path_of(digest))).body == BIG


async def test_a_broken_transfer_goes_on_where_it_stopped(fake: FakeRegistry, mirror: Running) -> None:
    """The client sees nothing of it, and no byte that arrived is asked again."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    reply = await get(mirror.address, path_of(digest))
    assert (reply.status, reply.body) == (200, BIG)
    first, second = ranges_asked(fake, digest)
    assert first == "bytes=0-8388607"
    assert second == f"bytes={LARGE // 2}-"
    assert await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}') == len(BIG)


async def test_an_upstream_that_ignores_range_is_read_past_what_is_here(
    fake: FakeRegistry, mirror: Running
) -> None:
    """A 200 to a resume starts at zero; the file is right all the same."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    fake.fault(Fault(no_ranges=True), digest, "GET")
    assert (await get(mirror.address, path_of(digest))).body == BIG


async def test_wrong_bytes_that_nobody_had_are_asked_once_more(fake: FakeRegistry, mirror: Running) -> None:
    """Of a small blob nothing is sent before it is verified, so one corrupt transfer stays unnoticed."""
    digest = fake.add_blob("library/x", SMALL)
    fake.fault(Fault(data=flipped(SMALL)), digest, "GET")
    assert (await get(mirror.address, path_of(digest))).body == SMALL
    assert await mirror.metric('registry_mirror_fill_failures_total{reason="digest"}') == 1


async def test_wrong_bytes_twice_are_an_error_and_leave_nothing(fake: FakeRegistry, mirror: Running) -> None:
    """The error says what happened; the next request starts from nothing and succeeds."""
    digest = fake.add_blob("library/x", SMALL)
    fake.fault(Fault(data=flipped(SMALL)), digest, "GET", times=2)
    reply = await get(mirror.address, path_of(digest))
    assert reply.status == 502
    assert b"not sha256:" in reply.body
    assert await partials(mirror) == []
    assert (await get(mirror.address, path_of(digest))).body == SMALL


async def test_wrong_bytes_of_a_large_blob_end_short(fake: FakeRegistry, mirror: Running) -> None:
    """Readers lose the connection by FIN before the holdback: a short body, never a complete wrong one."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(data=flipped(BIG, len(BIG) - 1)), digest, "GET")
    reply = await get(mirror.address, path_of(digest))
    assert (reply.status, reply.complete, reply.reset) == (200, False, False)
    assert len(reply.body) <= HELD
    assert await partials(mirror) == []
    again = await get(mirror.address, path_of(digest))
    assert (again.body, ranges_asked(fake, digest)) == (BIG, ["bytes=0-8388607", "bytes=0-8388607"])


async def test_the_last_chunk_is_held_back(fake: FakeRegistry, mirror: Running) -> None:
    """With all but one byte here, a reader has everything up to the holdback and no more."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=len(BIG) - 1)
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest))
        assert (await wire.head()).status == 200
        await gate.reached.wait()
        assert await wire.reader.readexactly(HELD) == BIG[:HELD]
        more = wire.reader.read(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(more, 0.05)
        gate.release()
        assert await wire.reader.readexactly(CHUNK) == BIG[HELD:]


async def test_a_client_that_leaves_changes_nothing(fake: FakeRegistry, mirror: Running) -> None:
    """The fill that a client began goes on without it, and the next client joins it."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=LARGE // 2)
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest))
        await wire.head()
    await gate.reached.wait()
    joining = get(mirror.address, path_of(digest))
    gate.release()
    assert (await joining).body == BIG
    assert fake.requests("GET", digest) == 1


async def test_a_client_that_reads_nothing_does_not_slow_the_others(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    """One client stops reading after the head; another one gets the whole blob meanwhile."""
    digest = fake.add_blob("library/x", BIG * 8)
    one_connection = {"chunk_size": CHUNK, "parallel": 1}
    async with mirror_of(fake, tmp_path / "cache", fill=one_connection) as mirror:
        async with await Wire.open(mirror.address) as stuck:
            stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stuck.send("GET", path_of(digest))
            assert (await get(mirror.address, path_of(digest))).body == BIG * 8
        assert fake.requests("GET", digest) == 1


async def test_a_restart_goes_on_where_the_last_process_stopped(fake: FakeRegistry, tmp_path: Path) -> None:
    """What a stopped mirror had received is not asked again (invariant 10)."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=LARGE // 2)
    async with AsyncExitStack() as stack, mirror_of(fake, tmp_path / "cache") as first:
        wire = await stack.enter_async_context(await Wire.open(first.address))
        wire.send("GET", path_of(digest))
        await wire.head()
        await wire.reader.readexactly(CHUNK)
        await gate.reached.wait()
        await wire.reader.readexactly(LARGE // 2 - 2 * CHUNK)
        wire.writer.close()
        first.stop.set()
    async with mirror_of(fake, tmp_path / "cache") as second:
        assert (await get(second.address, path_of(digest))).body == BIG
        start, stop = str(ranges_asked(fake, digest)[1]).removeprefix("bytes=").split("-")
        assert int(start) > LARGE // 4
        assert int(stop) == LARGE - 1


async def test_an_upstream_that_stays_away_cuts_the_client_and_keeps_what_came(
    fake: FakeRegistry, mirror: Running
) -> None:
    """After the last attempt the client sees a short body; its retry needs the rest only."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    fake.fault(Fault(status=503), digest, "GET", times=4)
    reply = await get(mirror.address, path_of(digest))
    assert (reply.status, reply.complete, reply.reset) == (200, False, False)
    assert await mirror.metric('registry_mirror_fill_failures_total{reason="server_error"}') == 1
    again = await get(mirror.address, path_of(digest), f"Range: bytes={len(reply.body)}-")
    assert reply.body + again.body == BIG
    assert await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}') == len(BIG)


async def test_an_upstream_that_fails_at_once_is_an_error_status(fake: FakeRegistry, mirror: Running) -> None:
    """Before the first byte a failure is told as what it is, and at once."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(status=503), digest, "GET")
    reply = await get(mirror.address, path_of(digest))
    assert reply.status == 502
    assert fake.requests("GET", digest) == 1


async def test_a_size_that_the_manifest_does_not_have_is_refused(fake: FakeRegistry, mirror: Running) -> None:
    """A manifest names digest and size; another Content-Length is another thing, and no client has a byte."""
    image = fake.add_image("library/x", "t", [BIG])
    await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
    fake.fault(Fault(data=BIG + b"!"), image.layers[0], "GET")
    reply = await get(mirror.address, path_of(image.layers[0]))
    assert reply.status == 502
    assert f"{len(BIG) + 1} bytes".encode() in reply.body


async def test_a_body_without_a_length_is_filled_by_the_size_from_elsewhere(
    fake: FakeRegistry, mirror: Running
) -> None:
    """Chunked answers: the size comes from the manifest, or from a HEAD."""
    image = fake.add_image("library/x", "t", [SMALL])
    await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
    loose = fake.add_blob("library/x", b"not named by any manifest")
    for digest, data in ((image.layers[0], SMALL), (loose, b"not named by any manifest")):
        fake.fault(Fault(chunked=True, no_ranges=True), digest, "GET")
        assert (await get(mirror.address, path_of(digest))).body == data
    assert fake.requests("HEAD", loose) == 1
    assert fake.requests("HEAD", image.layers[0]) == 0


async def test_a_fill_of_another_process_is_waited_for(
    fake: FakeRegistry, mirror: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody else has the lock nothing is asked upstream; when it is free the fill goes on."""
    monkeypatch.setattr(follow, "LOCK_SECONDS", 0.001)
    digest = fake.add_blob("library/x", SMALL)
    partial = await asyncio.to_thread(Partial.lock, digest, mirror.config.cache.dir / "partial")
    assert partial is not None
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest))
        for _ in range(20):  # many turns of the poll, each through the disk threads
            await get(mirror.address, "/v2/")
        assert fake.requests("GET", digest) == 0
        await asyncio.to_thread(partial.release)
        assert (await wire.reply()).body == SMALL


async def test_what_another_process_filled_is_taken_from_the_store(
    fake: FakeRegistry, mirror: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two mirrors on one folder: the blob is downloaded by one of them (invariant 2)."""
    monkeypatch.setattr(follow, "LOCK_SECONDS", 0.001)
    digest = fake.add_blob("library/x", SMALL)
    other = await Store.open(mirror.config.cache.dir)
    partial, _ = await other.lock_partial(Repository("docker.io", "library/x"), digest)
    assert partial is not None
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest))
        growing = await other.open_growing_file(partial, len(SMALL), CHUNK)
        await growing.write(0, [SMALL])
        await growing.hash_contiguous()
        verified = growing.complete()
        assert verified is not None
        await other.adopt(verified)
        await other.discard_partial(partial)
        await other.release_partial(partial)
        assert (await wire.reply()).body == SMALL
    await other.close()
    assert (fake.requests("GET", digest), fake.requests("HEAD", digest)) == (0, 1)


@pytest.mark.parametrize("sent", [SMALL + b"more", SMALL[:-1]], ids=["longer", "shorter"])
async def test_a_body_that_is_not_as_long_as_the_manifest_says(
    fake: FakeRegistry, mirror: Running, sent: bytes
) -> None:
    """Without a Content-Length to be wrong, it is found out at the end: nothing of it is sent or kept."""
    image = fake.add_image("library/x", "t", [SMALL])
    await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
    fake.fault(Fault(data=sent, chunked=True), image.layers[0], "GET", times=9)
    assert (await get(mirror.address, path_of(image.layers[0]))).status == 502


async def test_a_blob_whose_size_nobody_tells(fake: FakeRegistry, mirror: Running) -> None:
    """Neither the answer, nor a HEAD, nor a manifest: an error that says so."""
    digest = fake.add_blob("library/x", SMALL)
    fake.fault(Fault(chunked=True, no_ranges=True), digest, times=3)
    reply = await get(mirror.address, path_of(digest))
    assert reply.status == 502
    assert b"gives no size for" in reply.body


async def test_an_upstream_that_changes_the_size_in_the_middle(fake: FakeRegistry, mirror: Running) -> None:
    """The rest of something else is not appended: readers are cut, and the next request is right."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    fake.fault(Fault(data=BIG + b"more"), digest, "GET")
    assert not (await get(mirror.address, path_of(digest))).complete
    assert (await get(mirror.address, path_of(digest))).body == BIG


async def test_leftovers_of_another_size_are_thrown_away(fake: FakeRegistry, mirror: Running) -> None:
    """A partial that does not fit what the upstream announces is begun anew; what came is used."""
    digest = fake.add_blob("library/x", BIG)

    def leave_nonsense() -> None:
        partial = Partial.lock(digest, mirror.config.cache.dir / "partial")
        assert partial is not None
        partial.allocate(3 * CHUNK, CHUNK).record(0, CHUNK)
        partial.release()

    await asyncio.to_thread(leave_nonsense)
    assert (await get(mirror.address, path_of(digest))).body == BIG
    assert sorted(map(str, ranges_asked(fake, digest))) == [
        "bytes=0-65535",
        "bytes=196608-",
        "bytes=65536-196607",
    ]


async def test_a_fill_killed_before_its_last_step_asks_for_no_byte(
    fake: FakeRegistry, mirror: Running
) -> None:
    """Everything is here but was never verified: a HEAD confirms the link, and the rest is done here."""
    digest = fake.add_blob("library/x", SMALL)

    def leave_all() -> None:
        partial = Partial.lock(digest, mirror.config.cache.dir / "partial")
        assert partial is not None
        chunks = partial.allocate(len(SMALL), CHUNK)
        partial.data_path.write_bytes(SMALL)
        chunks.record(0, len(SMALL))
        partial.release()

    await asyncio.to_thread(leave_all)
    assert (await get(mirror.address, path_of(digest))).body == SMALL
    assert (fake.requests("GET", digest), fake.requests("HEAD", digest)) == (0, 1)


async def test_leftovers_that_are_wrong_are_found_out(fake: FakeRegistry, mirror: Running) -> None:
    """A partial that lies (a power loss) fails verification, and the blob is fetched anew."""
    digest = fake.add_blob("library/x", SMALL)

    def leave_zeros() -> None:
        partial = Partial.lock(digest, mirror.config.cache.dir / "partial")
        assert partial is not None
        partial.allocate(len(SMALL), CHUNK).record(0, 5)
        partial.release()

    await asyncio.to_thread(leave_zeros)
    assert (await get(mirror.address, path_of(digest))).body == SMALL


@pytest.mark.parametrize("later", range(12))
async def test_a_fill_that_is_cancelled_twice_gives_up_its_lock(
    fake: FakeRegistry, mirror: Running, later: int
) -> None:
    """By trouble with the disk, and by the end of the mirror, whatever it is doing by then."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=LARGE // 2)
    ahead = mirror.service.cache._blobs.prefetch(Repository("docker.io", "library/x"), digest, None)
    assert ahead is not None
    await gate.reached.wait()
    for _ in range(2):
        ahead.stop()
        for _ in range(later):
            await asyncio.sleep(0)
    await ahead.wait_done()
    gate.release()
    store = mirror.service._store
    partial, _ = await store.lock_partial(Repository("docker.io", "library/x"), digest)
    assert partial is not None
    await store.release_partial(partial)
