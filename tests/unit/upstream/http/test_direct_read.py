"""Large bodies reader from the socket: the same bytes, the same errors, a connection that is reused."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.http.direct_read import BUFFER, FIRST, DirectReader
from mirror.upstream.http.transport import PartReader
from mirror.upstream.registry_client import RegistryClient
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.fakes.upstream import registry_at

# Length of what a slow network delivers at a time, in bytes.
PIECE = 16 * 1024

DATA = random.Random(1).randbytes(3 * BUFFER + 17)


@asynccontextmanager
async def direct_parts(registry: RegistryClient, digest: Digest, start: int = 0) -> AsyncIterator[PartReader]:
    """Open a blob and take its body over."""
    async with registry.open_blob("a", digest, start) as body:
        reader = body.content.direct_reader()
        assert reader is not None
        yield reader


async def rest(next_parts: PartReader) -> bytes:
    """Return all bytes to the end."""
    received = bytearray()
    await read_on(next_parts, received)
    return bytes(received)


async def read_on(next_parts: PartReader, received: bytearray) -> None:
    while parts := await next_parts():
        received += b"".join(parts)


async def broken(registry: RegistryClient, digest: Digest) -> tuple[bytes, Failure]:
    """Return the bytes before the body broke, and the failure."""
    received = bytearray()
    async with direct_parts(registry, digest) as next_parts:
        with pytest.raises(UpstreamError) as raised:
            await read_on(next_parts, received)
    return bytes(received), raised.value.failure


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("piece", [None, 100_000])
async def test_direct_read_returns_the_bytes_of_the_body(piece: int | None, start: int) -> None:
    """Bytes are those of the body, whole or from the middle, in writes of any size; all are counted."""
    metrics = Metrics()
    async with FakeRegistry() as fake, registry_at(fake.url, metrics=metrics) as registry:
        digest = fake.add_blob("a", DATA)
        fake.piece = piece
        async with direct_parts(registry, digest, start) as next_parts:
            assert await rest(next_parts) == DATA[start:]
    counted = next(iter(metrics.upstream_bytes.labels("docker.io").collect())).samples[0].value
    assert counted == len(DATA) - start


async def test_direct_read_gathers_small_pieces() -> None:
    """The pieces of a slow network come in fewer parts, the first one at once."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.piece = PIECE
        fake.fault(Fault(drip=0.001))
        sizes = []
        async with direct_parts(registry, digest) as next_parts:
            while parts := await next_parts():
                sizes.append(sum(map(len, parts)))
        assert sum(sizes) == len(DATA)
        assert sizes[0] <= FIRST
        assert len(sizes) < len(DATA) / PIECE / 3


async def test_direct_read_reuses_the_connection() -> None:
    """The connection is free once the last byte is here, though not yet read; small bodies reuse it too."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        large, small = fake.add_blob("a", DATA), fake.add_blob("a", b"small")
        for _ in range(3):
            async with direct_parts(registry, large) as next_parts:
                assert await rest(next_parts) == DATA
                assert await registry.get_blob("a", small, 100) == b"small"
        assert len({seen.peer for seen in fake.log}) == 1


async def test_direct_read_over_tls(tmp_path: Path) -> None:
    """A body over TLS is read as one without."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with (
        FakeRegistry(tls=authority.server_context()) as fake,
        registry_at(fake.url, ca_file=authority.ca_file) as registry,
    ):
        digest = fake.add_blob("a", DATA)
        for _ in range(2):
            async with direct_parts(registry, digest) as next_parts:
                assert await rest(next_parts) == DATA
        assert len({seen.peer for seen in fake.log}) == 1


@pytest.mark.parametrize("cut", [100, BUFFER, len(DATA) - 1])
async def test_direct_read_of_a_body_that_ends_too_early(cut: int) -> None:
    """All bytes before the end are returned, then UNREACHABLE is raised."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(Fault(cut_at=cut), times=9)
        assert await broken(registry, digest) == (DATA[:cut], Failure.UNREACHABLE)


async def test_direct_read_of_a_body_that_stalls() -> None:
    """TIMEOUT is raised if no byte comes for `read_timeout`, after all bytes before."""
    async with FakeRegistry() as fake, registry_at(fake.url, read_timeout=0.2) as registry:
        digest = fake.add_blob("a", DATA)
        fake.hold(digest, after=BUFFER)
        assert await broken(registry, digest) == (DATA[:BUFFER], Failure.TIMEOUT)


async def test_direct_read_closes_the_connection_of_an_unfinished_body() -> None:
    """A caller that leaves in mid-body does not wait for the rest, and the connection is not reused."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.hold(digest, after=BUFFER)
        async with direct_parts(registry, digest) as next_parts:
            await next_parts()
        await fake.log[0].finished.wait()
        assert fake.log[0].aborted


@pytest.mark.parametrize("fault", [Fault(chunked=True), Fault(data=DATA[: BUFFER - 1])])
async def test_direct_read_leaves_chunked_and_small_bodies_to_aiohttp(fault: Fault) -> None:
    """The parser finds the end of a chunked body; a small body is not worth taking over."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(fault)
        async with registry.open_blob("a", digest) as body:
            assert body.content.direct_reader() is None


async def test_direct_read_loses_nothing_if_aiohttp_resumes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """aiohttp resumes a paused connection when an earlier answer is read late: no byte is lost."""
    made: list[DirectReader] = []
    real = DirectReader.__init__

    def record(self: DirectReader, *arguments: Any) -> None:
        made.append(self)
        real(self, *arguments)

    monkeypatch.setattr(DirectReader, "__init__", record)
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        small, large = fake.add_blob("a", b"small"), fake.add_blob("a", DATA)
        async with registry.open_blob("a", small) as before, direct_parts(registry, large) as next_parts:
            received = bytearray().join(await next_parts())
            received += b"".join(await next_parts())
            transport = made[0]._socket.transport
            assert transport is not None
            while transport.is_reading():  # noqa: ASYNC110  # nothing else tells
                await asyncio.sleep(0)
            assert [piece async for piece in before.chunks()] == [b"small"]
            assert transport.is_reading()
            while transport.is_reading():  # noqa: ASYNC110
                await asyncio.sleep(0)
            await read_on(next_parts, received)
        assert received == DATA
        assert len({seen.peer for seen in fake.log}) == 1
