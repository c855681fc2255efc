"""Blob content: readers of stored and of growing files, blobs in memory, and the fallback of a reader."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack
from typing import BinaryIO, Protocol

from msgspec import Struct

from mirror.cache.results import Outcome, Staleness
from mirror.oci.ranges import Span
from mirror.store.blobs.entries import OpenBlob
from mirror.store.blobs.prover import PendingProof
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.growing import HOLDBACK_BYTES, GrowingFile
from mirror.store.readahead import ReadAhead
from mirror.transfer.passthrough import PassThroughBlob, SentPart
from mirror.upstream.errors import Failure, WrongBytes
from mirror.util.callbacks import ignore


class BlobReader(Protocol):
    """A blob that `sendfile` can send: complete, or growing."""

    file: BinaryIO
    size: int

    async def wait_readable(self, offset: int) -> int:
        """Wait until the byte at `offset` may be sent; return the number of bytes from the start that may be.

        Raises UpstreamError or StoreError when the rest will not come.
        """
        ...

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """Return the rest of `span`, from `offset` on, from the upstream when the disk fails with `error`.

        Raises `error` where the rest cannot be had.
        """
        ...

    async def reopen_elsewhere(self, error: WrongBytes, sent: Span) -> "BlobReader":
        """Return a reader of the same blob from another source, after this one received wrong bytes.

        `sent`: the part that the client has received. Raises `error` if that part is different at the other
        source, or where there is no other source.
        """
        ...

    def note_sent(self, stop: int) -> None:
        """Record that the client was sent all bytes of its request, up to `stop`."""
        ...

    def when_crowded(self, call: Callable[[], object]) -> None:
        """Call `call` if the cache is over its quota and nothing but blobs in use could go."""
        ...

    def read_ahead(self, stop: int) -> ReadAhead:
        """Return the read-ahead that loads bytes up to `stop` from the disk before they are sent."""
        ...

    def close(self) -> None: ...


class BlobRequest(Struct, frozen=True):
    """A client's request for a blob: the client's address, and whether all of the blob is wanted.

    `ranges`: the Range header, None for a request without one.
    """

    client: str
    whole: bool
    ranges: str | None = None


class SmallBlob(Struct, frozen=True):
    """A blob that is in memory as a whole."""

    data: bytes


class BlobAnswer(Struct, frozen=True):
    """The answer to a GET on a blob: its content, open for reading.

    `ttl` and `staleness` as in ManifestInfo. `unkept`: why the content passes the disk by.
    """

    content: BlobReader | SmallBlob | PassThroughBlob
    outcome: Outcome
    ttl: float = 0.0
    staleness: Staleness | None = None
    unkept: str = "the cache folder is in trouble"


class Fallback(Struct, frozen=True):
    """Other ways to the content of a reader whose file fails.

    `passed`: the same blob from the upstream, past the disk; None without an upstream. `on_disk_error` is
    called when the disk fails; `reopen` requests the blob from the cache again; `when_crowded` is that of the
    reader. `on_sent` is called when a client was sent the blob to its end.
    """

    passed: PassThroughBlob | None
    on_disk_error: Callable[[], object] = ignore
    reopen: Callable[[], Awaitable[BlobAnswer]] | None = None
    when_crowded: Callable[[Callable[[], object]], object] = ignore
    on_sent: Callable[[], object] = ignore

    def look_for_crowd(self, call: Callable[[], object]) -> None:
        """Call `call` if others wait for the room, or for the connection, that the client takes."""
        self.when_crowded(call)
        if self.passed is not None:
            self.passed.when_crowded(call)

    def continue_from_upstream(self, error: StoreError) -> PassThroughBlob:
        """Return the blob that passes the disk by; raise `error` if there is none, or the mirror stops."""
        if isinstance(error, ShuttingDown):
            raise error
        self.on_disk_error()
        if self.passed is None:
            raise error
        return self.passed


class StoredReader:
    """Reader of a blob in the store."""

    def __init__(
        self,
        blob: OpenBlob,
        executor: DiskExecutor,
        fallback: Fallback,
        on_close: Callable[[], object] = ignore,
        proof: PendingProof | None = None,
    ) -> None:
        """`executor`: the threads that read ahead; `on_close` is called when the reader is closed.

        `proof`: one that must be waited for before the end of the blob is sent (invariant 4).
        """
        self._fallback = fallback
        self.file = blob.file
        self.size = blob.size
        self._executor = executor
        self._on_close = on_close
        self._proof = proof

    @property
    def proven(self) -> bool:
        """Return whether all bytes may be sent now."""
        return self._proof is None

    def note_sent(self, stop: int) -> None:
        if stop == self.size:
            self._fallback.on_sent()

    def when_crowded(self, call: Callable[[], object]) -> None:
        self._fallback.look_for_crowd(call)

    async def wait_readable(self, offset: int) -> int:
        if self._proof is None:
            return self.size
        held_from = self.size - min(self.size, HOLDBACK_BYTES)
        if offset < held_from and self._proof.is_pending():
            return held_from
        if not await self._proof.wait():
            error = WrongBytes(Failure.INVALID, "the blob is corrupt on the disk, and was quarantined")
            error.retry_elsewhere = True
            raise error
        self._proof = None
        return self.size

    def read_ahead(self, stop: int) -> ReadAhead:
        return ReadAhead(self._executor, self.file, stop)

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        return self._fallback.continue_from_upstream(error).stream(Span(offset, span.stop))

    async def reopen_elsewhere(self, error: WrongBytes, sent: Span) -> BlobReader:
        return await _reopen(self._fallback, SentPart(self.file, sent, self._executor), error)

    def close(self) -> None:
        self.file.close()
        self._on_close()


class GrowingReader:
    """Reader of a blob whose fill is running."""

    def __init__(
        self,
        growing: GrowingFile,
        file: BinaryIO,
        executor: DiskExecutor,
        fallback: Fallback,
        on_close: Callable[[], object] = ignore,
    ) -> None:
        """Arguments as for StoredReader.

        Read-ahead is needed here too: bytes that were resumed, or lie far back, may be on the disk only.
        """
        self.file = file
        self.size = growing.size
        self._fallback = fallback
        self._growing = growing
        self._executor = executor
        self._closing = ExitStack()
        self._closing.callback(on_close)

    def on_close(self, call: Callable[[], object]) -> None:
        """`call` when the reader is closed."""
        self._closing.callback(call)

    def note_sent(self, stop: int) -> None:
        if stop == self.size:
            self._fallback.on_sent()

    def when_crowded(self, call: Callable[[], object]) -> None:
        self._fallback.look_for_crowd(call)

    async def wait_readable(self, offset: int) -> int:
        return await self._growing.wait_readable(offset)

    def read_ahead(self, stop: int) -> ReadAhead:
        return ReadAhead(self._executor, self.file, stop, self._growing.is_corrupt)

    async def reopen_elsewhere(self, error: WrongBytes, sent: Span) -> BlobReader:
        return await _reopen(self._fallback, SentPart(self.file, sent, self._executor), error)

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        sent_part = SentPart(self.file, Span(span.start, offset), self._executor)
        if sent_part.span.length and self._growing.rewritten:
            raise error  # the file no longer holds the bytes that were sent, so they cannot be compared
        return self._fallback.continue_from_upstream(error).stream(Span(offset, span.stop), sent_part)

    def close(self) -> None:
        self.file.close()
        self._closing.close()


async def _reopen(fallback: Fallback, sent_part: SentPart, error: WrongBytes) -> BlobReader:
    """Return a reader of a blob whose bytes were wrong, if its bytes match the part that was sent.

    Raises `error`, or the one of a later reader, if they do not, or where the blob cannot be had.
    """
    while error.retry_elsewhere and fallback.reopen is not None:
        fresh = (await fallback.reopen()).content
        if isinstance(fresh, SmallBlob | PassThroughBlob):
            break
        with ExitStack() as opened:
            opened.callback(fresh.close)
            try:
                if not await sent_part.matches_reader(fresh):
                    break
            except WrongBytes as also_wrong:
                error = also_wrong
                continue
            opened.pop_all()
            return fresh
    raise error
