"""A blob that the disk has corrupted: a client that asks again gets the right bytes, without an operator."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.oci.image_pattern import Pin
from mirror.store.blobs import prover
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.running import LARGE, LARGE_DATA, Running, configured, mirror_of, serving
from tests.unit.store.blobs.test_blobs import file_of
from tests.wire import Reply, Wire, get

DATA = LARGE_DATA

START, MIDDLE, END = 0, LARGE // 2, LARGE - 1

# Addresses of clients, all of this machine.
ONE, OTHER = "127.0.0.1", "127.0.0.2"


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as fake:
        yield fake


def flip(cache: Path, digest: Digest, offset: int) -> None:
    """Change one byte of a blob's file, as a failing disk does: size and name stay."""
    path = file_of(cache, digest)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    path.chmod(0o400)


async def pull(
    mirror: Running, digest: Digest, *headers: str, client: str = "127.0.0.1", method: str = "GET"
) -> Reply:
    """Ask for all of a blob from an address of loopback."""
    async with await Wire.open(mirror.address, client=client) as wire:
        wire.send(method, f"/v2/library/x/blobs/{digest}", headers)
        return await wire.reply(method)


async def pulled_once(hub: FakeRegistry, mirror: Running, client: str = OTHER) -> Digest:
    """Return a large blob that is in the cache; a client has pulled it."""
    digest = hub.add_blob("library/x", DATA)
    assert (await pull(mirror, digest, client=client)).body == DATA
    await mirror.landed(digest)
    return digest


def quarantined(mirror: Running) -> int:
    return len(list((mirror.config.cache.dir / "quarantine").iterdir()))


def proofs(reason: str, result: str) -> str:
    return f'registry_mirror_proofs_total{{reason="{reason}",result="{result}"}}'


@pytest.mark.parametrize("offset", [START, MIDDLE, END])
@pytest.mark.parametrize("had_it", [True, False])
async def test_corrupt_blob_is_fetched_again_for_the_client_that_retries(
    hub: FakeRegistry, tmp_path: Path, offset: int, had_it: bool
) -> None:
    """No complete wrong body after the first one, and the right one at the third try at the latest."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        digest = await pulled_once(hub, mirror, ONE if had_it else OTHER)
        await asyncio.to_thread(flip, mirror.config.cache.dir, digest, offset)
        replies = [await pull(mirror, digest) for _ in range(3)]
        assert (replies[0].complete and replies[0].body != DATA) is not had_it
        assert not any(each.complete and each.body != DATA for each in replies[1:])
        assert replies[-1].body == DATA
        await mirror.landed(digest)
        assert (await pull(mirror, digest)).body == DATA
        assert hub.requests("GET", digest) == 2
        assert await asyncio.to_thread(quarantined, mirror) == 1
        assert await mirror.metric(proofs("retry", "wrong")) == 1


async def test_corrupt_blob_is_found_when_the_retry_comes_to_another_worker(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """Each try is answered by another process than the one before: two mirrors on one folder."""
    async with mirror_of(hub, tmp_path / "cache") as one, mirror_of(hub, tmp_path / "cache") as two:
        digest = await pulled_once(hub, one)
        await asyncio.to_thread(flip, one.config.cache.dir, digest, START)
        replies = [await pull(mirror, digest) for mirror in (one, two, one)]
        assert [each.complete for each in replies] == [True, False, True]
        assert replies[-1].body == DATA
        assert await two.metric(proofs("retry", "wrong")) == 1


async def test_corrupt_blob_is_not_sent_whole_before_a_long_proof_ends(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client that retries waits for a proof as long as its size explains, not for seconds alone."""
    monkeypatch.setattr(prover, "HOLD_SECONDS", 0.0)
    monkeypatch.setattr(prover, "HOLD_RATE", LARGE // 60, raising=False)
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        digest = await pulled_once(hub, mirror, ONE)
        await asyncio.to_thread(flip, mirror.config.cache.dir, digest, MIDDLE)
        replies = [await pull(mirror, digest) for _ in range(2)]
        assert not any(each.complete and each.body != DATA for each in replies)
        assert replies[-1].body == DATA


@pytest.mark.slow
async def test_corrupt_blob_costs_a_crowd_of_honest_clients_one_proof(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """Clients that ask for a right blob, one after another and at once, get it; it is read again once."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        digest = await pulled_once(hub, mirror, ONE)
        for _ in range(5):
            assert (await pull(mirror, digest)).body == DATA
        crowd = await asyncio.gather(*(pull(mirror, digest) for _ in range(20)))
        assert all(each.body == DATA for each in crowd)
        assert await mirror.metric(proofs("retry", "right")) == 1


async def test_right_blob_is_not_proven_for_other_clients(hub: FakeRegistry, tmp_path: Path) -> None:
    """Each client of a popular blob gets it as the first did, through whichever worker."""
    async with mirror_of(hub, tmp_path / "cache") as one, mirror_of(hub, tmp_path / "cache") as two:
        digest = await pulled_once(hub, one)
        for number in range(3, 9):
            mirror = (one, two)[number % 2]
            assert (await pull(mirror, digest, client=f"127.0.0.{number}")).body == DATA
        assert [await each.metric(proofs("retry", "right")) for each in (one, two)] == [0, 0]
        assert (await pull(two, digest, client=OTHER)).body == DATA
        assert await two.metric(proofs("retry", "right")) == 1


async def test_right_blob_is_not_proven_for_a_client_that_asks_for_parts(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """containerd asks in chunks, and others with a HEAD or a condition: none of these is a retry."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        digest = await pulled_once(hub, mirror, ONE)
        half = LARGE // 2
        for header in (f"bytes=0-{half - 1}", f"bytes={half}-", f"bytes=0-{LARGE - 1}", "bytes=-10"):
            assert (await pull(mirror, digest, f"Range: {header}")).status == 206
        assert (await pull(mirror, digest, "If-None-Match: *")).status == 304
        assert (await pull(mirror, digest, method="HEAD")).status == 200
        assert await mirror.metric(proofs("retry", "right")) == 0
        assert (await pull(mirror, digest, "Range: bytes=0-")).body == DATA
        assert await mirror.metric(proofs("retry", "right")) == 1


async def test_corrupt_blob_is_not_sent_again_without_an_upstream(hub: FakeRegistry, tmp_path: Path) -> None:
    """Offline, the client is told why; the file stays in quarantine."""
    cache = tmp_path / "cache"
    async with mirror_of(hub, cache) as mirror:
        digest = await pulled_once(hub, mirror, ONE)
    await asyncio.to_thread(flip, cache, digest, MIDDLE)
    config = configured(cache, {"docker.io": hub.url}, server={"offline": True})
    async with serving(config) as mirror:
        assert not (await pull(mirror, digest)).complete
        for _ in range(2):
            reply = await get(mirror.address, f"/v2/docker.io/library/x/blobs/{digest}")
            assert reply.status >= 400
            assert b"corrupt on the disk and is in quarantine" in reply.body
        assert await asyncio.to_thread(quarantined, mirror) == 1


async def test_corrupt_blob_is_proven_when_first_used_after_a_day(
    hub: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of that day is not delayed; a blob that was verified less than a day ago is not read."""
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        digest = await pulled_once(hub, mirror)
        assert (await pull(mirror, digest)).body == DATA
        await proven(mirror)
        assert await mirror.metric(proofs("use", "right")) == 0
    monkeypatch.setattr(prover, "USE_SECONDS", -1.0)
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        await asyncio.to_thread(flip, mirror.config.cache.dir, digest, MIDDLE)
        assert (await pull(mirror, digest, client="127.0.0.3")).complete
        await proven(mirror)
        assert await mirror.metric(proofs("use", "wrong")) == 1
        assert (await pull(mirror, digest)).body == DATA


async def proven(mirror: Running) -> None:
    """Wait for the proofs that run."""
    tasks = mirror.service._tasks._running
    while proving := [each for each in tasks if each.get_name() == "prove blobs"]:
        await asyncio.wait(proving)


async def test_corrupt_blob_of_a_pinned_image_is_fetched_again(hub: FakeRegistry, tmp_path: Path) -> None:
    """A pin keeps an image from eviction, not a wrong file from quarantine; the pin stays."""
    image = hub.add_image("library/x", "t", [DATA])
    async with mirror_of(hub, tmp_path / "cache") as mirror:
        await mirror.service._store.upkeep.configure_pins([Pin.parse("x:t")])
        assert (await get(mirror.address, "/v2/library/x/manifests/t")).status == 200
        (digest,) = image.layers
        assert (await pull(mirror, digest)).body == DATA
        await mirror.landed(digest)
        await asyncio.to_thread(flip, mirror.config.cache.dir, digest, START)
        replies = [await pull(mirror, digest) for _ in range(2)]
        assert replies[-1].body == DATA
        await mirror.landed(digest)
        store = mirror.service._store
        assert str(digest) in await store.executor.run(store.folder.pins.pinned_sizes)


async def test_corrupt_part_of_an_interrupted_download_reaches_no_client(
    hub: FakeRegistry, tmp_path: Path
) -> None:
    """A resumed download is hashed from its beginning, so a byte that went wrong meanwhile is found."""
    digest = hub.add_blob("library/x", DATA)
    hub.fault(Fault(cut_at=LARGE // 2), digest, "GET")
    hub.fault(Fault(status=503), digest, "GET", times=4)

    def spoil() -> None:
        (path,) = (tmp_path / "cache" / "partial").glob("*.data")
        with path.open("r+b") as file:
            file.write(bytes([DATA[0] ^ 1]))

    async with mirror_of(hub, tmp_path / "cache") as mirror:
        assert not (await pull(mirror, digest)).complete
        await asyncio.to_thread(spoil)
        replies = [await pull(mirror, digest) for _ in range(2)]
        assert not any(each.complete and each.body != DATA for each in replies)
        assert replies[-1].body == DATA
