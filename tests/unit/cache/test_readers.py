"""Readers: one interface for complete and for growing blobs."""

import io
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from mirror.cache.readers import (
    BlobAnswer,
    BlobContent,
    Fallback,
    FileReader,
    GrowingReader,
    PassingContent,
    SmallBlob,
    StoredReader,
)
from mirror.cache.results import Outcome
from mirror.oci.digest import Digest
from mirror.oci.ranges import Span
from mirror.store.blobs.entries import OpenBlob
from mirror.store.errors import ShuttingDown, StoreError
from mirror.store.executor import DiskExecutor
from mirror.store.partial.demand import Demand
from mirror.store.partial.growing import GrowingFile
from mirror.store.partial.partial import Partial
from mirror.store.partial.remote_partial import RemotePartial
from mirror.store.partial.remote_view import RemoteView
from mirror.transfer.passthrough import PassThroughBlob
from mirror.upstream.errors import Failure, WrongBytes

MIB = 1024 * 1024

# The blob that would bring the rest from the upstream; no test here requests a byte of it.
PASSED = cast(PassThroughBlob, object())


async def test_stored_blob_is_readable_to_its_end() -> None:
    """A stored blob is readable at once, and its file is closed with the reader."""
    file = io.BytesIO(b"0123456789")
    reader: FileReader = StoredReader(OpenBlob(file, 10), DiskExecutor(1), Fallback(PASSED))
    assert (reader.read_ahead(4).file, reader.read_ahead(4).stop) == (file, 4)
    assert (reader.size, await reader.wait_readable(0), await reader.wait_readable(9)) == (10, 10, 10)
    reader.close()
    assert file.closed


def test_fallback_reports_a_failing_disk_but_not_a_shutdown() -> None:
    """The upstream brings the rest after a disk error; a mirror that is stopping raises its own error."""
    errors: list[str] = []
    fallback = Fallback(PASSED, lambda: errors.append("disk"))
    assert fallback.continue_from_upstream(StoreError("no")) is PASSED
    with pytest.raises(ShuttingDown):
        fallback.continue_from_upstream(ShuttingDown("bye"))
    assert errors == ["disk"]


@pytest.fixture
def rewritten(tmp_path: Path) -> Iterator[GrowingFile]:
    """A file that another process began again after a reader here had wrong bytes of it."""
    digest, size, chunk = Digest.of(b"x"), 8 * MIB, MIB
    partial = Partial.lock(digest, tmp_path)
    assert partial is not None
    partial.allocate(size, chunk).record(0, chunk)
    remote = RemotePartial.open(digest, tmp_path)
    assert remote is not None
    view = RemoteView(remote, Demand(whole=True))
    view.file.unread = False
    partial.allocate(size, chunk).record(0, chunk)
    assert not view.update(remote.refresh())
    yield view.file
    remote.close()
    partial.release()


def test_growing_reader_does_not_continue_a_rewritten_file(rewritten: GrowingFile) -> None:
    """Wrong bytes with a right rest would be a complete wrong blob, and the file no longer shows them."""
    file = rewritten.open_reader()
    assert file is not None
    reader, lost = (
        GrowingReader(rewritten, file, DiskExecutor(1), Fallback(PASSED)),
        StoreError("thrown away"),
    )
    with pytest.raises(StoreError, match="thrown away"):
        reader.continue_from_upstream(lost, Span(0, rewritten.size), 100)
    reader.close()


def file_of(data: bytes) -> BinaryIO:
    """Return a file in memory that has a descriptor."""
    descriptor = os.memfd_create("blob")
    os.pwrite(descriptor, data, 0)
    return os.fdopen(descriptor, "rb", buffering=0)


class Client:
    """An outlet that keeps what it is sent."""

    def __init__(self) -> None:
        self.data = b""
        self.notes: list[str] = []

    @property
    def sent(self) -> int:
        return len(self.data)

    async def send_file(self, reader: FileReader, span: Span) -> None:
        offset = span.start
        while offset < span.stop:
            stop = min(await reader.wait_readable(offset), span.stop)
            self.data += os.pread(reader.file.fileno(), stop - offset, offset)
            offset = stop

    async def send_pieces(self, pieces: AsyncGenerator[bytes, None]) -> None:
        async for piece in pieces:
            self.data += piece

    def note(self, text: str) -> None:
        self.notes.append(text)


class Failing(FileReader):
    """A reader whose file fails at a byte."""

    def __init__(self, data: bytes, at: int, error: Exception, fallback: Fallback) -> None:
        super().__init__(file_of(data), len(data), DiskExecutor(1), fallback)
        self._at = at
        self._error = error

    async def wait_readable(self, offset: int) -> int:
        if offset >= self._at:
            raise self._error
        return self._at


class Upstream(PassThroughBlob):
    """A blob that passes the disk by, without a network."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    async def stream(self, span: Span, sent: object = None) -> AsyncGenerator[bytes, None]:
        yield self._data[span.start : span.stop]


DATA = b"0123456789"


@pytest.mark.parametrize(
    "content",
    [
        SmallBlob(DATA),
        PassingContent(Upstream(DATA)),
        StoredReader(OpenBlob(file_of(DATA), 10), DiskExecutor(1), Fallback(PASSED)),
    ],
    ids=["small", "passing", "stored"],
)
async def test_content_of_every_kind_sends_a_span(content: BlobContent) -> None:
    """A client does not see where its bytes come from."""
    client = Client()
    assert await content.wait_readable(0) == content.size == 10
    await content.send(Span(2, 6), client)
    assert (client.data, client.notes) == (b"2345", [])
    content.close()


async def test_content_whose_disk_fails_comes_from_the_upstream() -> None:
    """The rest only, in the middle of a span."""
    client = Client()
    with closing(Failing(DATA, 5, StoreError("no disk"), Fallback(Upstream(DATA)))) as reader:
        await reader.send(Span(3, 9), client)
    assert client.data == b"345678"
    assert client.notes == ["passed through from byte 5: no disk"]


async def test_content_with_wrong_bytes_comes_from_another_source() -> None:
    """Once more, where that fails too; what was sent is compared with the new bytes."""
    wrong = WrongBytes(Failure.INVALID, "wrong")
    wrong.retry_elsewhere = True
    client, made = Client(), list[int]()

    async def reopen() -> BlobAnswer:
        made.append(len(made))
        data, at = (b"xx" + DATA[2:], 10) if len(made) == 1 else (DATA, 11)
        return BlobAnswer(Failing(data, at, wrong, fallback), Outcome.JOIN)

    fallback = Fallback(PASSED, reopen=reopen)
    with closing(Failing(DATA, 5, wrong, fallback)) as reader:
        with pytest.raises(WrongBytes):  # the first other source has other bytes than those that were sent
            await reader.send(Span(0, 10), client)
        assert (client.data, made) == (b"01234", [0])
        client.data = b""
        await reader.send(Span(0, 10), client)
    assert client.data == DATA
    assert client.notes == ["from another source from byte 5: wrong"]
