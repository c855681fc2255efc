"""Small blobs whose bytes are in memory: written to a temporary file, then moved into the blob store."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from mirror.oci.digest import Digest
from mirror.store.blobs.blobs import BlobStore
from mirror.store.blobs.diskcache_disk import KEPT_MODE, VerifiedFile
from mirror.store.blobs.entries import Origin
from mirror.util.durable import create_file


class SmallFiles:
    """The writer of small blobs; temporary files are in `folder`. Any thread may call."""

    def __init__(self, blobs: BlobStore, folder: Path) -> None:
        self._blobs = blobs
        self._folder = folder

    def add(
        self,
        contents: Mapping[Digest, bytes],
        origin: Origin,
        *,
        durable: bool = False,
        retained: bool = False,
    ) -> None:
        """Store small blobs. On an error, a full disk for instance, their temporary files are removed.

        Not durable: a read verifies it each time, and what a power failure destroyed is fetched again. What
        a client pushed is nowhere else: `durable` and `retained`, as of a VerifiedFile.
        """
        if not contents:
            return
        try:
            written = (self._write(digest, data, origin) for digest, data in contents.items())
            self._blobs.add(*(replace(each, durable=durable, retained=retained) for each in written))
        except BaseException:
            for digest in contents:
                self._path(digest).unlink(missing_ok=True)
            raise

    def _write(self, digest: Digest, data: bytes, origin: Origin) -> VerifiedFile:
        if Digest.of(data, digest.algorithm) != digest:
            raise ValueError(f"these bytes do not hash to {digest}")
        with create_file(path := self._path(digest), KEPT_MODE) as file:
            file.write(data)
        return VerifiedFile(digest, path, len(data), durable=False, origin=origin, read_only=True)

    def _path(self, digest: Digest) -> Path:
        """Return the temporary path under which this thread, and no other, writes a small blob."""
        return self._folder / f"small-{digest.encoded}-{os.getpid()}-{threading.get_ident()}"
