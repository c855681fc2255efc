"""Bodies of blobs, at every chunk size, whole and broken."""

import contextlib
import random

import pytest
from aiohttp.http_parser import HttpResponseParserPy

from mirror.metrics.metrics import Metrics
from mirror.oci.digest import Digest
from mirror.upstream.errors import Failure, UpstreamError
from mirror.upstream.registry_client import RegistryClient
from tests.fakes.faults import Fault
from tests.fakes.registry import FakeRegistry
from tests.fakes.upstream import registry_at

DATA = random.Random(1).randbytes(2000)


async def fetch(registry: RegistryClient, digest: Digest, start: int = 0, stop: int | None = None) -> bytes:
    async with registry.open_blob("a", digest, start, stop) as body:
        assert body.total in (len(DATA), None)
        received = b"".join([piece async for piece in body.chunks()])
        return received if body.start == start else received[start - body.start :]


async def fetch_broken(registry: RegistryClient, digest: Digest) -> tuple[bytes, UpstreamError]:
    """Return the bytes before the body broke, and the error."""
    received = b""
    try:
        async with registry.open_blob("a", digest) as body:
            async for piece in body.chunks():
                received += piece
    except UpstreamError as error:
        return received, error
    raise AssertionError("it did not break")


@pytest.mark.parametrize("piece", [None, 1, 7, 1000])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 1), (1, None), (1999, None), (500, 1500), (0, 2000)]
)
async def test_body_whole_and_ranges(piece: int | None, start: int, stop: int | None) -> None:
    """Bytes are those that were asked for, in writes of any size."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.piece = piece
        assert await fetch(registry, digest, start, stop) == DATA[start:stop]


async def test_body_range_header_only_if_needed() -> None:
    """The whole blob is asked for without a Range, since some stores treat the two differently."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        await fetch(registry, digest)
        await fetch(registry, digest, 5)
        await fetch(registry, digest, 0, 7)
        assert [seen.headers.get("Range") for seen in fake.log] == [None, "bytes=5-", "bytes=0-6"]


async def test_body_stop_behind_the_end() -> None:
    """A range beyond the end brings the bytes up to the end."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        assert await fetch(registry, digest, 1990, 3000) == DATA[1990:]


async def test_body_of_an_empty_blob() -> None:
    """A blob of no bytes is a blob."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", b"")
        async with registry.open_blob("a", digest) as body:
            assert body.total == 0
            assert [piece async for piece in body.chunks()] == []


async def test_body_of_a_source_that_ignores_ranges() -> None:
    """A source without ranges sends everything, and `start` tells."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.ranges = False
        async with registry.open_blob("a", digest, 500) as body:
            assert (body.start, body.total) == (0, 2000)
            assert b"".join([piece async for piece in body.chunks()]) == DATA


async def test_body_without_length() -> None:
    """A body of unknown length is read to its end; the size stays unknown."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(Fault(chunked=True))
        async with registry.open_blob("a", digest) as body:
            assert body.total is None
            assert b"".join([piece async for piece in body.chunks()]) == DATA


async def test_body_delimited_by_the_end_of_the_connection() -> None:
    """A body that ends with its connection, as in HTTP/1.0, is read; its size stays unknown."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(Fault(raw=b"HTTP/1.0 200 OK\r\n\r\n" + DATA))
        async with registry.open_blob("a", digest) as body:
            assert body.total is None
            assert b"".join([piece async for piece in body.chunks()]) == DATA


@pytest.mark.parametrize("cut", [0, 1, 1999])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
async def test_body_that_breaks(cut: int, reset: bool, chunked: bool) -> None:
    """A body that breaks, with FIN or RST, gives the bytes before, then UNREACHABLE, and is not retried."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fault = Fault(cut_at=None if reset else cut, reset_at=cut if reset else None, chunked=chunked)
        fake.fault(fault, times=9)
        received, error = await fetch_broken(registry, digest)
        assert error.failure is Failure.UNREACHABLE
        assert DATA.startswith(received)
        if not reset:  # a RST may overtake bytes that were sent before it
            assert len(received) == cut


async def test_body_that_stalls() -> None:
    """A body that stops without an end is a TIMEOUT after the bytes before."""
    async with FakeRegistry() as fake, registry_at(fake.url, read_timeout=0.05, attempts=1) as registry:
        digest = fake.add_blob("a", DATA)
        fake.hold(digest, after=100)
        received, error = await fetch_broken(registry, digest)
        assert error.failure is Failure.TIMEOUT
        assert received in (DATA[:100], b"")  # nothing if even the head came too late


@pytest.mark.parametrize(
    ("content_range", "length"),
    [
        ("bytes 6-1999/2000", 1994),
        ("bytes 4-1999/2000", 1996),
        ("bytes 5-1999/2000", 10),
        ("bytes 5-1999/100", 1995),
        ("bytes */2000", 0),
        ("5-1999/2000", 1995),
        ("", 1995),
    ],
)
async def test_body_of_a_wrong_partial_answer(content_range: str, length: int) -> None:
    """A partial answer for another range, or that contradicts itself, is INVALID before its first byte."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        headers = {"Content-Range": content_range}
        fake.fault(Fault(status=206, body=DATA[:length], headers=headers))
        with pytest.raises(UpstreamError) as raised:
            await fetch(registry, digest, 5)
        assert raised.value.failure is Failure.INVALID


async def test_body_of_a_partial_answer_to_a_whole_request() -> None:
    """206 without a Range in the request is INVALID."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(Fault(status=206, body=DATA, headers={"Content-Range": "bytes 0-1999/2000"}))
        with pytest.raises(UpstreamError, match="the whole blob") as raised:
            await fetch(registry, digest)
        assert raised.value.failure is Failure.INVALID


@pytest.mark.parametrize("total", ["2000", "*"])
async def test_body_shorter_than_asked_for(total: str) -> None:
    """A source that sends less of a range than was asked for ends as a broken one, to be resumed."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fault = Fault(status=206, body=DATA[5:10], headers={"Content-Range": f"bytes 5-9/{total}"})
        fake.fault(fault)
        received = b""
        expected = (
            pytest.raises(UpstreamError, match="ended") if total == "2000" else contextlib.nullcontext()
        )
        with expected:
            async with registry.open_blob("a", digest, 5, 100) as body:
                async for piece in body.chunks():
                    received += piece
        assert received == DATA[5:10]


async def test_body_longer_than_announced() -> None:
    """A chunked partial answer that continues behind its range: the surplus is left out."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        headers = {"Content-Range": "bytes 5-9/2000"}
        fake.fault(Fault(status=206, body=DATA[5:11], headers=headers, chunked=True))
        assert await fetch(registry, digest, 5, 10) == DATA[5:10]


async def test_body_start_behind_the_end() -> None:
    """A start behind the end of the blob is INVALID, with status 416."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        with pytest.raises(UpstreamError) as raised:
            await fetch(registry, digest, 2000)
        assert (raised.value.failure, raised.value.status) == (Failure.INVALID, 416)


async def test_body_with_an_encoding() -> None:
    """A label on the bytes is kept for a message; the digest decides."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(Fault(headers={"Content-Encoding": "gzip"}))
        async with registry.open_blob("a", digest) as body:
            assert body.encoding == "gzip"
        assert await fetch(registry, digest) == DATA


async def test_body_bytes_are_counted() -> None:
    """Body bytes from upstreams are in the metrics."""
    metrics = Metrics()
    async with FakeRegistry() as fake, registry_at(fake.url, metrics=metrics) as registry:
        digest = fake.add_blob("a", DATA)
        await fetch(registry, digest)
    counted = metrics.upstream_bytes.labels("docker.io")
    assert next(iter(counted.collect())).samples[0].value == 2000


async def test_body_left_early_closes_the_connection() -> None:
    """A caller that leaves in mid-body does not wait for the rest: the connection is closed at once."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.hold(digest, after=10)
        async with registry.open_blob("a", digest) as body, contextlib.aclosing(body.chunks()) as chunks:
            assert await anext(chunks) == DATA[:10]
        await fake.log[0].finished.wait()
        assert fake.log[0].aborted


async def test_body_read_to_its_end_keeps_the_connection() -> None:
    """A body that was read to its end costs no new connection."""
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        await fetch(registry, digest)
        await fetch(registry, digest)
        assert len({seen.peer for seen in fake.log}) == 1


@pytest.mark.parametrize("parser", ["C", "Python"])
@pytest.mark.parametrize(
    "field", ["Content-Length: 99999999999999999999", "Content-Length: 9223372036854775808"]
)
async def test_body_of_an_impossible_length(monkeypatch: pytest.MonkeyPatch, parser: str, field: str) -> None:
    """A length that no file can have is refused, and repeated to no client."""
    if parser == "Python":
        monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", HttpResponseParserPy)
    async with FakeRegistry() as fake, registry_at(fake.url) as registry:
        digest = fake.add_blob("a", DATA)
        fake.fault(Fault(raw=f"HTTP/1.1 200 OK\r\n{field}\r\n\r\nx".encode()), digest, times=9)
        received, error = await fetch_broken(registry, digest)
        assert (received, error.failure) == (b"", Failure.INVALID)
        with pytest.raises(UpstreamError):
            await registry.head_blob("a", digest)
