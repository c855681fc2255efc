"""Writer of a plan: the bytes of a bundle's tar, from any offset on."""

import hashlib
import io
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO, cast

from msgspec import Struct

from mirror.bundle.errors import BundleError, Damaged
from mirror.bundle.plan import BundlePlan, Member, Slice
from mirror.bundle.pump import ByteSource, Pump, read_ahead
from mirror.bundle.tar_format import END, padding
from mirror.oci.digest import Digest

if TYPE_CHECKING:
    from hashlib import _Hash

OpenBlob = Callable[[Digest], BinaryIO]
Progress = Callable[[int], object]


class Written(Struct, frozen=True):
    """Bytes written, and the SHA-256 of the whole tar (as hex), "" if it was not asked for."""

    bytes: int
    sha256: str


def silent(count: int) -> None:
    """Report no progress."""


def write(
    plan: BundlePlan,
    open_blob: OpenBlob,
    out: BinaryIO,
    offset: int = 0,
    progress: Progress = silent,
    sha256: bool = False,
) -> Written:
    """Write the bytes of a plan from `offset` on to `out`, which stands there already and is not closed.

    `open_blob` opens a blob at its beginning. `progress` is called with numbers of bytes as they are written;
    an exception that it raises ends the writing. With `sha256`, what lies before `offset` is read and hashed
    again.

    Raises Damaged for a blob that has another digest or size than its name says. Its bytes are in `out` then:
    the tar is of no use, and the blob in the store is to be removed.
    """
    with Pump() as pump:
        writer = _Writer(
            open_blob, pump, _Window(out, offset, progress), hashlib.sha256() if sha256 else None
        )
        for member in plan.members:
            writer.member(member)
        writer.literal(END)
        return Written(plan.size - offset, "" if writer.whole is None else writer.whole.hexdigest())


def resume_offset(plan: BundlePlan, file: BinaryIO) -> int:
    """Return the offset from which on an interrupted export goes on; `file` is what there is of it.

    The offset is that of the member in which the file ends, so that its blob is hashed from its beginning:
    what a crash of the machine left in it may not be what was written. Headers and documents before are
    compared, and a file that began as another bundle raises BundleError.
    """
    end = file.seek(0, io.SEEK_END)
    last = 0
    for offset, member in zip(plan.offsets(), plan.members, strict=True):
        head = member.header + (member.source if isinstance(member.source, bytes) else b"")
        file.seek(offset)
        found = file.read(len(head))
        if head[: len(found)] != found:
            raise BundleError(f"the file is not the beginning of this bundle: it differs at {member.path}")
        if offset + member.length > end:
            return offset
        last = offset + member.length
    return last


class _Window:
    """The part of a stream that is written: what lies before `skip` bytes is dropped."""

    def __init__(self, out: BinaryIO, skip: int, progress: Progress) -> None:
        self._out = out
        self._progress = progress
        self.skip = skip

    def write(self, data: memoryview) -> None:
        dropped = min(self.skip, len(data))
        self.skip -= dropped
        rest = data[dropped:]
        while rest:
            count = self._out.write(rest) or 0
            self._progress(count)
            rest = rest[count:]


class _Writer:
    """One run over the members of a plan."""

    def __init__(self, open_blob: OpenBlob, pump: Pump, window: _Window, whole: "_Hash | None") -> None:
        self._open_blob = open_blob
        self._pump = pump
        self._window = window
        self._sum: tuple[Slice, str] | None = None
        self.whole = whole

    def literal(self, data: bytes) -> None:
        if self.whole is not None:
            self.whole.update(data)
        self._window.write(memoryview(data))

    def member(self, member: Member) -> None:
        """Write a member, or go past it if it lies before the offset and no hash needs it."""
        source = member.source
        if self.whole is None and self._window.skip >= member.length:
            self._window.skip -= member.length
            return
        self.literal(member.header)
        if isinstance(source, Slice):
            self._slice(source)
        else:
            self.literal(source if isinstance(source, bytes) else self._sum_of(source.slice))
        self.literal(bytes(padding(member.size)))

    def _slice(self, source: Slice) -> None:
        hasher = source.digest.hasher() if source.whole else hashlib.sha256()
        self._copy(source, [hasher] if self.whole is None else [hasher, self.whole], self._window.write)
        if source.whole and hasher.hexdigest() != source.digest.encoded:
            raise Damaged("the blob's content has another digest", str(source.digest))
        self._sum = (source, hasher.hexdigest())

    def _sum_of(self, piece: Slice) -> bytes:
        """Return the sum of a piece, which is read again if it lies before the offset."""
        if self._sum is None or self._sum[0] != piece:
            hasher = hashlib.sha256()
            self._copy(piece, [hasher], len)
            self._sum = (piece, hasher.hexdigest())
        return f"{self._sum[1]}\n".encode()

    def _copy(self, source: Slice, hashers: "list[_Hash]", write: Callable[[memoryview], object]) -> None:
        with closing(self._open_blob(source.digest)) as file:
            read_ahead(file)
            file.seek(source.offset)
            count = self._pump.copy(cast("ByteSource", file), source.length, hashers, write)
            if count < source.length:
                raise Damaged(f"the blob ends after {source.offset + count} bytes", str(source.digest))
            if source.offset + source.length == source.size and file.read(1):
                raise Damaged(f"the blob has more bytes than {source.size}", str(source.digest))
