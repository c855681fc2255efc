"""Blob content, as a client is given it: from memory, from a stored or a growing file, or past the disk.

All of them are a `BlobContent`, which sends itself to an `Outlet`. `send_from_file` has the order of the
other ways to content whose file fails.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, closing
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


class Outlet(Protocol):
    """The way to one client."""

    @property
    def sent(self) -> int:
        """Return how many bytes of content were sent."""
        ...

    async def send_file(self, reader: "FileReader", span: Span) -> None:
        """Send a span of the reader's file as its bytes become readable.

        Raises what `wait_readable` raises, StoreError when the disk fails, ConnectionError when the client
        left.
        """
        ...

    async def send_pieces(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Send pieces, at the client's pace."""
        ...

    def note(self, text: str) -> None:
        """Add a note to the line about the request."""
        ...


class BlobContent(Protocol):
    """The content of a blob for one client, who closes it."""

    @property
    def size(self) -> int | None:
        """Return the size in bytes; None where the upstream does not tell it."""
        ...

    @property
    def data(self) -> bytes | None:
        """Return all of the content, if it is in memory."""
        ...

    async def wait_readable(self, offset: int) -> int:
        """Wait until the byte at `offset` may be sent; return the number of bytes from the start that may be.

        Raises UpstreamError or StoreError when the rest will not come.
        """
        ...

    async def send(self, span: Span, outlet: Outlet) -> None:
        """Send a span. Raises UpstreamError or StoreError when the rest will not come."""
        ...

    def when_crowded(self, call: Callable[[], object]) -> None:
        """Call `call` if others wait for the room, or for the connection, that the client takes."""
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

    @property
    def size(self) -> int:
        return len(self.data)

    async def wait_readable(self, offset: int) -> int:
        return len(self.data)

    async def send(self, span: Span, outlet: Outlet) -> None:
        await outlet.send_pieces(_one_piece(self.data[span.start : span.stop]))

    def when_crowded(self, call: Callable[[], object]) -> None:
        """Do nothing: the client takes no room."""

    def close(self) -> None:
        """Do nothing: nothing is open."""


class PassingContent(Struct, frozen=True):
    """A blob that passes the disk by."""

    blob: PassThroughBlob
    data: bytes | None = None

    @property
    def size(self) -> int | None:
        return self.blob.size

    async def wait_readable(self, offset: int) -> int:
        """Return at once: the upstream is asked when the first byte is to be sent."""
        return self.blob.size or 0

    async def send(self, span: Span, outlet: Outlet) -> None:
        await outlet.send_pieces(self.blob.stream(span))

    def when_crowded(self, call: Callable[[], object]) -> None:
        self.blob.when_crowded(call)

    def close(self) -> None:
        """Do nothing: `send` ends its transfer."""


class BlobAnswer(Struct, frozen=True):
    """The answer to a GET on a blob: its content, open for reading.

    `ttl` and `staleness` as in ManifestInfo. `note`: what the line about the request says of it.
    """

    content: BlobContent
    outcome: Outcome
    ttl: float = 0.0
    staleness: Staleness | None = None
    note: str | None = None


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


class FileReader:
    """A blob that `sendfile` can send: complete, or growing. `file` and `size` are those of the blob."""

    data: bytes | None = None

    def __init__(self, file: BinaryIO, size: int, executor: DiskExecutor, fallback: Fallback) -> None:
        """`executor`: the threads that read ahead."""
        self.file = file
        self.size = size
        self._executor = executor
        self._fallback = fallback

    async def wait_readable(self, offset: int) -> int:
        """Wait as `BlobContent.wait_readable`."""
        raise NotImplementedError

    def read_ahead(self, stop: int) -> ReadAhead:
        """Return the read-ahead that loads bytes up to `stop` from the disk before they are sent."""
        return ReadAhead(self._executor, self.file, stop)

    async def send(self, span: Span, outlet: Outlet) -> None:
        await send_from_file(self, span, span.start, outlet)

    def when_crowded(self, call: Callable[[], object]) -> None:
        self._fallback.look_for_crowd(call)

    def note_sent(self, stop: int) -> None:
        """Record that the client was sent all bytes of its request, up to `stop`."""
        if stop == self.size:
            self._fallback.on_sent()

    async def reopen_elsewhere(self, error: WrongBytes, sent: Span) -> "FileReader":
        """Return a reader of the same blob from another source, after this one received wrong bytes.

        `sent`: the part that the client has received. Raises `error` if that part is different at the other
        source, or where there is no other source.
        """
        return await _reopen(self._fallback, SentPart(self.file, sent, self._executor), error)

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """Return the rest of `span`, from `offset` on, from the upstream when the disk fails with `error`.

        Raises `error` where the rest cannot be had.
        """
        return self._fallback.continue_from_upstream(error).stream(Span(offset, span.stop))

    def close(self) -> None:
        """Close the file."""
        self.file.close()


async def send_from_file(reader: FileReader, span: Span, offset: int, outlet: Outlet) -> None:
    """Send the rest of a span from `offset` on, by the first of these ways that works:

    1. the reader's file;
    2. another source, when the file's bytes turn out to be wrong, if what was sent is right there;
    3. the upstream, past the disk, when the disk fails.
    """
    before = outlet.sent - offset
    try:
        await outlet.send_file(reader, Span(offset, span.stop))
        reader.note_sent(span.stop)
    except WrongBytes as error:
        offset = outlet.sent - before
        with closing(await reader.reopen_elsewhere(error, Span(span.start, offset))) as fresh:
            outlet.note(f"from another source from byte {offset}: {error}")
            await send_from_file(fresh, span, offset, outlet)
    except StoreError as error:
        offset = outlet.sent - before
        rest = reader.continue_from_upstream(error, span, offset)
        outlet.note(f"passed through from byte {offset}: {error}")
        await outlet.send_pieces(rest)


class StoredReader(FileReader):
    """Reader of a blob in the store."""

    def __init__(
        self,
        blob: OpenBlob,
        executor: DiskExecutor,
        fallback: Fallback,
        on_close: Callable[[], object] = ignore,
        proof: PendingProof | None = None,
    ) -> None:
        """`on_close` is called when the reader is closed.

        `proof`: one that must be waited for before the end of the blob is sent (invariant 4).
        """
        super().__init__(blob.file, blob.size, executor, fallback)
        self._on_close = on_close
        self._proof = proof

    @property
    def proven(self) -> bool:
        """Return whether all bytes may be sent now."""
        return self._proof is None

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

    def close(self) -> None:
        super().close()
        self._on_close()


class GrowingReader(FileReader):
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
        super().__init__(file, growing.size, executor, fallback)
        self._growing = growing
        self._closing = ExitStack()
        self._closing.callback(on_close)

    def on_close(self, call: Callable[[], object]) -> None:
        """`call` when the reader is closed."""
        self._closing.callback(call)

    async def wait_readable(self, offset: int) -> int:
        return await self._growing.wait_readable(offset)

    def read_ahead(self, stop: int) -> ReadAhead:
        return ReadAhead(self._executor, self.file, stop, self._growing.is_corrupt)

    def continue_from_upstream(
        self, error: StoreError, span: Span, offset: int
    ) -> AsyncGenerator[bytes, None]:
        sent_part = SentPart(self.file, Span(span.start, offset), self._executor)
        if sent_part.span.length and self._growing.rewritten:
            raise error  # the file no longer holds the bytes that were sent, so they cannot be compared
        return self._fallback.continue_from_upstream(error).stream(Span(offset, span.stop), sent_part)

    def close(self) -> None:
        super().close()
        self._closing.close()


async def _one_piece(piece: bytes) -> AsyncGenerator[bytes, None]:
    yield piece


async def _reopen(fallback: Fallback, sent_part: SentPart, error: WrongBytes) -> FileReader:
    """Return a reader of a blob whose bytes were wrong, if its bytes match the part that was sent.

    Raises `error`, or the one of a later reader, if they do not, or where the blob cannot be had.
    """
    while error.retry_elsewhere and fallback.reopen is not None:
        with ExitStack() as opened:
            fresh = (await fallback.reopen()).content
            opened.callback(fresh.close)
            if not isinstance(fresh, FileReader):
                break
            try:
                if not await sent_part.matches_reader(fresh):
                    break
            except WrongBytes as also_wrong:
                error = also_wrong
                continue
            opened.pop_all()
            return fresh
    raise error
