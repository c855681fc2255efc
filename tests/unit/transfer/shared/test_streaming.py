"""Uploads beside a running fill: early, complete after verification alone, and gone with the fill."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.oci.digest import Digest
from mirror.shared.engines import Engines
from mirror.shared.interfaces import VerifiedContent
from mirror.shared.memory import MemoryLeases, MemoryTier
from tests.fakes.faults import Fault, Gate
from tests.fakes.registry import FakeRegistry
from tests.running import Running, configured, serving
from tests.unit.shared.test_tier import fit
from tests.wire import get

MiB = 1024 * 1024
DATA = bytes(range(256)) * (12 * MiB // 256)
X = "/v2/docker.io/library/x"


class Watched(MemoryTier):
    """A store that tells how far an upload has come, and how each one ended."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.uploads: list[str] = []

    async def put(self, content: VerifiedContent) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            received = 0
            async for chunk in content.chunks():
                received += len(chunk)
                if received >= 4 * MiB:
                    self.begun.set()
                yield chunk

        try:
            await super().put(VerifiedContent(content.digest, content.size, chunks))
            self.uploads.append("completed")
        except BaseException:
            self.uploads.append("aborted")
            raise
        finally:
            self.ended.set()


@pytest.fixture
async def objects() -> Watched:
    return Watched()


@pytest.fixture
async def mirror(
    fake: FakeRegistry, objects: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Running]:
    """A mirror whose engines are in memory; one connection, so that a held answer holds the download."""
    engines = Engines("s3://memory", objects, MemoryLeases(), fit)
    monkeypatch.setattr("mirror.shared.engines.open_engines", lambda settings: engines)
    shared, fill = {"url": "s3://memory"}, {"parallel": 1}
    config = configured(tmp_path, {"docker.io": fake.url}, shared=shared, fill=fill)
    async with serving(config) as mirror:
        while not mirror.service.shared or not mirror.service.shared.tier.usable:  # noqa: ASYNC110
            await asyncio.sleep(0)
        yield mirror


async def test_streaming_upload_begins_while_the_upstream_sends(
    fake: FakeRegistry, mirror: Running, objects: Watched
) -> None:
    """Most of the blob is sent to the store by then; it has no name before the last byte is verified."""
    digest = fake.add_blob("library/x", DATA)
    gate = fake.hold(digest, after=len(DATA) - MiB)
    pulling = mirror.service._tasks.spawn(get(mirror.address, f"{X}/blobs/{digest}"), name="pull")
    await objects.begun.wait()
    await gate.reached.wait()
    assert gate.waiting == 1
    assert await objects.stat(digest) is None
    gate.release()
    assert (await pulling).body == DATA
    await objects.ended.wait()
    while mirror.service.shared is None or mirror.service.shared.publisher._workers:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert objects.uploads == ["completed"]
    assert await objects.stat(digest) is not None


async def test_streaming_upload_of_wrong_bytes_is_never_completed(
    fake: FakeRegistry, mirror: Running, objects: Watched, no_pauses: None
) -> None:
    """The upstream sends other bytes than the digest says: nothing gets a name."""
    digest = Digest.of(b"something else")
    fake.repository("library/x").blobs[str(digest)] = DATA
    gate = fake.hold(digest, after=len(DATA) - MiB)
    pulling = mirror.service._tasks.spawn(get(mirror.address, f"{X}/blobs/{digest}"), name="pull")
    await objects.begun.wait()
    gate.release()
    reply = await pulling
    assert reply.status != 200 or not reply.complete
    await objects.ended.wait()
    assert objects.uploads[0] == "aborted"
    assert await objects.stat(digest) is None


async def test_streaming_upload_ends_with_a_fill_that_fails(
    fake: FakeRegistry, mirror: Running, objects: Watched, no_pauses: None
) -> None:
    """The upstream breaks off and answers no more: the upload is aborted, and leaves nothing."""
    digest = fake.add_blob("library/x", DATA)
    gate = Gate()
    fake.fault(Fault(hold=gate, after=len(DATA) - MiB, cut_at=len(DATA) - MiB + 1), digest)
    fake.fault(Fault(status=404), digest, times=100)
    pulling = mirror.service._tasks.spawn(get(mirror.address, f"{X}/blobs/{digest}"), name="pull")
    await objects.begun.wait()
    gate.release()
    assert not (await pulling).complete
    await objects.ended.wait()
    assert objects.uploads == ["aborted"]
    assert await objects.stat(digest) is None
