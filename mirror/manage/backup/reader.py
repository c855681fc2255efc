"""The reading of a backup: each member is proven, and nothing counts before the end was read."""

import hashlib
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

from mirror.bundle.archives.limits import DEFAULT
from mirror.bundle.archives.stream import Stream
from mirror.bundle.archives.tar_reader import TarEntry, TarReader
from mirror.bundle.errors import BundleError
from mirror.bundle.pump import ByteSource, Pump
from mirror.manage.backup.layout import (
    CONTENTS,
    FILES,
    FORMAT,
    HEAD,
    MOST_JSON,
    ROWS,
    BackupContents,
    BackupError,
    BackupHead,
    MemberSum,
    blob_of,
    parsed,
)
from mirror.oci.digest import Digest
from mirror.store.recovery import VERSION
from mirror.util.callbacks import ignore

# Most bytes of rows: ten million of them.
MOST_ROWS = 4 * 1024**3


class MemberSink(Protocol):
    """A place for one member. Both methods may raise OSError."""

    def write(self, data: memoryview, /) -> object:
        """Take the next bytes."""

    def keep(self) -> object:
        """Keep them: a blob is proven now, another member at the end of the archive alone."""


class BackupReceiver(Protocol):
    """Takes what a backup has."""

    def blob(self, digest: Digest, size: int, /) -> MemberSink:
        """Return the place of a blob."""

    def file(self, name: str, /) -> MemberSink:
        """Return the place of another member."""


class DiscardedMembers:
    """A receiver that keeps nothing, of a backup that is only verified; and the place of each member."""

    def blob(self, _digest: Digest, _size: int, /) -> "DiscardedMembers":
        return self

    def file(self, _name: str, /) -> "DiscardedMembers":
        return self

    def write(self, data: memoryview, /) -> None:
        """Take nothing."""

    def keep(self) -> None:
        """Keep nothing."""


class BackupReader:
    """One archive. `on_bytes` is called with numbers of bytes as they are read."""

    def __init__(self, file: BinaryIO, on_bytes: Callable[[int], object] = ignore) -> None:
        self._stream = Stream(cast("ByteSource", file))
        self._tar = TarReader(self._stream, DEFAULT)
        self._on_bytes = on_bytes
        self._members: dict[str, MemberSum] = {}
        self._blobs: dict[Digest, int] = {}

    def read(self, receiver: BackupReceiver) -> BackupContents:
        """Read all of it; return what it has. Raises BackupError, OSError."""
        contents = None
        try:
            with Pump() as pump:
                for entry in self._tar:
                    if contents is not None:
                        raise BackupError(f"there is {entry.name!r:.100} behind the end of the backup")
                    if entry.name == CONTENTS:
                        contents = parsed(self._small(entry), BackupContents)
                    else:
                        self._take(entry, receiver, pump)
        except BundleError as error:
            raise BackupError(
                f"{error}: the backup is damaged, or no backup; nothing was kept of it"
            ) from None
        if contents is None:
            raise BackupError("the backup is cut short: it has no end; nothing was kept of it")
        self._prove(contents)
        return contents

    def _take(self, entry: TarEntry, receiver: BackupReceiver, pump: Pump) -> None:
        if not self._members:
            self._check_head(entry)
        elif (digest := blob_of(entry.name)) is not None:
            self._blob(entry, digest, receiver, pump)
        elif entry.name not in self._members and entry.size <= {**FILES, ROWS: MOST_ROWS}.get(entry.name, -1):
            hasher = hashlib.sha256()
            sink = receiver.file(entry.name)
            self._copy(entry, sink, hasher, pump)
            self._members[entry.name] = MemberSum(entry.size, hasher.hexdigest())
            sink.keep()
        else:
            raise BackupError(f"there is {entry.name!r:.100} in it, which no backup has like this")

    def _check_head(self, entry: TarEntry) -> None:
        if entry.name != HEAD:
            raise BackupError(
                "this is no backup of a mirror: `registry-mirror import` reads bundles of images"
            )
        data = self._small(entry)
        head = parsed(data, BackupHead)
        if head.format > FORMAT or head.layout > VERSION:
            raise BackupError(
                f"registry-mirror {head.version:.40} has written this backup, and this version is too old for"
                " it: restore it with that version, or a newer one"
            )
        self._members[HEAD] = MemberSum(len(data), hashlib.sha256(data).hexdigest())

    def _blob(self, entry: TarEntry, digest: Digest, receiver: BackupReceiver, pump: Pump) -> None:
        if digest in self._blobs:
            raise BackupError(f"the blob {digest} is in it twice")
        hasher = digest.hasher()
        sink = receiver.blob(digest, entry.size)
        self._copy(entry, sink, hasher, pump)
        if hasher.hexdigest() != digest.encoded:
            raise BackupError(f"the blob {digest} has other content: the backup is damaged")
        self._blobs[digest] = entry.size
        sink.keep()

    def _copy(self, entry: TarEntry, sink: MemberSink, hasher: "hashlib._Hash", pump: Pump) -> None:
        def take(data: memoryview) -> None:
            sink.write(data)
            self._on_bytes(len(data))

        if pump.copy(self._tar, entry.size, [hasher], take) < entry.size:
            raise BackupError(f"{entry.name} is cut short")

    def _small(self, entry: TarEntry) -> bytes:
        if entry.size > MOST_JSON:
            raise BackupError(f"{entry.name} is too long")
        data = bytearray(entry.size)
        view, at = memoryview(data), 0
        while at < entry.size:
            at += self._tar.readinto(view[at:])
        return bytes(data)

    def _prove(self, contents: BackupContents) -> None:
        """Compare what was read with what the end says. Raises BackupError."""
        if contents.members != self._members:
            names = {*contents.members, *self._members}
            wrong = sorted(each for each in names if contents.members.get(each) != self._members.get(each))
            raise BackupError(f"{', '.join(wrong):.200} is missing, or has other content: it is damaged")
        if (contents.blobs, contents.blob_bytes) != (len(self._blobs), sum(self._blobs.values())):
            raise BackupError(f"it has {len(self._blobs)} blobs of {contents.blobs}: it is damaged")
