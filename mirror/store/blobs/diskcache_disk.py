"""diskcache's storage for blobs: adopts verified files, stores plain values, never unpickles.

A writable cache folder must not mean code execution (CVE-2025-69872: diskcache unpickles whatever a row says
is pickled), so every way in and out of pickle is closed here.
"""

import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from diskcache.core import MODE_BINARY
from msgspec import Struct

from mirror.oci.digest import Digest
from mirror.store.blobs.entries import Origin
from mirror.store.metadata.database import ForeignRow, PlainDisk
from mirror.util.durable import sync_folder

# Mode of the files that are kept: nobody writes to them.
KEPT_MODE = 0o400


class VerifiedFile(Struct, frozen=True):
    """A file on the same file system that is known to hash to `digest`; adopted by rename.

    `durable`: its bytes must be on the disk before its name is. Not for small files, which each read
    verifies. `origin`: how it came. `retained`: a client pushed it, and no eviction may have it.
    `read_only`: it has KEPT_MODE already.
    """

    digest: Digest
    path: Path
    size: int
    durable: bool = True
    origin: Origin = Origin.UNKNOWN
    retained: bool = False
    read_only: bool = False

    @property
    def is_ready(self) -> bool:
        """Return whether nothing is to be done to the file before it is adopted."""
        return self.read_only and not self.durable


class AdoptingDisk(PlainDisk):
    """diskcache's storage, for verified files. A value comes out as its path; the caller opens it."""

    # Algorithm, two digits, the others, nonce.
    FILE_NAME: ClassVar[re.Pattern[str]] = re.compile(r"([a-z0-9]+)/([0-9a-f]{2})/([0-9a-f]+)\.[0-9a-f]{8}")

    def __init__(self, directory: str, **options: Any) -> None:
        super().__init__(directory, **options)
        self._adopted = threading.local()

    @contextmanager
    def undo_on_error(self) -> Iterator[None]:
        """Move files that this thread adopts in here back if an error ends it: no entry, no file."""
        adopted: list[tuple[Path, Path]] = []
        self._adopted.files = adopted
        try:
            yield
        except BaseException:
            for source, target in adopted:
                with suppress(OSError):
                    os.rename(target, source)
            raise

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, str | None, Any]:
        """Move the file in, under a name of its own.

        diskcache unlinks, by name, the file of an entry that is replaced and the file of an `add` that came
        second, so two adoptions of one digest must never have one name: digest plus nonce.
        """
        if not isinstance(value, VerifiedFile):
            raise TypeError(f"only verified files are adopted, not {type(value).__name__}")
        encoded = value.digest.encoded
        name = os.path.join(value.digest.algorithm, encoded[:2], f"{encoded[2:]}.{secrets.token_hex(4)}")
        target = Path(self._directory, name)
        try:
            os.rename(value.path, target)
        except FileNotFoundError:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(value.path, target)
            if value.durable:  # the new folders' own names
                for folder in (target.parent.parent, Path(self._directory)):
                    sync_folder(folder)
        getattr(self._adopted, "files", []).append((value.path, target))
        if value.durable:
            sync_folder(target.parent)
        return value.size, MODE_BINARY, name, None

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> Path:
        """Return the path of an adopted file."""
        if mode != MODE_BINARY or filename is None or not self.is_own_name(filename):
            raise ForeignRow("not an adopted file")
        return Path(self._directory, filename)

    def remove(self, file_path: str) -> None:
        """Unlink the file, if the name is one of ours.

        diskcache also removes empty folders, which a concurrent adoption may need.
        """
        if not self.is_own_name(file_path):
            return
        with suppress(OSError):
            os.unlink(os.path.join(self._directory, file_path))
