"""The quarantine: a folder for files that were found wrong, so that the operator can look at them."""

import os
from contextlib import suppress
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.util.durable import move_into

# The most bytes that the quarantine keeps besides the newest file. The quota does not count them, so without
# a limit a failing disk would fill with wrong files.
MOST_BYTES = 1024**3


class Quarantine:
    """The quarantine of one cache folder. Any thread of any process may call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, path: Path) -> None:
        """Move a file in; the oldest ones are removed beyond MOST_BYTES."""
        with suppress(FileNotFoundError):
            move_into(self.folder, path, path.name)
        self._prune()

    def holds(self, digest: Digest, file: os.stat_result | None = None) -> bool:
        """Return whether a file of this digest is here, or this very `file`."""
        start = f"{digest.encoded[2:]}."  # the file's name below its shard
        with suppress(OSError):
            names = [name for name in os.listdir(self.folder) if name.startswith(start)]
            return any(file is None or os.path.samestat(os.lstat(self.folder / name), file) for name in names)
        return False

    def _prune(self) -> None:
        files: list[tuple[int, int, str]] = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        files.append((status.st_ctime_ns, status.st_size, entry.path))
        kept = 0
        for _, size, path in sorted(files, reverse=True)[1:]:
            kept += size
            if kept > MOST_BYTES:
                with suppress(FileNotFoundError):
                    os.unlink(path)
