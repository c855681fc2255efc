"""Two mirrors on one cache folder: what one of them downloads, clients of both have meanwhile.

Each has locks and maps of its own, as two processes have; tests/e2e/test_workers.py has real ones.
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
from tests.running import CHUNK, LARGE, Running, mirror_of
from tests.wire import Wire, get

pytestmark = pytest.mark.usefixtures("no_pauses")

BIG = bytes(range(256)) * (LARGE // 256)
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
    """A client whose answer has begun."""
    async with await Wire.open(mirror.address) as wire:
        wire.send("GET", path_of(digest), headers)
        assert (await wire.head()).status in (200, 206)
        yield wire


async def test_readers_follow_what_another_process_downloads(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """Both clients have all that has come; the holdback comes to both when one has verified it."""
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


async def test_the_next_process_goes_on_where_one_stopped(fake: FakeRegistry, tmp_path: Path) -> None:
    """Its readers notice nothing, and no byte comes twice."""
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
        assert ranges[1] == f"bytes={HALF}-"
        assert fake.requests("GET", digest) == 2


async def test_wrong_bytes_of_another_process_end_short(
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


async def test_what_another_process_throws_away_is_passed_through(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """What was sent here was right, as a second transfer shows, which also brings the rest of it."""
    digest = fake.add_blob("library/x", BIG)
    gate = fake.hold(digest, after=HALF)
    fake._planned[-1].fault = Fault(hold=gate, after=HALF, data=flipped(BIG, LARGE - 1))
    async with asking(first, digest) as one, asking(second, digest) as two:
        await two.reader.readexactly(CHUNK)
        gate.release()
        assert len(await one.reader.read(-1)) <= LARGE - CHUNK
        assert await two.reader.readexactly(LARGE - CHUNK) == BIG[CHUNK:]
    assert await second.metric("registry_mirror_passed_through_total") == 1
    assert second.service._store.is_writable


async def test_what_is_begun_anew_is_not_sent_as_the_rest_of_the_old(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """Who downloads has no reader, and asks once more; a reader of another process has had wrong bytes."""
    digest = fake.add_blob("library/x", BIG)
    wrong, again = fake.hold(digest, after=HALF), fake.hold(digest, after=HALF)
    fake._planned[0].fault = Fault(hold=wrong, after=HALF, data=flipped(BIG))
    ahead = first.service.cache._blobs.prefetch(Repository("docker.io", "library/x"), digest, None)
    assert ahead is not None
    async with asking(second, digest) as reader:
        await wrong.reached.wait()
        await reader.reader.readexactly(CHUNK)
        wrong.release()
        await again.reached.wait()
        assert len(await reader.reader.read(-1)) < LARGE - CHUNK
        later = asyncio.ensure_future(get(second.address, path_of(digest)))
        again.release()
        assert (await later).body == BIG


async def test_what_a_reader_elsewhere_waits_for_is_brought_first(fake: FakeRegistry, tmp_path: Path) -> None:
    """A range near the end, asked of the process that does not download, is not the last to come."""
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


async def test_a_repository_without_a_link_is_asked_about(
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


async def test_small_blobs_are_had_from_one_download_too(
    fake: FakeRegistry, first: Running, second: Running
) -> None:
    """There is nothing to follow; the second process waits for the lock, and finds it in the store."""
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


async def test_a_manifest_is_asked_for_once(fake: FakeRegistry, first: Running, second: Running) -> None:
    """By tag and by digest: each GET counts against the rate limit, so only one process makes it."""
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


async def test_the_lock_is_given_up_though_the_disk_keeps_the_names(
    fake: FakeRegistry, first: Running, second: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has followed locks what is done, to see that; on a disk that became read-only, to be gone again."""
    monkeypatch.setattr(follow, "LOCK_SECONDS", 0.3)  # not while the other one has it
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
