"""The object store, beside the suite for all engines: refusals, errors, uploads that end early."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import boto3
import pytest

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.errors import TierError, TierFault
from mirror.shared.interfaces import VerifiedContent
from mirror.shared.s3 import S3Objects
from tests.engines import ACCESS_KEY, BUCKET, SECRET_KEY, Engine, bucket_of, running, seaweedfs, settings_of

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
