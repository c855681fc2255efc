"""What the cache answers with; `web` turns it into HTTP."""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Protocol

from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.blobs.blobs import OpenBlob
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import GrowingFile
from mirror.store.readahead import ReadAhead
from mirror.transfer.passthrough import PassThroughBlob, SentPart
from mirror.upstream.errors import WrongBytes


class Outcome(StrEnum):
    """How a request was answered; the `outcome` of the access log and of the metrics."""

    HIT = "hit"
    JOIN = "join"
    MISS = "miss"
    STALE = "stale"
    PASSED = "passed"
    ERROR = "error"


# What is named by a digest is the same for ever.
FOR_EVER = math.inf


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """What is told about a stale answer: why it is one, and the seconds since it was confirmed, if known."""

    age: float | None
    why: str


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """What a HEAD on a manifest tells. `size` in bytes.

    `lasts`: for how many seconds the same question has the same answer, if that is known. `unconfirmed` is
    set when the outcome is STALE.
    """

    digest: Digest
    media_type: str
    size: int
    outcome: Outcome
    lasts: float = 0.0
    unconfirmed: Unconfirmed | None = None


@dataclass(frozen=True, slots=True)
class ManifestAnswer:
    """`lasts` and `unconfirmed` as in ManifestInfo."""

    data: bytes
    digest: Digest
    media_type: str
    outcome: Outcome
    lasts: float = 0.0
    unconfirmed: Unconfirmed | None = None


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a HEAD on a blob tells. `size` in bytes."""

    size: int
    outcome: Outcome


class BlobReader(Protocol):
    """A blob to be sent with `sendfile`: whole already, or growing."""

    file: BinaryIO
    size: int

    async def wait_readable(self, offset: int) -> int:
        """Wait until the byte at `offset` may be sent; how many bytes from the start may be.

        Raises UpstreamError or StoreError when the rest will not come.
        """
        ...

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """The disk does not give a span from `offset` on: the rest, from elsewhere. Or raises `error`."""
        ...

    async def reopen_elsewhere(self, error: WrongBytes, sent: Span) -> "BlobReader":
        """What comes is wrong, and this much of it was sent: a reader of the same blob from another source.

        Only if that part is the same there; else, or where there is no other source, raises `error`.
        """
        ...

    def ahead(self, stop: int) -> ReadAhead:
        """What brings the file's bytes up to `stop` from the disk before they are sent."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fallback:
    """What becomes of a reader whose disk fails: `doubt` is called then; `again` asks for the blob anew."""

    passed: PassThroughBlob
    doubt: Callable[[], object] = bool
    again: "Callable[[], Awaitable[BlobAnswer]] | None" = None

    def continue_from_upstream(self, error: StoreError) -> PassThroughBlob:
        """Raises `error` where the mirror stops."""
        if isinstance(error, ShuttingDown):
            raise error
        self.doubt()
        return self.passed


@dataclass(frozen=True, slots=True)
class SmallBlob:
    """A blob that is in memory as a whole."""

    data: bytes


@dataclass(frozen=True, slots=True)
class BlobAnswer:
    content: BlobReader | SmallBlob | PassThroughBlob
    outcome: Outcome


class StoredReader:
    """A blob from the store."""

    def __init__(
        self,
        blob: OpenBlob,
        executor: DiskExecutor,
        rescue: Fallback,
        closed: Callable[[], object] = bool,
    ) -> None:
        """`executor` are those that read ahead; `closed` is called when the reader is."""
        self._rescue = rescue
        self.file = blob.file
        self.size = blob.size
        self._executor = executor
        self._closed = closed

    async def wait_readable(self, offset: int) -> int:
        return self.size

    def ahead(self, stop: int) -> ReadAhead:
        return ReadAhead(self._executor, self.file, stop)

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        return self._rescue.continue_from_upstream(error).stream(Span(offset, span.stop))

    async def reopen_elsewhere(self, error: WrongBytes, sent: Span) -> BlobReader:
        raise error  # what is in the store was right

    def close(self) -> None:
        self.file.close()
        self._closed()


class GrowingReader:
    """A blob that is being filled."""

    def __init__(
        self,
        growing: GrowingFile,
        file: BinaryIO,
        executor: DiskExecutor,
        rescue: Fallback,
        closed: Callable[[], object] = bool,
    ) -> None:
        """`executor` are those that read ahead: what was resumed or lies far back may be on the disk only."""
        self.file = file
        self.size = growing.size
        self._rescue = rescue
        self._growing = growing
        self._executor = executor
        self._closed = closed

    async def wait_readable(self, offset: int) -> int:
        return await self._growing.wait_readable(offset)

    def ahead(self, stop: int) -> ReadAhead:
        return ReadAhead(self._executor, self.file, stop, self._growing.is_spoilt)

    async def reopen_elsewhere(self, error: WrongBytes, sent: Span) -> BlobReader:
        before = SentPart(self.file, sent, self._executor)
        while error.retry_elsewhere and self._rescue.again is not None:
            fresh = (await self._rescue.again()).content
            if isinstance(fresh, SmallBlob | PassThroughBlob):
                break
            with ExitStack() as opened:
                opened.callback(fresh.close)
                try:
                    if not await before.agrees_with(fresh):
                        break
                except WrongBytes as again:
                    error = again
                    continue
                opened.pop_all()
                return fresh
        raise error

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        sent = SentPart(self.file, Span(span.start, offset), self._executor)
        return self._rescue.continue_from_upstream(error).stream(Span(offset, span.stop), sent)

    def close(self) -> None:
        self.file.close()
        self._closed()


@dataclass(frozen=True, slots=True)
class TagsAnswer:
    """`data` as the upstream sent it; `next_query` is the query of the next page, if there is one."""

    data: bytes
    next_query: str | None
    outcome: Outcome = Outcome.MISS
    unconfirmed: Unconfirmed | None = None


@dataclass(frozen=True, slots=True)
class ReferrersAnswer:
    """An OCI index; `filtered` when an artifactType was applied."""

    data: bytes
    filtered: bool
    outcome: Outcome
    unconfirmed: Unconfirmed | None = None


@dataclass(frozen=True, slots=True)
class CatalogAnswer:
    repositories: list[str]
    more: bool
