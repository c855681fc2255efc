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
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, mirror_of
from tests.wire import Wire, get

pytestmark = pytest.mark.usefixtures("no_pauses")

BIG = LARGE_DATA
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
async def test_fill_of_every_size_and_algorithm(
    fake: FakeRegistry, mirror: Running, data: bytes, algorithm: str
) -> None:
    """First from the fill, then from the store; afterwards the partial is gone and the store consistent."""
    digest = fake.add_blob("library/x", data, algorithm)
    for _ in range(2):
        reply = await get(mirror.address, path_of(digest))
        assert (reply.status, reply.body, reply.complete) == (200, data, True)
        await mirror.landed(digest)
    # The size is not known: an empty blob is requested with a range first, which it does not have.
    assert fake.requests("GET", digest) == (1 if data else 2)
    assert await partials(mirror) == []
    assert await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="miss"}') == 1
    assert await mirror.metric('registry_mirror_requests_total{kind="blob",outcome="hit"}') == 1


async def test_fill_resumes_after_a_connection_reset(fake: FakeRegistry, mirror: Running) -> None:
    """An RST may destroy bytes that had arrived; the client has them all the same."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(reset_at=LARGE // 2), digest, "GET")
    assert (await get(mirror.address, path_of(digest))).body == BIG


async def test_fill_resumes_a_broken_transfer(fake: FakeRegistry, mirror: Running) -> None:
    """The client notices nothing, and no received byte is requested again."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    reply = await get(mirror.address, path_of(digest))
    assert (reply.status, reply.body) == (200, BIG)
    first, second = ranges_asked(fake, digest)
    assert first == "bytes=0-8388607"
    assert second == f"bytes={LARGE // 2}-{LARGE - 1}"
    assert await mirror.metric('registry_mirror_upstream_bytes_total{upstream="docker.io"}') == len(BIG)


async def test_fill_skips_received_bytes_when_range_is_ignored(fake: FakeRegistry, mirror: Running) -> None:
    """A 200 to a resume starts at zero; the file is right all the same."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    fake.fault(Fault(no_ranges=True), digest, "GET")
    assert (await get(mirror.address, path_of(digest))).body == BIG


async def test_fill_with_wrong_bytes_retries_when_nothing_was_sent(
    fake: FakeRegistry, mirror: Running
) -> None:
    """A small blob is sent only once verified, so one corrupt transfer goes unnoticed."""
    digest = fake.add_blob("library/x", SMALL)
    fake.fault(Fault(data=flipped(SMALL)), digest, "GET")
    assert (await get(mirror.address, path_of(digest))).body == SMALL
    assert await mirror.metric('registry_mirror_fill_failures_total{reason="digest"}') == 1


async def test_fill_with_wrong_bytes_twice_fails_and_keeps_nothing(
    fake: FakeRegistry, mirror: Running
) -> None:
    """The error says what happened; the next request starts from nothing and succeeds."""
    digest = fake.add_blob("library/x", SMALL)
    fake.fault(Fault(data=flipped(SMALL)), digest, "GET", times=2)
    reply = await get(mirror.address, path_of(digest))
    assert reply.status == 502
    assert b"not sha256:" in reply.body
    assert await partials(mirror) == []
    assert (await get(mirror.address, path_of(digest))).body == SMALL


async def test_fill_with_wrong_bytes_cuts_readers_of_a_large_blob(
    fake: FakeRegistry, mirror: Running
) -> None:
    """Readers are cut with FIN before the holdback: a short body, never a complete wrong one."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(data=flipped(BIG, len(BIG) - 1)), digest, "GET")
    reply = await get(mirror.address, path_of(digest))
    assert (reply.status, reply.complete, reply.reset) == (200, False, False)
    assert len(reply.body) <= HELD
    assert await partials(mirror) == []
    again = await get(mirror.address, path_of(digest))
    # Perhaps only the range was wrong: the next request is plain.
    assert (again.body, ranges_asked(fake, digest)) == (BIG, ["bytes=0-8388607", None])


async def test_fill_holds_back_the_last_chunk(fake: FakeRegistry, mirror: Running) -> None:
    """A reader has everything up to the holdback and no more, with all but one byte here."""
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


async def test_fill_goes_on_without_its_first_client(fake: FakeRegistry, mirror: Running) -> None:
    """A fill goes on after its client has left, and the next client joins the fill."""
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


async def test_fill_is_not_slowed_by_a_stuck_client(fake: FakeRegistry, tmp_path: Path) -> None:
    """One client stops reading after the head; another gets the whole blob meanwhile."""
    digest = fake.add_blob("library/x", BIG * 8)
    one_connection = {"chunk_size": CHUNK, "parallel": 1}
    async with mirror_of(fake, tmp_path / "cache", fill=one_connection) as mirror:
        async with await Wire.open(mirror.address) as stuck:
            stuck.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stuck.send("GET", path_of(digest))
            assert (await get(mirror.address, path_of(digest))).body == BIG * 8
        assert fake.requests("GET", digest) == 1


async def test_fill_resumes_after_a_restart(fake: FakeRegistry, tmp_path: Path) -> None:
    """Bytes that a stopped mirror had received are not requested again (invariant 10)."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=LARGE // 2)
    async with AsyncExitStack() as stack, mirror_of(fake, tmp_path / "cache") as first:
        wire = await stack.enter_async_context(await Wire.open(first.address))
        wire.send("GET", path_of(digest))
        await wire.head()
        await wire.reader.readexactly(CHUNK)
        await gate.reached.wait()
        await wire.reader.readexactly(LARGE // 2 - 2 * CHUNK)
        wire.reset()
        first.stop.set()
    async with mirror_of(fake, tmp_path / "cache") as second:
        assert (await get(second.address, path_of(digest))).body == BIG
        start, stop = str(ranges_asked(fake, digest)[1]).removeprefix("bytes=").split("-")
        assert int(start) > LARGE // 4
        assert int(stop) == LARGE - 1


async def test_fill_that_gives_up_keeps_the_received_bytes(fake: FakeRegistry, mirror: Running) -> None:
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


async def test_fill_that_fails_before_the_first_byte_is_an_error_status(
    fake: FakeRegistry, mirror: Running
) -> None:
    """A failure before the first byte is reported as a status; after a range, one plain request is tried."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(status=503), digest, "GET", times=2)
    reply = await get(mirror.address, path_of(digest))
    assert reply.status == 424
    assert ["Range" in seen.headers for seen in fake.log] == [True, False]


async def test_fill_of_a_size_other_than_the_manifests(fake: FakeRegistry, mirror: Running) -> None:
    """No client receives a byte of another length before the digest has decided."""
    image = fake.add_image("library/x", "t", [BIG])
    await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
    fake.fault(Fault(data=BIG + b"!"), image.layers[0], "GET")
    assert (await get(mirror.address, path_of(image.layers[0]))).body == BIG
    fake.add_image("library/x", "u", [BIG[::-1]])
    await get(mirror.address, "/v2/docker.io/library/x/manifests/u")
    other = Digest.of(BIG[::-1])
    fake.fault(Fault(data=BIG[::-1] + b"!"), other, "GET", times=9)
    assert (await get(mirror.address, path_of(other))).status == 502


async def test_fill_without_content_length_takes_the_size_from_elsewhere(
    fake: FakeRegistry, mirror: Running
) -> None:
    """The size of a chunked response comes from the manifest, or from a HEAD."""
    image = fake.add_image("library/x", "t", [SMALL])
    await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
    loose = fake.add_blob("library/x", b"not named by any manifest")
    for digest, data in ((image.layers[0], SMALL), (loose, b"not named by any manifest")):
        fake.fault(Fault(chunked=True, no_ranges=True), digest, "GET")
        assert (await get(mirror.address, path_of(digest))).body == data
    assert fake.requests("HEAD", loose) == 1
    assert fake.requests("HEAD", image.layers[0]) == 0


async def test_fill_waits_for_the_lock_of_another_process(
    fake: FakeRegistry, mirror: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request goes upstream while another process has the lock; the fill starts when it is free."""
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


async def test_fill_finds_the_blob_of_another_process_in_the_store(
    fake: FakeRegistry, mirror: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two mirrors on one folder: the blob is downloaded by one of them (invariant 2)."""
    monkeypatch.setattr(follow, "LOCK_SECONDS", 0.001)
    digest = fake.add_blob("library/x", SMALL)
    other = await Store.open(mirror.config.cache.dir)
    partial, _ = await other.transfers.lock_partial(Repository("docker.io", "library/x"), digest)
    assert partial is not None
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest))
        writer = await other.transfers.open_growing_file(partial, len(SMALL), CHUNK)
        await writer.write(0, [SMALL])
        await writer.verifier.hash_contiguous()
        verified = writer.verifier.complete()
        assert verified is not None
        await other.transfers.adopt(verified)
        await other.transfers.discard_partial(partial)
        await other.transfers.release_partial(partial)
        assert (await wire.reply()).body == SMALL
    await other.close()
    assert (fake.requests("GET", digest), fake.requests("HEAD", digest)) == (0, 1)


@pytest.mark.parametrize("sent", [SMALL + b"more", SMALL[:-1]], ids=["longer", "shorter"])
async def test_fill_refuses_a_body_of_another_length(
    fake: FakeRegistry, mirror: Running, sent: bytes
) -> None:
    """The length is found wrong at the end: nothing of the body is sent or kept."""
    image = fake.add_image("library/x", "t", [SMALL])
    await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
    fake.fault(Fault(data=sent, chunked=True), image.layers[0], "GET", times=9)
    assert (await get(mirror.address, path_of(image.layers[0]))).status == 502


async def test_fill_without_any_size(fake: FakeRegistry, mirror: Running) -> None:
    """Neither response nor HEAD nor manifest has a size: the end of the blob tells it."""
    digest = fake.add_blob("library/x", SMALL)
    fake.fault(Fault(chunked=True, no_ranges=True), digest, times=4)
    reply = await get(mirror.address, path_of(digest))
    assert (reply.status, reply.body) == (200, SMALL)


async def test_fill_refuses_a_resume_with_another_size(fake: FakeRegistry, mirror: Running) -> None:
    """The rest of other content is not appended: readers are cut, and the next request is right."""
    digest = fake.add_blob("library/x", BIG)
    fake.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    fake.fault(Fault(data=BIG + b"more"), digest, "GET", times=2)
    assert not (await get(mirror.address, path_of(digest))).complete
    assert (await get(mirror.address, path_of(digest))).body == BIG


async def test_fill_recreates_a_partial_of_another_size(fake: FakeRegistry, mirror: Running) -> None:
    """A partial that does not fit the announced size is recreated; bytes that have arrived are used."""
    digest = fake.add_blob("library/x", BIG)

    def leave_wrong_size() -> None:
        partial = Partial.lock(digest, mirror.config.cache.dir / "partial")
        assert partial is not None
        partial.allocate(3 * CHUNK, CHUNK).record(0, CHUNK)
        partial.release()

    await asyncio.to_thread(leave_wrong_size)
    assert (await get(mirror.address, path_of(digest))).body == BIG
    assert sorted(map(str, ranges_asked(fake, digest))) == [
        "bytes=0-65535",
        f"bytes=196608-{LARGE - 1}",
        "bytes=65536-196607",
    ]


async def test_fill_killed_before_its_last_step_needs_no_download(
    fake: FakeRegistry, mirror: Running
) -> None:
    """All bytes are here but not verified: a HEAD confirms the link, and the blob is verified and adopted."""
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


async def test_fill_detects_a_wrong_partial(fake: FakeRegistry, mirror: Running) -> None:
    """A partial with wrong bytes (a power loss) fails verification, and the blob is fetched again."""
    digest = fake.add_blob("library/x", SMALL)

    def leave_zeros() -> None:
        partial = Partial.lock(digest, mirror.config.cache.dir / "partial")
        assert partial is not None
        partial.allocate(len(SMALL), CHUNK).record(0, 5)
        partial.release()

    await asyncio.to_thread(leave_zeros)
    assert (await get(mirror.address, path_of(digest))).body == SMALL


@pytest.mark.parametrize("later", range(12))
async def test_fill_cancelled_twice_releases_its_lock(
    fake: FakeRegistry, mirror: Running, later: int
) -> None:
    """Cancelled by disk trouble and by shutdown, at any step of its clean-up."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=LARGE // 2)
    flight = mirror.service.cache._blobs.prefetch(Repository("docker.io", "library/x"), digest, None)
    assert flight is not None
    await gate.reached.wait()
    for _ in range(2):
        assert flight.task is not None
        flight.task.cancel()
        for _ in range(later):
            await asyncio.sleep(0)
    await flight.wait_done()
    gate.release()
    store = mirror.service._store
    partial, _ = await store.transfers.lock_partial(Repository("docker.io", "library/x"), digest)
    assert partial is not None
    await store.transfers.release_partial(partial)
