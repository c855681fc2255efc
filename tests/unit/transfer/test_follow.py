"""Following: two mirrors on one cache folder, whose clients share one download.

Each mirror has locks and maps of its own, as two processes have; tests/e2e/test_workers.py starts processes.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.reference import Repository
from mirror.store.lock import lock_path, try_lock
from mirror.transfer import follow
from tests.fakes.faults import Fault, flipped
from tests.fakes.registry import FakeRegistry
from tests.running import CHUNK, LARGE, LARGE_DATA, Running, mirror_of
from tests.wire import Wire, get

pytestmark = pytest.mark.usefixtures("no_pauses")

BIG = LARGE_DATA
HALF = LARGE // 2


@pytest.fixture
async def first(fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


@pytest.fixture
async def second(first: Running, fake: FakeRegistry, tmp_path: Path) -> AsyncIterator[Running]:
    async with mirror_of(fake, tmp_path / "cache") as mirror:
        yield mirror


def path_of(digest: Digest) -> str:
    return f"/v2/docker.io/library/x/blobs/{digest}"


@asynccontextmanager
async def asking(mirror: Running, digest: Digest, *headers: str) -> AsyncIterator[Wire]:
    """A client whose response has begun."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest), headers)
        assert (await wire.head()).status in (200, 206)
        yield wire


async def test_follow_reads_the_fill_of_another_process(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """Both clients have all received bytes, and the holdback once one process has verified it."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=HALF)
    async with asking(first, digest) as one:
        await gate.reached.wait()
        async with asking(second, digest) as two:
            assert await two.reader.readexactly(HALF - CHUNK) == BIG[: HALF - CHUNK]
            gate.release()
            assert await two.reader.readexactly(LARGE - HALF + CHUNK) == BIG[HALF - CHUNK :]
        assert await one.reader.readexactly(LARGE) == BIG
    assert fake.requests("GET", digest) == 1
    await second.landed(digest)
    assert (await get(second.address, path_of(digest))).body == BIG
    assert await asyncio.to_thread(lambda: list((first.config.cache.dir / "partial").iterdir())) == []


async def test_follow_continues_the_fill_of_a_stopped_process(fake: FakeRegistry, tmp_path: Path) -> None:
    """The readers notice nothing, and no byte comes twice."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=HALF)
    async with (
        mirror_of(fake, tmp_path / "cache") as second,
        mirror_of(fake, tmp_path / "cache", server={"shutdown_timeout": 0}) as first,
        asking(first, digest) as one,
        asking(second, digest) as two,
    ):
        await gate.reached.wait()
        for wire in (one, two):
            assert await wire.reader.readexactly(HALF - CHUNK) == BIG[: HALF - CHUNK]
        first.stop.set()
        assert await two.reader.readexactly(LARGE - HALF + CHUNK) == BIG[HALF - CHUNK :]
        ranges = [seen.headers.get("Range") for seen in fake.log if seen.method == "GET"]
        assert ranges[1] == f"bytes={HALF}-{LARGE - 1}"
        assert fake.requests("GET", digest) == 2


async def test_follow_cuts_readers_when_the_other_fill_is_corrupt(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """Clients of every process are cut before the holdback, with FIN; the next request is right."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=HALF)
    fake._planned[-1].fault = Fault(hold=gate, after=HALF, data=flipped(BIG, 10))
    async with asking(first, digest) as one, asking(second, digest) as two:
        await two.reader.readexactly(CHUNK)
        await one.reader.readexactly(CHUNK)
        gate.release()
        for wire in (one, two):
            assert len(await wire.reader.read(-1)) <= LARGE - 2 * CHUNK
    assert (await get(second.address, path_of(digest))).body == BIG
    assert await second.metric('registry_mirror_fill_failures_total{reason="disk"}') == 0


async def test_follow_passes_through_when_the_other_fill_is_discarded(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """A second transfer shows that the bytes sent so far were right, and brings the rest."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=HALF)
    fake._planned[-1].fault = Fault(hold=gate, after=HALF, data=flipped(BIG, LARGE - 1))
    async with asking(first, digest) as one, asking(second, digest) as two:
        await two.reader.readexactly(CHUNK)
        gate.release()
        assert len(await one.reader.read(-1)) <= LARGE - CHUNK
        assert await two.reader.readexactly(LARGE - CHUNK) == BIG[CHUNK:]
    assert await second.metric("registry_mirror_passed_through_total") == 1
    assert second.service._store.room.is_writable


async def test_follow_does_not_mix_a_restarted_fill_with_the_old_one(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """The filling process has no reader, and retries; a reader elsewhere has received wrong bytes."""
    digest = fake.add_blob("library/x", BIG)
    # The retry may begin at any offset: where the reader elsewhere waits.
    wrong, again = fake.hold(digest, after=HALF), fake.hold(digest, after=-1)
    fake._planned[0].fault = Fault(hold=wrong, after=HALF, data=flipped(BIG))
    flight = first.service.cache._blobs.prefetch(Repository("docker.io", "library/x"), digest, None)
    assert flight is not None
    await wrong.reached.wait()  # or the other process might be the one that fills
    async with asking(second, digest) as reader:
        await reader.reader.readexactly(CHUNK)
        wrong.release()
        await again.reached.wait()
        assert len(await reader.reader.read(-1)) < LARGE - CHUNK
        later = asyncio.ensure_future(get(second.address, path_of(digest)))
        again.release()
        assert (await later).body == BIG


async def test_follow_priority_of_a_remote_reader(fake: FakeRegistry, tmp_path: Path) -> None:
    """A range near the end, requested at the process that does not download, is not the last to arrive."""
    whole = BIG * 4
    digest = fake.add_blob("library/x", whole)
    gate = fake.hold(digest, after=CHUNK)
    fill = {"parallel_above": 0, "parallel": 2}
    at = len(whole) - 8 * CHUNK
    async with (
        mirror_of(fake, tmp_path / "cache", fill=fill) as first,
        mirror_of(fake, tmp_path / "cache", fill=fill) as second,
        asking(first, digest) as one,
        asking(second, digest, f"Range: bytes={at}-{at + 99}") as two,
    ):
        await gate.reached.wait()
        assert await two.reader.readexactly(100) == whole[at : at + 100]
        gate.release()
        assert await one.reader.readexactly(len(whole)) == whole


async def test_follow_confirms_the_link_of_its_repository(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """Following opens nothing: the upstream says whether this repository has the blob (invariant 5)."""
    digest = fake.add_blob("library/x", BIG)
    fake.repository("library/y")
    gate = fake.hold(digest, after=HALF)
    async with asking(first, digest) as one:
        await gate.reached.wait()
        reply = await get(second.address, f"/v2/docker.io/library/y/blobs/{digest}")
        assert reply.status == 404
        gate.release()
        assert await one.reader.readexactly(LARGE) == BIG


async def test_follow_small_blobs_share_one_download(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """There is nothing to follow; the second process waits for the lock, and finds the blob in the store."""
    image = fake.add_image("library/x", "t", [b"small"])
    for mirror in (first, second):
        await get(mirror.address, "/v2/docker.io/library/x/manifests/t")
    gate = fake.hold(image.layers[0], after=2)
    async with await Wire.open(first.address) as one, await Wire.open(second.address) as two:
        one.send("GET", path_of(image.layers[0]))
        await gate.reached.wait()
        two.send("GET", path_of(image.layers[0]))
        await get(second.address, "/v2/")
        gate.release()
        assert (await one.reply()).body == (await two.reply()).body == b"small"
    assert fake.requests("GET", image.layers[0]) == 1


async def test_follow_manifests_share_one_request(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """Only one process makes the GET, by tag and by digest, because each counts against the rate limit."""
    image = fake.add_image("library/x", "t", [b"small"])
    other = fake.add_image("library/x", None, [b"other"])
    for path, name in (("t", "manifests/t"), (other.manifest, str(other.manifest))):
        gate = fake.hold(name, after=2)
        url = f"/v2/docker.io/library/x/manifests/{path}"
        async with await Wire.open(first.address) as one, await Wire.open(second.address) as two:
            one.send("GET", url)
            await gate.reached.wait()
            two.send("GET", url)
            await get(second.address, "/v2/")
            gate.release()
            assert (await one.reply()).body == (await two.reply()).body
        assert fake.requests("GET", name) == 1
    assert fake.requests("GET", str(image.manifest)) == 0


async def test_follow_releases_the_lock_on_a_read_only_disk(
    fake: FakeRegistry, first: Running, second: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower locks a finished partial to see its state; it unlocks though its files stay."""
    monkeypatch.setattr(follow, "LOCK_SECONDS", 0.3)  # not tried while the other process has the lock
    digest = fake.add_blob("library/x", BIG)
    gate, real = fake.hold(digest, after=HALF), os.unlink

    def unlink(path: str | os.PathLike[str], **options: int) -> None:
        if Path(path).parent.name == "partial":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, **options)

    async with asking(first, digest) as one, asking(second, digest) as two:
        await gate.reached.wait()
        await two.reader.readexactly(CHUNK)
        monkeypatch.setattr(os, "unlink", unlink)
        gate.release()
        assert await one.reader.readexactly(LARGE) == BIG
        assert await two.reader.readexactly(LARGE - CHUNK) == BIG[CHUNK:]
    await first.landed(digest)
    await second.landed(digest)
    lock = await asyncio.to_thread(try_lock, lock_path(digest, first.config.cache.dir / "partial"))
    assert lock is not None
    await asyncio.to_thread(os.close, lock)
