"""The object store, beside the suite for all engines: refusals, errors, uploads that end early."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import VerifiedContent
from mirror.shared.s3 import S3Objects
from tests.engines import ACCESS_KEY, BUCKET, SECRET_KEY, Engine, bucket_of, running, seaweedfs, settings_of
from tests.fakes.tls import Authority

pytestmark = pytest.mark.slow

MiB = 1024 * 1024


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(seaweedfs(tmp_path_factory.mktemp("seaweedfs"))) as engine:
        yield engine


def objects_of(store: Engine, **options: object) -> S3Objects:
    settings = settings_of(store, **options)  # type: ignore[arg-type]
    return S3Objects(settings, bucket_of(settings))


def uploads(store: Engine) -> int:
    """Count the uploads that have begun and not ended."""
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{store.port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )
    found = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    client.close()
    return len(found)


async def test_s3_with_a_wrong_secret_refuses(store: Engine) -> None:
    """The message says what to look at; no message has the secret."""
    objects = objects_of(store, secret_key="wrong-secret-that-no-log-has")
    with pytest.raises(TierError) as caught:
        await objects.put(content(b"x", [b"x"]))
    await objects.close()
    assert (caught.value.fault, "access_key" in str(caught.value)) == (TierFault.REFUSED, True)
    assert "no-log-has" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_s3_that_is_away_fails_in_time() -> None:
    """Attempts are few, and end within the configured time."""
    objects = objects_of(Engine("nobody", [], 9, "s3"), timeout=0.5)
    with pytest.raises(TierError) as caught:
        await objects.stat(Digest.of(b"x"))
    await objects.close()
    assert caught.value.fault is TierFault.UNREACHABLE
    assert "\n" not in str(caught.value)


async def test_s3_upload_that_is_cancelled_leaves_no_parts(store: Engine) -> None:
    """A mirror that stops in the middle of an upload leaves nothing behind that costs money for good."""
    objects, begun = objects_of(store), asyncio.Event()
    data = bytes(6 * MiB)

    async def slow() -> AsyncIterator[bytes]:
        yield data
        yield data
        begun.set()
        while True:
            await asyncio.sleep(0.01)
            yield data

    digest = Digest.of(b"never finished")
    task = asyncio.ensure_future(objects.put(VerifiedContent(digest, 10**9, slow)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await objects.stat(digest) is None
    await objects.close()
    assert await asyncio.to_thread(uploads, store) == 0


async def test_s3_range_of_an_object_that_is_removed_meanwhile(store: Engine) -> None:
    """A range is cut at the end of the blob; the object of another mirror's garbage collection is missing."""
    objects, data = objects_of(store), bytes(range(256)) * 16
    digest = Digest.of(data)
    await objects.put(content(data, [data]))
    async with objects.open_range(digest, Span(4000, 2**62)) as part:
        assert (part.span, part.total) == (Span(4000, 4096), 4096)
        assert b"".join([chunk async for chunk in part.chunks]) == data[4000:]
    await objects.remove(digest)
    await objects.close()


def content(data: bytes, pieces: list[bytes]) -> VerifiedContent:
    async def chunks() -> AsyncIterator[bytes]:
        for each in pieces:
            yield each

    return VerifiedContent(Digest.of(data), len(data), chunks)


async def test_s3_trusts_the_certificates_of_its_ca_file(tmp_path: Path) -> None:
    """A store behind an authority of one's own is believed with `ca_file`, and refused without."""
    authority = await asyncio.to_thread(Authority, tmp_path)

    async def absent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

    server = await asyncio.start_server(absent, "127.0.0.1", 0, ssl=authority.server_context())
    async with server:
        port = server.sockets[0].getsockname()[1]
        away = Engine("nobody", [], port, "s3")
        secured: dict[str, Any] = {"endpoint": f"https://127.0.0.1:{port}", "timeout": 30}
        settings = await asyncio.to_thread(settings_of, away, ca_file=authority.ca_file, **secured)
        trusting = S3Objects(settings, bucket_of(settings))
        assert await trusting.stat(Digest.of(b"x")) is None
        await trusting.close()
        doubting = objects_of(away, **secured)
        with pytest.raises(TierError):
            await doubting.stat(Digest.of(b"x"))
        await doubting.close()
