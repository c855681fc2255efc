"""The interfaces of the shared tier. Each implementation passes tests/contract/test_shared_engines.py."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span


class TierObject(Struct, frozen=True):
    """A blob in the object store. `size` in bytes; `modified` in seconds since the epoch."""

    digest: Digest
    size: int
    modified: float


class TierRange(Struct, frozen=True):
    """A part of a blob that is being read. `total`: the size of the whole blob. `chunks` is iterated once."""

    span: Span
    total: int
    chunks: AsyncIterator[bytes]


class VerifiedContent(Struct, frozen=True):
    """A blob to publish. Make it with `mirror.shared.content.verified`.

    `chunks` yields the blob, and raises before its last bytes if they do not have the digest.
    """

    digest: Digest
    size: int
    chunks: Callable[[], AsyncIterator[bytes]]


class ObjectTier(Protocol):
    """Blobs by digest. All methods raise TierError."""

    def open_range(self, digest: Digest, span: Span) -> AbstractAsyncContextManager[TierRange]:
        """Open a part of a blob, cut at the blob's end. Raises ObjectMissing."""
        ...

    async def put(self, content: VerifiedContent) -> None:
        """Store a blob. Nothing has its name before all of it is here; an error of `chunks` is passed on."""
        ...

    async def stat(self, digest: Digest) -> TierObject | None: ...

    def list(self) -> AsyncIterator[TierObject]:
        """Yield all blobs, in no order."""
        ...

    async def presigned(self, digest: Digest, seconds: float) -> str | None:
        """Return a URL with which anybody can read the blob for `seconds`; None where there is none."""
        ...

    async def remove(self, digest: Digest) -> None:
        """Remove a blob; do nothing if there is none."""
        ...

    async def close(self) -> None: ...


class Holder(Struct, frozen=True):
    """The holder of a lease: text that is unique for each claim, and its mirror's address, "" for none."""

    owner: str
    address: str = ""


class Leases(Protocol):
    """Leases under keys, each held by one claim at a time. All methods raise TierError.

    A lease that is not renewed lapses. Its holder may not notice: content is addressed by digest, so that a
    lapsed lease costs bytes, and never correctness. No fencing is needed for that reason alone.
    """

    async def acquire(self, key: str, holder: Holder, seconds: float) -> Holder:
        """Acquire the lease for `seconds` if it is free; return its holder.

        That is `holder` itself if it was acquired; one without an owner if it cannot be told.
        """
        ...

    async def renew(self, key: str, holder: Holder, seconds: float) -> bool:
        """Keep the lease for `seconds` from now; return False if another holds it, or nobody."""
        ...

    async def release(self, key: str, holder: Holder) -> None:
        """Free the lease, if `holder` still holds it."""
        ...

    async def holder(self, key: str) -> Holder | None: ...

    async def close(self) -> None: ...


class StoredText(Struct, frozen=True):
    """A small object. `version` changes with each write; `modified` is by the store's clock."""

    data: bytes
    version: str
    modified: float


class NamedObject(Struct, frozen=True):
    """A small object in a list: its key, and when it was written, by the store's clock."""

    key: str
    modified: float


class ConditionalObjects(Protocol):
    """Small objects with conditional writes, for leases in a bucket. All methods raise TierError."""

    async def read(self, key: str) -> StoredText | None: ...

    async def create(self, key: str, data: bytes) -> bool:
        """Write an object that does not exist; return False if it does."""
        ...

    async def replace(self, key: str, data: bytes, version: str) -> bool:
        """Write an object that has this version; return False if it has another one, or does not exist."""
        ...

    async def delete(self, key: str) -> None: ...

    async def write(self, key: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        ...

    def names(self, prefix: str) -> AsyncIterator[NamedObject]:
        """Yield the objects whose keys begin with `prefix` and a slash, in no order."""
        ...


class Records(Protocol):
    """Small texts under keys, each of which may be lost at any time. All methods raise TierError."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, data: bytes, seconds: float) -> None:
        """Write a text, which may be forgotten after `seconds`."""
        ...
