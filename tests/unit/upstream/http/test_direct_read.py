"""Bodies straight from the socket: the same bytes, the same errors, and a connection that is used again."""

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
from mirror.upstream.http.direct_read import BUFFER, DirectReader
from mirror.upstream.http.transport import PartReader
from mirror.upstream.registry_client import RegistryClient
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.tls import Authority
from tests.fakes.upstream import registry_at

DATA = random.Random(1).randbytes(3 * BUFFER + 17)


@asynccontextmanager
async def arriving(registry: RegistryClient, digest: Digest, start: int = 0) -> AsyncIterator[PartReader]:
    async with registry.open_blob("a", digest, start) as body:
        straight = body.direct_reader()
        assert straight is not None
        yield straight


async def rest(next_parts: PartReader) -> bytes:
    """Everything to the end."""
    received = bytearray()
    await read_on(next_parts, received)
    return bytes(received)


async def read_on(next_parts: PartReader, received: bytearray) -> None:
    while parts := await next_parts():
        received += b"".join(parts)


async def broken(registry: RegistryClient, digest: Digest) -> tuple[bytes, Failure]:
    """What came before the body broke, and how it did."""
    received = bytearray()
    async with arriving(registry, digest) as next_parts:
        with pytest.raises(UpstreamError) as raised:
            await read_on(next_parts, received)
    return bytes(received), raised.value.failure


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("piece", [None, 100_000])
async def test_the_bytes_are_those_of_the_body(piece: int | None, start: int) -> None:
    """Whole or from the middle, in whatever pieces they are sent; all of them are counted."""
    metrics = Metrics()
    async with FakeRegistry() as fake, registry_at(fake.url, metrics=metrics) as registry:
        digest = fake.add_blob("a", DATA)
        fake.piece = piece
        async with arriving(registry, digest, start) as next_parts:
            assert await rest(next_parts) == DATA[start:]
    counted = next(iter(metrics.upstream_bytes.labels("docker.io").collect())).samples[0].value
    assert counted == len(DATA) - start


async def test_the_connection_is_used_again() -> None:
    """As soon as the last byte is here, though nobody has asked for it yet; and by small bodies too."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        large, small = fake.add_blob("a", DATA), fake.add_blob("a", b"small")
        for _ in range(3):
            async with arriving(registry, large) as next_parts:
                assert await rest(next_parts) == DATA
                assert await registry.get_blob("a", small, 100) == b"small"
        assert len({seen.peer for seen in fake.log}) == 1


async def test_over_tls(tmp_path: Path) -> None:
    """The same behind encryption."""
    authority = await asyncio.to_thread(Authority, tmp_path)
    async with (
        FakeRegistry(tls=authority.server_context()) as fake,
        registry_at(fake.url, ca_file=authority.ca_file) as registry,
    ):
        digest = fake.add_blob("a", DATA)
        for _ in range(2):
            async with arriving(registry, digest) as next_parts:
                assert await rest(next_parts) == DATA
        assert len({seen.peer for seen in fake.log}) == 1


@pytest.mark.parametrize("cut", [100, BUFFER, len(DATA) - 1])
async def test_a_body_that_ends_too_early(cut: int) -> None:
    """All that came comes, and then UNREACHABLE."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(Fault(cut_at=cut), times=9)
        assert await broken(registry, digest) == (DATA[:cut], Failure.UNREACHABLE)


async def test_a_body_that_stops() -> None:
    """TIMEOUT, after all that came, when nothing comes for `read_timeout`."""
    async with FakeRegistry() as fake, registry_at(fake.url, read_timeout=0.2) as registry:
        digest = fake.add_blob("a", DATA)
        fake.hold(digest, after=BUFFER)
        assert await broken(registry, digest) == (DATA[:BUFFER], Failure.TIMEOUT)


async def test_leaving_closes_the_connection() -> None:
    """Who leaves in mid-body does not wait for the rest, and nobody else is given this connection."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.hold(digest, after=BUFFER)
        async with arriving(registry, digest) as next_parts:
            await next_parts()
        await fake.log[0].finished.wait()
        assert fake.log[0].aborted


@pytest.mark.parametrize("fault", [Fault(chunked=True), Fault(data=DATA[: BUFFER - 1])])
async def test_what_is_left_to_the_parser(fault: Fault) -> None:
    """A body whose end only the parser finds, and one that is not worth it."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(fault)
        async with registry.open_blob("a", digest) as body:
            assert body.direct_reader() is None


async def test_an_answer_before_it_on_the_connection_is_read_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp then has the connection read on, though nobody has taken what came: nothing of that is lost."""
    made: list[DirectReader] = []
    real = DirectReader.__init__

    def noted(self: DirectReader, *arguments: Any) -> None:
        made.append(self)
        real(self, *arguments)

    monkeypatch.setattr(DirectReader, "__init__", noted)
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        small, large = fake.add_blob("a", b"small"), fake.add_blob("a", DATA)
        async with registry.open_blob("a", small) as before, arriving(registry, large) as next_parts:
            received = bytearray().join(await next_parts())
            received += b"".join(await next_parts())
            transport = made[0]._transport
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
