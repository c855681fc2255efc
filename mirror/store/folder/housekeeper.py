"""The election of the housekeeper: one of all processes on a cache folder."""

import os
from pathlib import Path

from mirror.store.lock import try_lock_folder


class Housekeeper:
    """The lock on a folder that the housekeeper holds until `release`, or its end. Blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None

    def claim(self) -> bool:
        """Return whether this process is the housekeeper, from now on if there is none."""
        if self._lock is None:
            self._lock = try_lock_folder(self._folder)
        return self._lock is not None

    def release(self) -> None:
        """Let another process become the housekeeper."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
