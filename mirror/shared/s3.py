"""Blobs and small objects in an S3-compatible object store. The one module that uses obstore.

What the library and the stores do, and what is made of it:

- A missing object is the builtin FileNotFoundError, all else an error of `obstore.exceptions`.
- A range beyond the end is an error, an empty one a ValueError: ranges are cut here, and never several in one
  request, which some stores answer with the whole object.
- A put that is cancelled leaves its parts behind for good; one whose source raises is aborted. So a cancelled
  put has its source raise, and ends afterwards.
- A put with a condition holds the whole stream in memory: blobs are put without one, under their digest.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from mirror.config.tier.shared import Bucket, SharedSettings
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.shared.errors import ObjectMissing, TierError, TierFault
from mirror.shared.interfaces import NamedObject, StoredText, TierObject, TierRange, VerifiedContent
from mirror.shared.keys import BLOBS, object_key, parse_blob_key
from mirror.util.tasks import Tasks

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig

# Bytes of one piece of a body that is read. Larger ones come late over a line that many connections share:
# with 1 MiB, connections of 2 MB/s were taken for stalled, and what they had received was asked for again.
PIECE = 256 * 1024

# Parts of one upload that are on their way at a time, of 5 MiB each: what a put costs in memory.
PARTS = 4

# Time, in seconds, for a request for a blob. What is slow is given up piece by piece (`IDLE_SECONDS`).
BODY_SECONDS = 3600

# Time without a piece of a body, in seconds, after which a read is given up.
IDLE_SECONDS = 5.0

# The longest small object that is read, in bytes.
MOST_SMALL = 1024 * 1024

# A response of one line tells what went wrong; the library adds its own state, and the response's body.
_MESSAGE_BYTES = 200


class S3Objects:
    """One bucket, below a prefix: an `ObjectTier`, and `ConditionalObjects`."""

    def __init__(self, settings: SharedSettings, bucket: Bucket) -> None:
        self.name = f"s3://{bucket.name}" + (f"/{bucket.prefix}" if bucket.prefix else "")
        self._prefix = f"{bucket.prefix}/" if bucket.prefix else ""
        self._small = _store(settings, bucket, f"{settings.timeout:g}s")
        self._large = _store(settings, bucket, f"{BODY_SECONDS}s")
        self._quoted = True  # how If-Match has an ETag: radosgw compares it without quotes
        self._tasks = Tasks()

    @asynccontextmanager
    async def open_range(self, digest: Digest, span: Span) -> AsyncGenerator[TierRange]:
        with self._translated(f"read {digest}"):
            options: Any = {"range": (span.start, span.stop)}
            result = await obstore.get_async(self._large, self._key(digest), options=options)
        start, stop = result.range
        yield TierRange(Span(start, stop), result.meta["size"], self._chunks(digest, result))

    async def _chunks(self, digest: Digest, result: "GetResult") -> AsyncIterator[bytes]:
        stream = result.stream(min_chunk_size=PIECE)
        with self._translated(f"read {digest}"):
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    chunk = await anext(stream, None)
                if chunk is None:
                    return
                yield bytes(chunk)

    async def put(self, content: VerifiedContent) -> None:
        source = _Source(content.chunks())
        with self._translated(f"write {content.digest}"):
            putting = obstore.put_async(
                self._large, self._key(content.digest), source, use_multipart=True, max_concurrency=PARTS
            )
            task = self._tasks.spawn(_awaited(putting), name=f"put {content.digest}")
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                source.stop()
                await asyncio.wait([task], timeout=IDLE_SECONDS)
                raise

    async def stat(self, digest: Digest) -> TierObject | None:
        try:
            with self._translated(f"look for {digest}"):
                meta = await obstore.head_async(self._small, self._key(digest))
        except ObjectMissing:
            return None
        return TierObject(digest, meta["size"], meta["last_modified"].timestamp())

    async def list(self) -> AsyncIterator[TierObject]:
        with self._translated("list"):
            async for page in obstore.list(self._small, f"{self._prefix}{BLOBS}"):
                for meta in page:
                    digest = parse_blob_key(meta["path"].removeprefix(self._prefix))
                    if digest is not None:
                        yield TierObject(digest, meta["size"], meta["last_modified"].timestamp())

    async def presigned(self, digest: Digest, seconds: float) -> str | None:
        with self._translated(f"sign a URL for {digest}"):
            period = timedelta(seconds=seconds)
            return await obstore.sign_async(self._small, "GET", self._key(digest), period)

    async def remove(self, digest: Digest) -> None:
        await self.delete(object_key(digest))

    async def read(self, key: str) -> StoredText | None:
        try:
            with self._translated(f"read {key}"):
                result = await obstore.get_async(self._small, self._prefix + key)
                meta = result.meta
                fits = meta["size"] <= MOST_SMALL  # a longer one is none of ours, and is not read
                data = bytes(await result.bytes_async()) if fits else b""
        except ObjectMissing:
            return None
        return StoredText(data, meta["e_tag"] or "", meta["last_modified"].timestamp())

    async def create(self, key: str, data: bytes) -> bool:
        return await self._write(key, data, "create")

    async def replace(self, key: str, data: bytes, version: str) -> bool:
        tag = version if self._quoted else version.strip('"')
        return await self._write(key, data, {"e_tag": tag})

    async def write(self, key: str, data: bytes) -> None:
        await self._write(key, data, "overwrite")

    async def names(self, prefix: str) -> AsyncIterator[NamedObject]:
        with self._translated("list"):
            async for page in obstore.list(self._small, f"{self._prefix}{prefix}"):
                for meta in page:
                    key = meta["path"].removeprefix(self._prefix)
                    yield NamedObject(key, meta["last_modified"].timestamp())

    def unquote_versions(self) -> None:
        """Send ETags without quotes from now on, for a store that compares them so."""
        self._quoted = False

    async def delete(self, key: str) -> None:
        try:
            with self._translated(f"delete {key}"):
                await obstore.delete_async(self._small, self._prefix + key)
        except ObjectMissing:
            return

    async def close(self) -> None:
        await self._tasks.close()

    async def _write(self, key: str, data: bytes, mode: Any) -> bool:
        try:
            with self._translated(f"write {key}"):
                await obstore.put_async(self._small, self._prefix + key, data, mode=mode, use_multipart=False)
        except (_Condition, ObjectMissing):
            return False
        return True

    def _key(self, digest: Digest) -> str:
        return self._prefix + object_key(digest)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Raise TierError for an error of the library."""
        try:
            yield
        except FileNotFoundError:
            raise ObjectMissing(TierFault.WRONG, f"{self.name}: nothing to {what}") from None
        except (AlreadyExistsError, PreconditionError):
            raise _Condition(TierFault.WRONG, f"{self.name}: {what}: the condition does not hold") from None
        except (PermissionDeniedError, UnauthenticatedError):
            message = f"{self.name} refuses to {what}: check access_key, its secret and the bucket's policy"
            raise TierError(TierFault.REFUSED, message) from None
        except TimeoutError:
            raise TierError(TierFault.UNREACHABLE, f"{self.name} is too slow to {what}") from None
        except BaseError as error:
            raise TierError(
                TierFault.UNREACHABLE, f"{self.name} failed to {what}: {_reason(error)}"
            ) from None


class _Condition(TierError):
    """A write whose condition did not hold."""


class _Stopped(Exception):
    """The source of an upload that is to be aborted."""


class _Source:
    """The pieces of an upload; after `stop` it raises in place of the next piece."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def __aiter__(self) -> "_Source":
        return self

    async def __anext__(self) -> bytes:
        if self._stopped:
            raise _Stopped
        return await anext(self._chunks)


async def _awaited(putting: Any) -> None:
    try:
        await putting
    except _Stopped:
        return


def _store(settings: SharedSettings, bucket: Bucket, timeout: str) -> S3Store:
    options: dict[str, Any] = {"region": settings.region}
    if settings.endpoint is not None:
        options |= {"endpoint": settings.endpoint, "virtual_hosted_style_request": False}
    if settings.access_key is not None and settings.secret_key is not None:
        secret = settings.secret_key.get_secret_value()
        options |= {"access_key_id": settings.access_key, "secret_access_key": secret}
    certificates = settings.certificates
    trusted: ClientConfig = {} if certificates is None else {"root_certificate": certificates}
    return S3Store(
        bucket.name,
        client_options={
            "allow_http": settings.endpoint is not None and settings.endpoint.startswith("http:"),
            "connect_timeout": f"{settings.timeout:g}s",
            "timeout": timeout,
            **trusted,
        },
        retry_config={
            "max_retries": 2,
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
            "retry_timeout": timedelta(seconds=settings.timeout),
        },
        **options,
    )


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:_MESSAGE_BYTES]
